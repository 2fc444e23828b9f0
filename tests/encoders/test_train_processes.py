"""Two processes train one model: each with its own batches, both with the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from encoders.devices import Devices, seed_torch
from encoders.histories import next_targets
from encoders.training_run import TrainingRun
from tests.encoders.cases import cyclic_vocabulary
from tests.encoders.training_process import CONFIG, SPLIT_MS, histories

NUM_PROCESSES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote that trained together on the CPU."""
    folder = tmp_path_factory.mktemp("processes")
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={NUM_PROCESSES}"]
    done = subprocess.run(
        [*launched, "-m", "tests.encoders.training_process", str(folder)],
        env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return folder


def averaged_by_hand() -> dict[str, Tensor]:
    """The same training in one process: each step's gradient is the mean over both processes' batches."""
    past = histories().before(SPLIT_MS)
    with torch.random.fork_rng(devices=[]):
        seed_torch(CONFIG.seed)
        targets_E = next_targets(past, skip_repeats=True)
        run = TrainingRun(past, cyclic_vocabulary(), CONFIG, targets_E, Devices(), lambda: 0.0)
        run.model.train()
        num_planned = CONFIG.max_epochs * run.sampler.num_batches(NUM_PROCESSES)
        for epoch in range(1, CONFIG.max_epochs + 1):
            streams = [
                run.sampler.epoch(np.random.default_rng([CONFIG.seed, epoch]), 0.0, rank=rank, num_ranks=NUM_PROCESSES)
                for rank in range(NUM_PROCESSES)
            ]
            for batches in zip(*streams, strict=True):
                run.num_steps += 1
                run.set_rate(run.num_steps / num_planned)
                run.optimizer.zero_grad()
                for batch in batches:
                    prediction, reconstruction = run.step_loss(batch, None)
                    loss = prediction + CONFIG.objective.reconstruction_weight * reconstruction
                    (loss / NUM_PROCESSES).backward()
                run.take_step()
    return run.model.state_dict()


@pytest.mark.slow
def test_both_processes_end_with_the_weights_of_averaged_gradients(folder: Path) -> None:
    first, second = (load_file(folder / f"weights-{rank}.safetensors") for rank in range(NUM_PROCESSES))
    assert all(torch.equal(first[name], second[name]) for name in first)
    expected = averaged_by_hand()
    assert first.keys() == expected.keys()
    for name, weight in expected.items():
        difference = (weight - first[name]).abs().max().item()
        assert difference < 2e-4, f"{name}: largest difference {difference:.2e}"


@pytest.mark.slow
def test_the_main_process_alone_reports_and_writes(folder: Path) -> None:
    assert [(folder / f"told-{rank}.txt").read_text() for rank in range(NUM_PROCESSES)] == ["2", "0"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["epoch-000001", "epoch-000002"]
