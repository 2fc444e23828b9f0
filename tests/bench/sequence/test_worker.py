"""The hold on a worker: one that ends too early is told of, with its last words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.bench.sequence import relay
from tests.bench.sequence.job import Task
from tests.bench.sequence.worker import Worker, WorkerFailedError

pytestmark = pytest.mark.slow


def test_a_worker_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    # Nothing listens on port 1, so the relay cannot start.
    task = Task(
        servers="127.0.0.1:1",
        group="g",
        input_topic="i",
        output_topic="o",
        state_topic="s",
        folder=str(tmp_path),
        num_events=0,
    )
    with (
        Worker(relay.MODULE, task, tmp_path / "log") as process,
        pytest.raises(WorkerFailedError, match=r"(?s)exit code 1.*KafkaConnectionError"),
    ):
        asyncio.run(process.wait_said("ready"))
    assert process.said_at("ready") is None
