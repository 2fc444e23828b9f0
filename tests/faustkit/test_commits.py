"""What is committed is compared with what is there when partitions are assigned."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from stream_app.broker import EmbeddedBroker
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


def remove_before(stage: Stage, offset: int) -> None:
    """What retention does."""

    async def remove() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=stage.servers)
        await admin.start()
        try:
            inputs = [TopicPartition(stage.prefix + "inputs", number) for number in range(NUM_PARTITIONS)]
            await admin.delete_records(dict.fromkeys(inputs, RecordsToDelete(before_offset=offset)))
        finally:
            await admin.close()

    asyncio.run(remove())


def test_what_retention_took_before_it_was_read_is_counted_aloud(worked_off: Stage) -> None:
    worked_off.send(20 * NUM_PARTITIONS)
    remove_before(worked_off, 33)
    with worked_off.worker() as worker:
        worked_off.wait_committed()
        for number in range(NUM_PARTITIONS):
            lost = f"LOST: 13 records of {worked_off.prefix}inputs[{number}] (offsets 20 to 32)"
            assert lost in worker.text() and "longer retention" in worker.text()
        assert worker.terminate() == 0
    assert {told.offset for told in worked_off.told()} == {*range(20), *range(33, 40)}


def test_what_retention_took_after_it_was_done_is_nobodys_loss(worked_off: Stage) -> None:
    worked_off.send(20 * NUM_PARTITIONS)
    remove_before(worked_off, 20)
    with worked_off.worker() as worker:
        worked_off.wait_committed()
        assert "LOST" not in worker.text()
        assert worker.terminate() == 0


def test_an_input_that_was_created_anew_while_nobody_read_it_is_refused(worked_off: Stage) -> None:
    topic = worked_off.prefix + "inputs"
    asyncio.run(delete_topics(worked_off.servers, [topic]))

    def is_created() -> bool:
        try:
            asyncio.run(create_topics(worked_off.servers, {topic: NUM_PARTITIONS}))
        except Exception as error:
            assert "exists" in str(error).lower()  # its deletion takes a moment
            return False
        return True

    wait_until(is_created, what="the new topic")
    worked_off.send(30 * NUM_PARTITIONS)
    with worked_off.worker() as worker:
        assert worker.wait() == 1
        assert "deleted and created anew" in worker.text() and "begin anew with empty stores" in worker.text()
    assert len(worked_off.told()) == 20 * NUM_PARTITIONS


def test_when_all_is_done_it_is_committed_at_once(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap_servers, topic_prefix, tmp_path)
    with stage.worker(commit_interval_s=600.0) as worker:
        worker.wait_for("ready")
        for _ in range(3):
            stage.send(20)
            stage.wait_committed()
        assert worker.terminate() == 0
    stage.check("w")
