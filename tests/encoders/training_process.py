"""One process of a training in several, for `test_train_processes`: trains, and writes its weights to a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from encoders.devices import Devices
from encoders.histories import TrainingHistories
from encoders.train import train_model
from encoders.trained import TrainProgress
from encoders.training_config import Optimisation, TrainConfig
from tests.encoders.cases import MINUTE_MS, cyclic_histories, cyclic_vocabulary

SPLIT_MS = 20 * MINUTE_MS
# Nothing random but order and initial weights, and the last weights kept, so that the same steps can be taken by hand
# in one process.
CONFIG = TrainConfig(
    slice_events=8,
    max_epochs=2,
    batch_events=256,
    dropout=0.0,
    unknown_share=0.0,
    random_phase=False,
    optimisation=Optimisation(average_share=0.0),
)


def histories() -> TrainingHistories:
    """What every process trains on."""
    return cyclic_histories(num_users=61, num_events=24)


def main(folder: Path) -> None:
    """Train, and write the weights and what was told."""
    torch.set_num_threads(1)
    rank = Devices().rank
    told: list[TrainProgress] = []
    trained = train_model(
        histories(), cyclic_vocabulary(), CONFIG, SPLIT_MS, told.append, checkpoint_folder=folder / "checkpoints"
    )
    save_file(trained.model.state_dict(), folder / f"weights-{rank}.safetensors")
    (folder / f"told-{rank}.txt").write_text(str(len(told)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
