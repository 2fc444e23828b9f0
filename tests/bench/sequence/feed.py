"""Sending records as whole batches, all at once or at a steady rate, so that the sender costs next to nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from tests.bench.sequence.job import Load
from tests.bench.sequence.load import partitions_of

BATCH_BYTES: Final = 128 * 1024
"""Largest record batch sent: below what any broker takes, large enough that batches cost nothing."""

TICK_S: Final = 0.02
"""Between two batches at a steady rate."""

InputRecord = tuple[int, bytes, bytes]
"""Partition, key and value."""


def input_records(load: Load) -> Iterator[InputRecord]:
    """The records of a load, each with the partition of its key."""
    users_E, _ = load.draws()
    for partition, (key, value) in zip(partitions_of(users_E).tolist(), load.records(), strict=True):
        yield partition, key, value


def batch_producer(servers: str) -> AIOKafkaProducer:
    """A producer for `send_batches`, not started."""
    return AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_batch_size=BATCH_BYTES)


async def send_batches(producer: AIOKafkaProducer, topic: str, records: Iterable[InputRecord]) -> None:
    """Send records as whole batches, in order within each partition, and wait for all acknowledgements."""
    by_partition: dict[int, list[InputRecord]] = {}
    for record in records:
        by_partition.setdefault(record[0], []).append(record)
    sent: list[Any] = []
    for partition, group in by_partition.items():
        batch = producer.create_batch()
        for _, key, value in group:
            if batch.append(timestamp=None, key=key, value=value) is None:
                sent.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                batch.append(timestamp=None, key=key, value=value)
        sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)


async def send_steadily(producer: AIOKafkaProducer, topic: str, records: Iterator[InputRecord], rate: float) -> None:
    """Send `rate` records a second, those of a tick as one batch; what comes late is caught up."""
    started_s = time.monotonic()
    num_sent = 0
    while True:
        await asyncio.sleep(TICK_S)
        num_due = round(rate * (time.monotonic() - started_s))
        if due := list(islice(records, num_due - num_sent)):
            await send_batches(producer, topic, due)
        elif num_due > num_sent:
            return
        num_sent = num_due
