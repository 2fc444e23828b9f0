"""Making topics, reading them whole and fast, and removing them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tests.bench.sequence.job import NUM_PARTITIONS
from tests.support import POLL_S, create_topics

FETCH_BYTES: Final = 16 * 1024 * 1024
"""Bytes asked of a partition at once: few and large fetches."""

STALLED_S: Final = 60.0
"""A topic that yields nothing for this long is given up; a healthy broker answers in milliseconds."""


class TopicStalledError(Exception):
    """A topic stopped yielding records before its end."""


async def read_topic(servers: str, topic: str) -> AsyncIterator[tuple[int, Sequence[Any]]]:
    """All committed records that are on `topic` now: partition, and records of it in order, fetch by fetch.

    Raises:
        TopicStalledError: It does not yield records up to its end, or does not exist.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=FETCH_BYTES,
        fetch_max_bytes=4 * FETCH_BYTES,
        check_crcs=False,
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in await _numbers(consumer, topic)]
        consumer.assign(partitions)
        waiting = await consumer.end_offsets(partitions)
        progress_s = time.monotonic()
        # By position, not by the last record seen: compaction and transactions leave gaps before the end.
        while waiting := {tp: end for tp, end in waiting.items() if await consumer.position(tp) < end}:
            for tp, records in (await consumer.getmany(*waiting, timeout_ms=200)).items():
                progress_s = time.monotonic()
                yield tp.partition, records
            if time.monotonic() - progress_s > STALLED_S:
                raise TopicStalledError(
                    f"{topic} yielded nothing for {STALLED_S:.0f} s, {len(waiting)} partitions open."
                )
    finally:
        await consumer.stop()


async def num_records(servers: str, topic: str) -> int:
    """How many records a topic without gaps holds now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in await _numbers(consumer, topic)]
        consumer.assign(partitions)
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


async def _numbers(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    cluster = await consumer._client.fetch_all_metadata()
    numbers = sorted(cluster.partitions_for_topic(topic) or ())
    if not numbers:
        raise TopicStalledError(f"The topic {topic} does not exist.")
    return numbers


async def make_topic(servers: str, admin: AIOKafkaAdminClient, topic: str, config: Mapping[str, str]) -> None:
    """Create a topic and wait until every partition has a leader: Kafka says that it is there a little before.

    Raises:
        TopicStalledError: It is not there after a while.
    """
    await create_topics(servers, {topic: NUM_PARTITIONS}, config)
    give_up_s = time.monotonic() + STALLED_S
    while not _has_leaders((await admin.describe_topics([topic]))[0]):
        if time.monotonic() > give_up_s:
            raise TopicStalledError(f"The topic {topic} has no leaders {STALLED_S:.0f} s after it was made.")
        await asyncio.sleep(POLL_S)


def _has_leaders(described: Mapping[str, Any]) -> bool:
    partitions = described["partitions"]
    return len(partitions) == NUM_PARTITIONS and all(one["leader"] >= 0 for one in partitions)


async def remove_topics(admin: AIOKafkaAdminClient, part_of_name: str) -> None:
    """Delete every topic that has `part_of_name` in its name, also those that a contender made for itself."""
    found = [name for name in await admin.list_topics() if part_of_name in name]
    if found:
        await admin.delete_topics(found)
