"""Reading topics and lag against a broker; the plain list of what was written is the oracle."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import islice
from typing import TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream_app.broker import EmbeddedBroker
from stream_app.errors import KafkaUnreachableError, TopicMismatchError
from stream_app.lag import PartitionLag, group_name, lag_of
from stream_app.settings import KafkaSettings, Settings
from stream_app.topic_reader import FIRST_WINDOW, StoredRecord, TopicReader

T = TypeVar("T")

NUM_RECORDS = 4 * FIRST_WINDOW
"""Enough for a backward reading to need three windows."""


@pytest.fixture
def settings(broker: EmbeddedBroker, topic_prefix: str) -> Settings:
    """Settings for a namespace of its own on the session's broker."""
    return Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers), prefix=topic_prefix)


@pytest.fixture
def unused_address() -> str:
    """An address of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def reading(settings: Settings, read: Callable[[TopicReader], Coroutine[None, None, T]], timeout_s: float = 30) -> T:
    """What `read` makes of a fresh reader."""

    async def run() -> T:
        async with TopicReader(settings, timeout_s=timeout_s) as reader:
            return await read(reader)

    return asyncio.run(run())


async def collected(records: AsyncIterator[StoredRecord], limit: int | None = None) -> list[StoredRecord]:
    """The records as a list; the first `limit` of them where one is given."""
    found = []
    async for record in records:
        found.append(record)
        if len(found) == limit:
            break
    return found


async def has_leaders(admin: AIOKafkaAdminClient, topic: str, num_partitions: int) -> bool:
    """Whether the topic can be seen with a leader for each partition."""
    seen = [one["partitions"] for one in await admin.describe_topics() if one["topic"] == topic]
    return [len(parts) for parts in seen if all(part["leader"] >= 0 for part in parts)] == [num_partitions]


def write(settings: Settings, topic: str, num_partitions: int, num_records: int) -> None:
    """Make the topic and write records 0, 1, ... in turn to its partitions; the number is the value."""

    async def run() -> None:
        servers = settings.kafka.bootstrap_servers
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        await admin.create_topics([NewTopic(topic, num_partitions, 1)])
        async with asyncio.timeout(30):  # the broker answers before everybody can see the topic
            while not await has_leaders(admin, topic, num_partitions):
                await asyncio.sleep(0)
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
            for number in range(num_records):
                text = str(number).encode()
                await producer.send(
                    topic,
                    text,
                    key=b"k" + text,
                    partition=number % num_partitions,
                    timestamp_ms=1_000 + number,
                    headers=[("n", text)],
                )
            await producer.flush()

    asyncio.run(run())


def values(records: list[StoredRecord]) -> list[int]:
    """The numbers in the records."""
    return [int(record.value or b"-1") for record in records]


@pytest.mark.kafka
def test_read_all_gives_everything_in_order_within_each_partition(settings: Settings) -> None:
    topic = settings.prefix + "all"
    write(settings, topic, 3, 100)
    records = reading(settings, lambda reader: collected(reader.read_all(topic)))
    for partition in range(3):
        mine = [record for record in records if record.partition == partition]
        assert values(mine) == list(range(partition, 100, 3))
    some = next(record for record in records if record.value == b"42")
    assert some == StoredRecord(topic, 0, 14, 1042, b"k42", b"42", (("n", b"42"),))
    one = reading(settings, lambda reader: collected(reader.read_all(topic, [1])))
    assert values(one) == list(range(1, 100, 3))


@pytest.mark.kafka
def test_an_empty_topic_reads_as_nothing(settings: Settings) -> None:
    topic = settings.prefix + "empty"
    write(settings, topic, 2, 0)
    assert reading(settings, lambda reader: collected(reader.read_all(topic))) == []
    assert reading(settings, lambda reader: collected(reader.read_backwards(topic, 1))) == []


@pytest.mark.kafka
def test_backwards_is_the_reverse_of_forwards(settings: Settings) -> None:
    topic = settings.prefix + "backwards"
    write(settings, topic, 1, NUM_RECORDS)
    found = reading(settings, lambda reader: collected(reader.read_backwards(topic, 0)))
    assert values(found) == list(reversed(range(NUM_RECORDS)))
    some = reading(settings, lambda reader: collected(reader.read_backwards(topic, 0, max_offsets=200)))
    assert values(some) == list(islice(reversed(range(NUM_RECORDS)), 200))


@pytest.mark.kafka
def test_ranges_are_exact(settings: Settings) -> None:
    topic = settings.prefix + "ranges"
    write(settings, topic, 2, 40)
    found = reading(settings, lambda reader: collected(reader.read_range(topic, {0: (3, 5), 1: (7, 7)})))
    assert [(record.partition, record.offset) for record in found] == [(0, 3), (0, 4)]


@pytest.mark.kafka
def test_following_begins_where_it_was_told(settings: Settings) -> None:
    topic = settings.prefix + "follow"
    write(settings, topic, 1, 5)
    found = reading(settings, lambda reader: collected(reader.follow(topic, from_start=True), limit=5))
    assert values(found) == [0, 1, 2, 3, 4]

    async def next_one(reader: TopicReader) -> list[StoredRecord]:
        following = asyncio.create_task(collected(reader.follow(topic), limit=1))
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
            number = 5
            while not following.done():  # written until one comes: when following begins is not known
                await producer.send_and_wait(topic, str(number).encode())
                number += 1
        return await following

    assert values(reading(settings, next_one))[0] >= 5


@pytest.mark.kafka
def test_a_missing_topic_is_named_and_not_created(settings: Settings) -> None:
    topic = settings.prefix + "nowhere"
    for _ in range(2):
        with pytest.raises(TopicMismatchError, match=topic):
            reading(settings, lambda reader: collected(reader.read_all(topic)))


@pytest.mark.kafka
def test_the_deadline_holds(settings: Settings) -> None:
    topic = settings.prefix + "deadline"
    write(settings, topic, 1, 3)
    with pytest.raises(KafkaUnreachableError, match=r"partition 0 of .*deadline .* within 0\.3 s"):
        reading(settings, lambda reader: collected(reader.read_range(topic, {0: (0, 4)})), timeout_s=0.3)


@pytest.mark.kafka
def test_lag_counts_what_is_left(settings: Settings) -> None:
    topic, group = settings.prefix + "lag", group_name(settings, "sequence")
    assert group == f"{settings.prefix}sliceflow-sequence"
    write(settings, topic, 2, 10)
    assert lag_of(settings, group, [topic]) == [PartitionLag(topic, n, None, 5, 5) for n in (0, 1)]

    async def commit() -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
        )
        place = TopicPartition(topic, 1)
        consumer.assign([place])
        await consumer.start()
        await consumer.commit({place: 3})
        await consumer.stop()

    asyncio.run(commit())
    assert lag_of(settings, group, [topic]) == [
        PartitionLag(topic, 0, None, 5, 5),
        PartitionLag(topic, 1, 3, 5, 2),
    ]


def test_no_broker_is_told(unused_address: str) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=unused_address))
    with pytest.raises(KafkaUnreachableError, match=unused_address):
        reading(settings, lambda reader: reader.num_partitions("events"))
