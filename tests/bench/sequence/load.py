"""Putting a made-up stream onto an input topic, once for all contenders."""

from __future__ import annotations

import re
from typing import Any, Final, cast, get_args

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer

from stream_app.kafka import partition_of
from tests.bench.sequence.job import NUM_PARTITIONS, Load, Spread
from tests.support import create_topics

BATCH_BYTES: Final = 128 * 1024
"""Size of a record batch: about 1,400 events, what a producer of a busy site that lingers a moment makes."""

MAX_IN_FLIGHT: Final = 32
"""Batches on their way, at most: 4 MiB, so that the whole stream never lies in memory."""

PLAIN: Final = {"compression.type": "uncompressed"}
"""Settings of every topic of the bench: whatever a client would rather do, nothing is compressed."""

_NAME: Final = re.compile(rf"(\d+)-(\d+)-({'|'.join(get_args(Spread))})")


def parse_load(name: str) -> Load:
    """The load that a name like ``1000000-5000-skewed`` stands for.

    Raises:
        ValueError: The name is of another form.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no load; expected EVENTS-USERS-SPREAD, for example 1000000-5000-skewed.")
    return Load(int(match[1]), int(match[2]), cast(Spread, match[3]))


def input_topic(load: Load) -> str:
    """The topic that holds a load."""
    return f"input-{load.name}"


def partitions_of(users_E: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The partition of each event (E,), by the partitioner that all Kafka clients can use (murmur2 of the key)."""
    numbers, places_E = np.unique(users_E, return_inverse=True)
    partitions = np.array([partition_of(b"u%d" % number, NUM_PARTITIONS) for number in numbers.tolist()], np.int64)
    return partitions[places_E]


async def put_load(servers: str, load: Load) -> str:
    """Create the input topic of `load` and fill it; the topic's name."""
    topic = input_topic(load)
    await create_topics(servers, {topic: NUM_PARTITIONS}, PLAIN)
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_batch_size=BATCH_BYTES) as producer:
        sender = _Sender(producer, topic)
        users_E, _ = load.draws()
        for partition, (key, value) in zip(partitions_of(users_E).tolist(), load.records(), strict=True):
            if sender.builders[partition].append(timestamp=None, key=key, value=value) is None:
                await sender.send(partition)
                sender.builders[partition].append(timestamp=None, key=key, value=value)
        for partition in range(NUM_PARTITIONS):
            await sender.send(partition)
        await sender.acknowledged(0)
    return topic


class _Sender:
    """A batch being filled for each partition, and those on their way."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._waiting: list[Any] = []
        self.builders: list[Any] = [producer.create_batch() for _ in range(NUM_PARTITIONS)]

    async def send(self, partition: int) -> None:
        """Send the batch of a partition, and begin the next."""
        builder, self.builders[partition] = self.builders[partition], self._producer.create_batch()
        if builder.record_count():
            self._waiting.append(await self._producer.send_batch(builder, self._topic, partition=partition))
            await self.acknowledged(MAX_IN_FLIGHT)

    async def acknowledged(self, num_left: int) -> None:
        """Wait until at most the newest `num_left` batches are not acknowledged."""
        while len(self._waiting) > num_left:
            await self._waiting.pop(0)
