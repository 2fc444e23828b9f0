"""Per-message topics: what stock Faust does to the events of its agents, and what ours does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from stream_app.broker import EmbeddedBroker
from tests.faustkit.agents import NO_JSON, PLAIN, RAISE, STOP, WAIT, Task
from tests.faustkit.stage import Process, Stage
from tests.support import create_topics, wait_until

pytestmark = pytest.mark.kafka

NewStage = Callable[[int], Stage]
both = pytest.mark.parametrize("kind", ["stock", "ours"])


@pytest.fixture
def new_stage(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> NewStage:
    """Makes the topics, with so many partitions."""
    return lambda num_partitions: Stage(broker.bootstrap_servers, topic_prefix, tmp_path, num_partitions)


def start(stage: Stage, kind: str, worker: str = "w", **task: Any) -> Process:
    """Start the agent."""
    whole = Task(
        kind=kind,
        servers=stage.servers,
        prefix=stage.prefix,
        folder=str(stage.folder / worker),
        worker=worker,
        release=str(stage.folder / "release"),
        **task,
    )
    return Process(["tests.faustkit.agents", msgspec.json.encode(whole).decode()], stage.folder / f"{worker}.log")


@both
def test_an_exception_in_an_agent(new_stage: NewStage, kind: str) -> None:
    stage = new_stage(1)
    for value in (PLAIN, PLAIN, RAISE, PLAIN):
        stage.send(1, value=value)
    with start(stage, kind) as process:
        if kind == "stock":
            process.wait_for("done 0:3")
            stage.wait_committed()
            return
        assert process.wait() == 1
        assert "inputs[0] at offset 2: ValueError: this event is poison" in process.text()
        assert "done 0:3" not in process.text()
    assert stage.committed()[0] <= 2


@both
def test_a_record_that_cannot_be_decoded(new_stage: NewStage, kind: str) -> None:
    stage = new_stage(1)
    for value in (PLAIN, NO_JSON, PLAIN):
        stage.send(1, value=value)
    with start(stage, kind) as process:
        if kind == "stock":
            process.wait_for("done 0:2")
            stage.wait_committed()
            return
        assert process.wait() == 1
        assert "inputs[0] at offset 1 could not be decoded" in process.text()
        assert "SECRET" not in process.text()
    assert stage.committed()[0] <= 1


@both
def test_events_that_are_done_out_of_order(new_stage: NewStage, kind: str) -> None:
    stage = new_stage(2)
    stage.send(1, value=WAIT)
    with start(stage, kind, concurrency=2) as process:
        process.wait_for("began 0:0")
        stage.send(5, value=PLAIN)
        for place in ("0:1", "0:2", "1:2"):
            process.wait_for(f"done {place}")
        wait_until(lambda: stage.committed()[1] == 3, what="the other partition to be committed")
        assert "done 0:0" not in process.text()
        assert stage.committed()[0] == (3 if kind == "stock" else -1)
        if kind == "ours":
            (stage.folder / "release").touch()
            stage.wait_committed()


@both
def test_a_send_that_fails(new_stage: NewStage, kind: str) -> None:
    stage = new_stage(1)
    asyncio.run(create_topics(stage.servers, {stage.prefix + "narrow": 1}, {"max.message.bytes": "1"}))
    stage.send(3, value=PLAIN)
    with start(stage, kind, sends_to="narrow") as process:
        if kind == "stock":
            process.wait_for("done 0:2")
            stage.wait_committed()
            assert stage.read("narrow") == []
            return
        assert process.wait() == 1
        assert "narrow was not acknowledged: MessageSizeTooLargeError" in process.text()
        assert "nothing" not in process.text()  # the payload
    assert stage.committed() == [-1]


@both
def test_an_exception_among_events_that_were_taken(new_stage: NewStage, kind: str) -> None:
    stage = new_stage(1)
    stage.send(3, value=PLAIN)
    with start(stage, kind, takes=3) as process:
        if kind == "stock":
            process.wait_for("these 3 events are poison")
            stage.wait_committed()
            return
        assert process.wait() == 1
        assert "Use `BatchApp.attach`" in process.text()
    assert stage.committed() == [-1]


def test_gaps_of_transactions_hold_nothing_up(new_stage: NewStage) -> None:
    """Ours alone: its offsets are those that were delivered, so marks and taken-back records need no bookkeeping."""
    stage = new_stage(1)

    async def send() -> None:
        topic = stage.prefix + "inputs"
        async with AIOKafkaProducer(bootstrap_servers=stage.servers, transactional_id=topic) as producer:
            for is_kept in (True, False, True):
                await producer.begin_transaction()
                await producer.send_and_wait(topic, PLAIN, partition=0)
                await (producer.commit_transaction() if is_kept else producer.abort_transaction())

    asyncio.run(send())  # 0 kept, 1 mark, 2 taken back, 3 mark, 4 kept, 5 mark
    with start(stage, "ours") as process:
        process.wait_for("done 0:4")
        wait_until(lambda: stage.committed() == [5], what="everything delivered to be committed")
        assert "done 0:2" not in process.text()
        stage.send(1, value=PLAIN)
        process.wait_for("done 0:6")
        wait_until(lambda: stage.committed() == [7], what="what came behind the mark to be committed")


def test_a_stop_finishes_the_event_in_work_and_leaves_the_rest(new_stage: NewStage) -> None:
    """Ours alone: stock Faust waits too."""
    stage = new_stage(1)
    stage.send(1, value=STOP)
    stage.send(4, value=PLAIN)
    with start(stage, "ours") as process:
        assert process.wait() == 0
        assert "done 0:0" in process.text()
        assert "began 0:1" not in process.text()
    assert stage.committed() == [1]
