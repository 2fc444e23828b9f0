"""Reading topics in runs, and waiting for roles, against a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from stream_app import topics
from stream_app.audit.findings import Check
from stream_app.audit.read_lag import check_lag
from stream_app.audit.reading import RunsReader
from stream_app.broker import EmbeddedBroker
from stream_app.errors import TopicMismatchError
from stream_app.kafka import admin_client
from stream_app.lag import group_name
from stream_app.preflight import ensure_topics
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import KafkaSettings, Settings
from tests.support import publish

pytestmark = pytest.mark.kafka

Isolation = Literal["read_committed", "read_uncommitted"]


@pytest.fixture
def settings(broker: EmbeddedBroker, topic_prefix: str) -> Settings:
    """A namespace of this test, with all topics."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    made = Settings(kafka=kafka, prefix=topic_prefix, partitions=2)
    ensure_topics(made, create=True)
    return made


async def fill(settings: Settings, topic: str, num: int) -> None:
    """Put records 0, 1, ... into partition 0."""
    records = [(topic, 0, b"k", b"%d" % number) for number in range(num)]
    await publish(settings.kafka.bootstrap_servers, records)


async def transact(settings: Settings, topic: str, value: bytes, *, is_kept: bool) -> None:
    """Put a record into partition 0 in a transaction, and commit it or take it back."""
    servers = settings.kafka.bootstrap_servers
    async with AIOKafkaProducer(bootstrap_servers=servers, transactional_id=f"{topic}-test") as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, value, key=b"k", partition=0)
        await (producer.commit_transaction() if is_kept else producer.abort_transaction())


async def read(
    settings: Settings, topic: str, isolation: Isolation, start: int = 0, end: int | None = None
) -> tuple[int, list[tuple[int, bytes | None]]]:
    """The end of partition 0, and its records in a range."""
    async with RunsReader(settings, isolation, lambda text: None) as reader:
        bounds = await reader.bounds(topic)
        found = []
        async for run in reader.runs(topic, 0, start, bounds[0][1] if end is None else end):
            found += list(zip(run.offsets, run.values, strict=True))
        return bounds[0][1], found


def numbered(offsets: Sequence[int]) -> list[tuple[int, bytes]]:
    """The records of `fill` at these offsets."""
    return [(offset, b"%d" % offset) for offset in offsets]


def test_ranges_are_read_exactly(settings: Settings) -> None:
    events = topics.prefixed(settings.prefix, topics.EVENTS)

    async def scenario() -> None:
        await fill(settings, events, 20)
        for start, end in ((0, 20), (3, 11), (19, 20), (5, 5), (0, 0)):
            assert await read(settings, events, "read_committed", start, end) == (20, numbered(range(start, end)))

    asyncio.run(scenario())


def test_what_a_producer_took_back_is_read_only_where_asked_for(settings: Settings) -> None:
    events = topics.prefixed(settings.prefix, topics.EVENTS)

    async def scenario() -> None:
        await fill(settings, events, 2)
        await transact(settings, events, b"kept", is_kept=True)
        await transact(settings, events, b"taken back", is_kept=False)
        kept = [*numbered(range(2)), (2, b"kept")]
        assert await read(settings, events, "read_committed") == (6, kept)
        assert await read(settings, events, "read_uncommitted") == (6, [*kept, (4, b"taken back")])

    asyncio.run(scenario())


def test_records_that_are_gone_and_topics_that_are_missing_are_told(settings: Settings) -> None:
    events = topics.prefixed(settings.prefix, topics.EVENTS)

    async def scenario() -> None:
        await fill(settings, events, 5)
        async with admin_client(settings) as admin:
            await admin.delete_records({TopicPartition(events, 0): RecordsToDelete(3)})
        with pytest.raises(TopicMismatchError, match="removed while they were read"):
            await read(settings, events, "read_committed", 0)
        assert await read(settings, events, "read_committed", 3) == (5, numbered([3, 4]))
        with pytest.raises(TopicMismatchError, match="does not exist"):
            await read(settings, f"{events}-none", "read_committed")

    asyncio.run(scenario())


async def lag_after(settings: Settings, committed: int) -> Check:
    """The findings about the lag when the sequence role has committed so far in partition 0."""
    events = TopicPartition(topics.prefixed(settings.prefix, ROLE_INPUTS["sequence"]), 0)
    servers, group = settings.kafka.bootstrap_servers, group_name(settings, "sequence")
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([events])
        await consumer.commit({events: committed})
    finally:
        await consumer.stop()
    async with RunsReader(settings, "read_committed", lambda text: None) as reader:
        return await check_lag(settings, reader, 0.0, lambda text: None)


def test_marks_of_transactions_at_the_end_are_no_lag_but_records_are(settings: Settings) -> None:
    events = topics.prefixed(settings.prefix, topics.EVENTS)

    async def scenario() -> None:
        await fill(settings, events, 2)
        await transact(settings, events, b"kept", is_kept=True)
        behind = await lag_after(settings, 2)
        assert [(one.topic, one.partition, one.offset) for one in behind.breaches] == [(events, 0, 2)]
        worked_off = await lag_after(settings, 3)
        assert (worked_off.status, worked_off.facts["lag"]) == ("pass", {})

    asyncio.run(scenario())
