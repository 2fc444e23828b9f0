"""What tests against a real Kafka share: waiting on conditions, topics of one's own, and reading them whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

POLL_S = 0.02
"""Time between two looks at a condition."""

DEADLINE_S = 120.0
"""How long a condition may take on a busy machine before the test is given up."""

T = TypeVar("T")


def wait_until(condition: Callable[[], T], deadline_s: float = DEADLINE_S, what: str = "the condition") -> T:
    """The first true answer of `condition`.

    Raises:
        TimeoutError: It gave none within `deadline_s` seconds.
    """
    end_s = time.monotonic() + deadline_s
    while not (answer := condition()):
        if time.monotonic() > end_s:
            raise TimeoutError(f"Waited {deadline_s:g} s for {what}; the last answer was {answer!r}.")
        time.sleep(POLL_S)
    return answer


def unique_topics(prefix: str, *names: str) -> tuple[str, ...]:
    """Full topic names of one test; `prefix` is its `topic_prefix`."""
    return tuple(f"{prefix}{name}" for name in names)


async def create_topics(servers: str, topics: Mapping[str, int], configs: Mapping[str, str] | None = None) -> None:
    """Create topics with the given partition counts, all with the same settings."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        wanted = [NewTopic(name, num, 1, topic_configs=dict(configs or {})) for name, num in topics.items()]
        await admin.create_topics(wanted)
    finally:
        await admin.close()


async def delete_topics(servers: str, topics: Sequence[str]) -> None:
    """Delete topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.delete_topics(list(topics))
    finally:
        await admin.close()


async def read_all(servers: str, topic: str, num_partitions: int) -> list[Any]:
    """All records that are on a topic now, as aiokafka gives them, partition by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(num_partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        records: dict[TopicPartition, list[Any]] = {tp: [] for tp in partitions}
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, fetched in (await consumer.getmany(timeout_ms=200)).items():
                records[tp].extend(fetched)
        return [record for tp in partitions for record in records[tp]]
    finally:
        await consumer.stop()


async def committed(servers: str, group: str, topic: str, num_partitions: int) -> list[int]:
    """Committed offset of each partition, -1 where there is none."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    known = {tp.partition: facts.offset for tp, facts in offsets.items() if tp.topic == topic}
    return [known.get(number, -1) for number in range(num_partitions)]


async def publish(servers: str, records: Sequence[tuple[str, int, bytes | None, bytes | None]]) -> None:
    """Send (topic, partition, key, value) in order and wait for all acknowledgements."""
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
        sent = [
            await producer.send(topic, value, key=key, partition=partition) for topic, partition, key, value in records
        ]
        for acknowledgement in sent:
            await acknowledgement
