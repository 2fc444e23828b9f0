"""A training that was broken off and resumed ends with the very bytes of one that was not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders.histories import TrainingHistories
from encoders.train import train_model
from encoders.trained import TrainedModel, TrainProgress
from encoders.training_config import Optimisation, TrainConfig
from encoders.training_state import STATE_FILE, TENSORS_FILE, CheckpointError
from tests.encoders.cases import MINUTE_MS, cyclic_histories, cyclic_vocabulary

pytestmark = pytest.mark.slow

SPLIT_MS = 20 * MINUTE_MS
CONFIG = TrainConfig(slice_events=8, max_epochs=4, batch_events=512, optimisation=Optimisation(average_share=0.1))
HISTORIES = cyclic_histories(num_users=60, num_events=24)


class PowerCut(Exception):
    """What ends a training in these tests."""


def break_after(epoch: int) -> Callable[[TrainProgress], None]:
    """A listener that ends the training once an epoch is over."""

    def listen(progress: TrainProgress) -> None:
        if progress.epoch == epoch:
            raise PowerCut

    return listen


def train(
    folder: Path | None = None,
    *,
    resume: bool = False,
    config: TrainConfig = CONFIG,
    histories: TrainingHistories = HISTORIES,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
) -> TrainedModel:
    return train_model(
        histories,
        cyclic_vocabulary(),
        config,
        SPLIT_MS,
        on_progress,
        checkpoint_folder=folder,
        resume=resume,
        clock=lambda: 0.0,
    )


def begun(folder: Path, *, epochs: int = 2, config: TrainConfig = CONFIG) -> Path:
    """A folder with the checkpoints of a training that was broken off."""
    with pytest.raises(PowerCut):
        train(folder, config=config, on_progress=break_after(epochs))
    return folder


def weights_of(trained: TrainedModel) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in trained.model.state_dict().items()}


@pytest.fixture(scope="module")
def undisturbed() -> TrainedModel:
    """The training that nothing breaks off."""
    return train()


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_resumed_equals_undisturbed(tmp_path: Path, undisturbed: TrainedModel, epochs: int) -> None:
    resumed = train(begun(tmp_path, epochs=epochs), resume=True)
    assert weights_of(resumed) == weights_of(undisturbed)
    assert (resumed.curve, resumed.best_epoch) == (undisturbed.curve, undisturbed.best_epoch)


def test_the_best_weights_survive_the_break(tmp_path: Path) -> None:
    """A rate so high that a later epoch is worse: the weights to keep are older than the newest checkpoint."""
    config = replace(CONFIG, max_epochs=12, patience_epochs=2, optimisation=Optimisation(learning_rate=0.1))
    whole = train(config=config)
    assert whole.best_epoch < len(whole.curve)
    resumed = train(begun(tmp_path, epochs=whole.best_epoch + 1, config=config), resume=True, config=config)
    assert weights_of(resumed) == weights_of(whole)
    assert resumed.best_epoch == whole.best_epoch


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    assert sorted(path.name for path in begun(tmp_path, epochs=4).iterdir()) == ["epoch-000003", "epoch-000004"]


def test_a_half_written_checkpoint_is_none(tmp_path: Path, undisturbed: TrainedModel) -> None:
    part = begun(tmp_path) / ".epoch-000003.part"
    part.mkdir()
    (part / TENSORS_FILE).write_bytes(b"half")
    assert weights_of(train(tmp_path, resume=True)) == weights_of(undisturbed)


@pytest.mark.parametrize("name", [TENSORS_FILE, STATE_FILE])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, undisturbed: TrainedModel, name: str) -> None:
    path = begun(tmp_path) / "epoch-000002" / name
    path.write_bytes(path.read_bytes()[:-40])
    epochs: list[int] = []
    resumed = train(tmp_path, resume=True, on_progress=lambda progress: epochs.append(progress.epoch))
    assert epochs == [2, 3, 4]
    assert weights_of(resumed) == weights_of(undisturbed)


def test_where_none_can_be_read_it_says_so(tmp_path: Path) -> None:
    for folder in begun(tmp_path).iterdir():
        (folder / TENSORS_FILE).write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint that can be read \(epoch-000002: .*SHA-256.*epoch-000001"
    ):
        train(tmp_path, resume=True)


def test_another_config_is_refused_by_name(tmp_path: Path) -> None:
    other = replace(CONFIG, batch_events=256, optimisation=replace(CONFIG.optimisation, clip_norm=2.0))
    with pytest.raises(
        CheckpointError,
        match=r"config.batch_events is 256, the checkpoint's 512; config.optimisation.clip_norm is 2.0, .* 1.0; resume",
    ):
        train(begun(tmp_path), resume=True, config=other)


@pytest.mark.parametrize("place", [0, -1])
def test_other_data_is_refused_before_and_after_the_split(tmp_path: Path, place: int) -> None:
    rows_E = HISTORIES.item_rows_E.copy()
    rows_E[place] = 2 if rows_E[place] != 2 else 3
    with pytest.raises(CheckpointError, match="histories_sha256 is"):
        train(begun(tmp_path), resume=True, histories=replace(HISTORIES, item_rows_E=rows_E))


def test_checkpoints_are_not_mixed_with_those_of_a_new_training(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds checkpoints \(epoch-000002\), expected none; .*--resume"):
        train(begun(tmp_path))


def test_resume_begins_where_there_is_nothing(tmp_path: Path, undisturbed: TrainedModel) -> None:
    assert weights_of(train(tmp_path / "new", resume=True)) == weights_of(undisturbed)


def test_digest_sees_every_array() -> None:
    digests = {HISTORIES.digest()}
    for name in ("item_rows_E", "type_rows_E", "ts_ms_E", "gaps_ms_E", "event_weights_E"):
        changed = getattr(HISTORIES, name).copy()
        changed[-1] += 1
        digests.add(replace(HISTORIES, **{name: changed}).digest())
    merged = np.delete(HISTORIES.slice_starts_S1, 1)
    one_less = np.concatenate([[0], HISTORIES.user_starts_U1[1:] - 1])
    digests.add(replace(HISTORIES, slice_starts_S1=merged, user_starts_U1=one_less).digest())
    assert len(digests) == 7
