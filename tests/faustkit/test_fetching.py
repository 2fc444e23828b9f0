"""A consumer that retention overtakes says what it could not read; other gaps between offsets are no loss."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.fetching import RunConsumer
from tests.faustkit.stage import remove_before
from tests.support import DEADLINE_S, create_topics, publish

pytestmark = pytest.mark.kafka

TOLD = re.compile(r"LOST: (\d+) records of \S+\[0\] \(offsets (\d+) to (\d+)\)")


class Reader:
    """Reads partition 0 of a topic of its own."""

    def __init__(self, servers: str, topic: str, consumer: RunConsumer) -> None:
        self.servers = servers
        self.tp = TopicPartition(topic, 0)
        self.consumer = consumer
        self.seen: list[int] = []

    async def send(self, num: int) -> None:
        """Append records."""
        await publish(self.servers, [(self.tp.topic, 0, None, b"x")] * num)

    async def remove_before(self, offset: int) -> None:
        """What retention does."""
        await remove_before(self.servers, self.tp.topic, 1, offset)

    async def read_to(self, end: int) -> None:
        """Read until `end` is what comes next."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.consumer.position(self.tp) < end:
                for run in (await self.consumer.getmany(timeout_ms=100)).get(self.tp, []):
                    self.seen.extend(run.offsets)


@asynccontextmanager
async def reader(broker: EmbeddedBroker, topic: str) -> AsyncIterator[Reader]:
    """A reader at the beginning of a new topic."""
    await create_topics(broker.bootstrap_servers, {topic: 1})
    consumer = RunConsumer(
        bootstrap_servers=broker.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        made = Reader(broker.bootstrap_servers, topic, consumer)
        consumer.assign([made.tp])
        yield made
    finally:
        await consumer.stop()


def told(caplog: pytest.LogCaptureFixture) -> list[range]:
    """The offsets that were told to be lost, in the order of telling."""
    found = []
    for number, first, last in TOLD.findall(caplog.text):
        found.append(range(int(first), int(last) + 1))
        assert len(found[-1]) == int(number)
    return found


def test_what_was_removed_before_it_was_read_is_told(
    broker: EmbeddedBroker, topic_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> list[int]:
        async with reader(broker, topic_prefix + "t") as one:
            await one.send(10)
            await one.read_to(10)
            one.consumer.pause(one.tp)
            # A fetch may be on its way already: it takes nothing of what is sent after it was answered.
            await one.send(10)
            await one.send(60)
            await one.remove_before(70)
            one.consumer.resume(one.tp)
            await one.read_to(80)
            return one.seen

    seen = asyncio.run(scenario())
    (lost,) = told(caplog)
    assert len(lost) >= 50
    assert sorted([*seen, *lost]) == list(range(80))
    assert "ERROR" in caplog.text and "longer retention" in caplog.text


def test_it_is_told_too_when_nothing_is_left(
    broker: EmbeddedBroker, topic_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with reader(broker, topic_prefix + "t") as one:
            await one.send(30)
            await one.remove_before(30)
            one.consumer.seek(one.tp, 4)
            await one.read_to(30)
            assert one.seen == []

    asyncio.run(scenario())
    assert told(caplog) == [range(4, 30)]


def test_the_same_loss_is_told_once_and_another_again(
    broker: EmbeddedBroker, topic_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with reader(broker, topic_prefix + "t") as one:
            await one.send(30)
            await one.remove_before(20)
            for place in (5, 5, 9):  # as each rebalance goes back to what is committed
                one.consumer.seek(one.tp, place)
                await one.read_to(30)
            await one.remove_before(25)
            one.consumer.seek(one.tp, 21)
            await one.read_to(30)

    asyncio.run(scenario())
    assert told(caplog) == [range(5, 20), range(21, 25)]


def test_other_gaps_and_what_was_read_in_time_are_no_loss(
    broker: EmbeddedBroker, topic_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic = topic_prefix + "t"

    async def send_transactions() -> None:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=topic) as producer:
            for is_kept in (True, False, True):  # 0 kept, 1 mark, 2 taken back, 3 mark, 4 kept, 5 mark
                await producer.begin_transaction()
                await producer.send_and_wait(topic, b"x", partition=0)
                await (producer.commit_transaction() if is_kept else producer.abort_transaction())

    async def scenario() -> list[int]:
        async with reader(broker, topic) as one:
            await send_transactions()
            await one.read_to(6)
            await one.remove_before(6)
            await one.send(4)
            await one.read_to(10)
            await one.remove_before(3 + 6)
            await one.consumer.seek_to_beginning(one.tp)
            await one.read_to(10)
            return one.seen

    assert asyncio.run(scenario()) == [0, 4, 6, 7, 8, 9, 9]
    assert told(caplog) == []
