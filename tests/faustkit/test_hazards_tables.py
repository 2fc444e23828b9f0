"""Tables of stock Faust between changelog, store and commit, each beside ours."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import faust
import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from faust.transport.producer import ProducerBuffer

from stream_app.broker import EmbeddedBroker
from tests.faustkit import agents, stock
from tests.faustkit.counting import TABLE
from tests.faustkit.stage import Process, Stage
from tests.support import create_topics, publish, read_all, wait_until

kafka = pytest.mark.kafka

NARROW = {"max.message.bytes": "1"}
"""Settings of a topic that takes no record at all."""


@pytest.fixture
def stage(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Stage:
    """Topics of one partition."""
    return Stage(broker.bootstrap_servers, topic_prefix, tmp_path, num_partitions=1)


def start_stock(stage: Stage, **task: Any) -> Process:
    """Start the stock app that counts."""
    whole = stock.Task(servers=stage.servers, prefix=stage.prefix, folder=str(stage.folder / "stock"), **task)
    return Process(["tests.faustkit.stock", msgspec.json.encode(whole).decode()], stage.folder / "stock.log")


def start_ours(stage: Stage, **task: Any) -> Process:
    """Start ours, which counts the same events."""
    whole: dict[str, Any] = {"kind": "ours", "servers": stage.servers, "prefix": stage.prefix, "topic": "", **task}
    made = agents.Task(folder=str(stage.folder / "w"), counts="inputs", **whole)
    return Process(["tests.faustkit.agents", msgspec.json.encode(made).decode()], stage.folder / "w.log")


def _records(stage: Stage, topic: str) -> list[Any]:
    return asyncio.run(read_all(stage.servers, topic, 1))


@kafka
def test_stock_commits_past_a_changelog_that_was_refused(stage: Stage) -> None:
    changelog = stock.changelog_of(stage.prefix)
    asyncio.run(create_topics(stage.servers, {changelog: 1}, NARROW))
    stage.send(3, keys=1)
    with start_stock(stage) as process:
        process.wait_for("counted key 0 3")
        stage.wait_committed()
        assert "_on_published error" in process.text()
    assert stage.committed() == [3]
    assert _records(stage, changelog) == []


@kafka
def test_ours_ends_before_it_commits_past_a_changelog_that_was_refused(stage: Stage) -> None:
    asyncio.run(create_topics(stage.servers, {f"{stage.prefix}narrow-{TABLE}-changelog": 1}, NARROW))
    stage.send(3, keys=1)
    with start_ours(stage, changelog_prefix=stage.prefix + "narrow-") as process:
        assert process.wait() == 1
        assert "MessageSizeTooLarge" in process.text()
        assert "value 0" not in process.text()  # the payload
    assert stage.committed() == [-1]


def test_stock_flush_gives_up_what_is_not_sent() -> None:
    """Ours commits what was reported done, and that is awaited: `test_dying_at_any_step_loses_and_doubles_nothing`
    waits for several commits before an acknowledged changelog, and finds none."""

    async def scenario() -> int:
        buffer = ProducerBuffer()
        buffer.app = faust.App("stock", broker="kafka://127.0.0.1:9")
        await buffer.start()
        # Kafka does not take the first record: nothing behind it gets on.
        buffer._send_pending = _never  # type: ignore[method-assign, assignment]
        for _ in range(2):
            buffer.pending.put_nowait(object())
        await buffer.flush()
        num_left = buffer.size
        buffer.pending.get_nowait()
        await buffer.stop()
        return num_left

    assert asyncio.run(scenario()) == 1


async def _never(record: object) -> None:
    await asyncio.Event().wait()


@kafka
def test_stock_counts_twice_after_a_kill(stage: Stage) -> None:
    changelog = stock.changelog_of(stage.prefix)
    asyncio.run(create_topics(stage.servers, {changelog: 1}))
    stage.send(3, keys=1)
    with start_stock(stage, commit_interval_s=1000.0) as process:
        process.wait_for("counted key 0 3")
        wait_until(lambda: len(_records(stage, changelog)) == 3, what="the changelog to be written")
        process.kill()
    assert stage.committed() == [-1]
    with start_stock(stage) as process:
        process.wait_for("counted key 0 6")


@kafka
def test_ours_counts_once_after_a_kill(stage: Stage) -> None:
    stage.send(3, keys=1)
    with stage.worker(instance_id="one", die_at="before_commit") as process:
        assert process.wait() == -9
    assert stage.committed() == [-1]
    assert [record.key for record in stage.read(f"{TABLE}-changelog") if record.value is not None][-1:] == [b"key 0"]
    with stage.worker(instance_id="one") as process:
        stage.wait_committed()
        assert process.terminate() == 0
    stage.check("w")


def _leave_mark(stage: Stage, changelog: str, key: bytes, value: bytes) -> None:
    """A record and, behind it, the mark of its transaction: an offset that no consumer is ever given."""

    async def scenario() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=stage.servers, transactional_id=changelog)
        async with producer, producer.transaction():
            await producer.send_and_wait(changelog, value, key=key, partition=0)

    asyncio.run(scenario())


@kafka
def test_stock_waits_for_ever_for_a_mark_at_the_tail(stage: Stage) -> None:
    """Ours: `test_recovery.test_control_records_at_the_tail_come_to_an_end`."""
    changelog = stock.changelog_of(stage.prefix)
    asyncio.run(create_topics(stage.servers, {changelog: 1}))
    stage.send(1, keys=1)
    _leave_mark(stage, changelog, b"key 0", b"1")
    with start_stock(stage) as process:
        process.wait_for("Recovery has not flushed")  # It has read all there is, and says so again and again.
        assert "Recovery complete" not in process.text()
        # Nothing was missing but a record that it can see.
        asyncio.run(publish(stage.servers, [(changelog, 0, b"key 0", b"4")]))
        process.wait_for("Recovery complete")


@kafka
def test_a_damaged_store_is_rebuilt(stage: Stage) -> None:
    """Ours; what stock Faust makes of one: `test_hazards_stores`."""
    stage.send(20)
    with start_ours(stage) as process:
        stage.wait_committed()
        assert process.terminate() == 0
    folder = stage.folder / "w" / TABLE / "0"
    path = max(folder.glob("*.sst"))
    path.write_bytes(path.read_bytes()[:-1])
    stage.send(20)
    with start_ours(stage) as process:
        stage.wait_committed()
        assert process.terminate() == 0
        assert "is damaged" in process.text()
    stage.check("w")


@kafka
def test_a_full_disk_ends_the_process_and_the_next_one_goes_on(stage: Stage) -> None:
    """Ours: nothing that was not stored is committed, and opening the store anew mends it."""
    stage.send(60)
    with start_ours(stage, padding_bytes=20_000, file_bytes=60_000) as process:
        assert process.wait() == 1
        assert "File too large" in process.text()
    assert stage.committed()[0] < 60
    with start_ours(stage) as process:
        stage.wait_committed()
        assert process.terminate() == 0
    stage.check("w")
