"""What is committed is compared with what is there when partitions are assigned."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.changelog import INPUT_HEADER
from stream_app.faustkit.ownership import INPUT_KEY
from tests.faustkit.counting import TABLE
from tests.faustkit.stage import NUM_PARTITIONS, Stage
from tests.support import create_topics, delete_topics, wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def worked_off(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Stage:
    """Twenty events in each partition, done and committed by a worker that has stopped."""
    stage = Stage(broker.bootstrap_servers, topic_prefix, tmp_path)
    stage.send(20 * NUM_PARTITIONS)
    with stage.worker() as worker:
        worker.wait_for("ready")
        stage.wait_committed()
        assert worker.terminate() == 0
    return stage


def test_what_retention_took_before_it_was_read_is_counted_aloud(worked_off: Stage) -> None:
    worked_off.send(20 * NUM_PARTITIONS)
    worked_off.remove_before(33)
    with worked_off.worker() as worker:
        worked_off.wait_committed()
        for number in range(NUM_PARTITIONS):
            lost = f"LOST: 13 records of {worked_off.prefix}inputs[{number}] (offsets 20 to 32)"
            assert lost in worker.text() and "longer retention" in worker.text()
        assert worker.terminate() == 0
    assert {told.offset for told in worked_off.told()} == {*range(20), *range(33, 40)}


def test_what_retention_took_after_it_was_done_is_nobodys_loss(worked_off: Stage) -> None:
    worked_off.send(20 * NUM_PARTITIONS)
    worked_off.remove_before(20)
    with worked_off.worker() as worker:
        worked_off.wait_committed()
        assert "LOST" not in worker.text()
        assert worker.terminate() == 0


def test_what_retention_takes_from_a_running_worker_is_counted_aloud(worked_off: Stage) -> None:
    with worked_off.worker() as worker:
        worker.wait_for("ready")
        worker.pause()
        # The fetch that is on its way is answered at the first of these, before the others are there.
        worked_off.send(4 * NUM_PARTITIONS)
        worked_off.send(30 * NUM_PARTITIONS)
        worked_off.remove_before(40)
        worker.wake()
        worked_off.wait_committed()
        text = worker.text()
        assert worker.terminate() == 0
    told = {(told.partition, told.offset) for told in worked_off.told()}
    for number in range(NUM_PARTITIONS):
        pattern = rf"LOST: \d+ records of {worked_off.prefix}inputs\[{number}\] \(offsets (\d+) to 39\)"
        (first,) = re.findall(pattern, text)
        lost = {(number, offset) for offset in range(int(first), 40)}
        assert len(lost) >= 16
        assert not lost & told
        told |= lost
    assert told == {(number, offset) for number in range(NUM_PARTITIONS) for offset in range(54)}


def make_input_anew(stage: Stage) -> None:
    """Delete the input and create it again, with more in it than was worked off."""
    topic = stage.prefix + "inputs"
    asyncio.run(delete_topics(stage.servers, [topic]))

    def is_created() -> bool:
        try:
            asyncio.run(create_topics(stage.servers, {topic: NUM_PARTITIONS}))
        except Exception as error:
            assert "exists" in str(error).lower()  # its deletion takes a moment
            return False
        return True

    wait_until(is_created, what="the new topic")
    stage.send(30 * NUM_PARTITIONS)


def named_inputs(stage: Stage) -> list[set[str]]:
    """Which ids of an input the marks in each partition of the changelog name."""
    named: list[set[str]] = [set() for _ in range(NUM_PARTITIONS)]
    for record in stage.read(f"{TABLE}-changelog"):
        if record.key == INPUT_KEY:
            named[record.partition].add(dict(record.headers)[INPUT_HEADER].decode())
    return named


@pytest.mark.parametrize("has_store", [True, False])
def test_an_input_that_was_created_anew_while_nobody_read_it_is_refused(worked_off: Stage, has_store: bool) -> None:
    before = named_inputs(worked_off)
    assert len(before[0]) == 1 and before[0] == before[1]
    make_input_anew(worked_off)
    for _ in range(2):  # a start that is refused leaves nothing behind that would let the next one pass
        if not has_store:
            shutil.rmtree(worked_off.folder / "w")
        with worked_off.worker() as worker:
            assert worker.wait() == 1
            assert "deleted and created anew" in worker.text() and "begin anew with empty stores" in worker.text()
    assert len(worked_off.told()) == 20 * NUM_PARTITIONS
    assert named_inputs(worked_off) == before


def test_when_all_is_done_it_is_committed_at_once(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap_servers, topic_prefix, tmp_path)
    with stage.worker(commit_interval_s=600.0) as worker:
        worker.wait_for("ready")
        for _ in range(3):
            stage.send(20)
            stage.wait_committed()
        assert worker.terminate() == 0
    stage.check("w")
