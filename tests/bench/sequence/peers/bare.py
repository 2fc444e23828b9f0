"""The sequence job on aiokafka alone: whole fetches in, whole record batches out, and a dict between them.

    python -m tests.bench.sequence.peers.bare '{"servers": ..., "group": ..., ...}'

This is the ceiling for anything in Python that uses aiokafka, and no more than that: it does not read its changelog
back, does not survive a rebalance, and keeps its state in memory.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.bench.sequence.job import HISTORY_EVENTS, Event, Output, Task
from tests.bench.sequence.peers.common import COUNT_BYTES, END, say_first, task_of_arguments

FETCH_BYTES: Final = 1024 * 1024
"""Of each partition in one fetch: some ten thousand events."""

BATCH_BYTES: Final = 1024 * 1024 - 4096
"""Largest record batch; a broker takes 1 MiB and a little."""

REQUEST_BYTES: Final = 16 * 1024 * 1024

MAX_UNACKNOWLEDGED: Final = 32
"""Batches on their way while further runs are worked on: bounds memory to some 32 MiB."""

FETCH_WAIT_MS: Final = 50
"""How long a fetch waits for records before what was done is committed for want of more."""

User = list[Any]
"""Number of events, then the items, oldest first: a list of both is what costs least to change."""


class Relay:
    """All partitions' histories, what was sent and not yet acknowledged, and what may be committed."""

    def __init__(self, task: Task, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        self._task = task
        self._consumer = consumer
        self._producer = producer
        self._users: dict[bytes, User] = {}
        self._decode = msgspec.json.Decoder(Event).decode
        self._encode = msgspec.json.Encoder().encode
        self._sent: list[asyncio.Future[Any]] = []
        self._next_offsets: dict[TopicPartition, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`: fetch, apply, send; commit what is acknowledged every `commit_s`, and when all is read."""
        committed_s = time.monotonic()
        is_first = True
        while not stop.is_set():
            fetched = await self._consumer.getmany(timeout_ms=FETCH_WAIT_MS)
            if fetched and is_first:
                is_first = False
                say_first()
            for tp, records in fetched.items():
                await self._take(tp, records)
            if not fetched or time.monotonic() - committed_s >= self._task.commit_s:
                await self.commit()
                committed_s = time.monotonic()
        await self.commit()

    async def commit(self) -> None:
        """Wait for all acknowledgements, then commit."""
        await self._acknowledged(0)
        if self._next_offsets:
            await self._consumer.commit(self._next_offsets)
            self._next_offsets = {}

    async def _take(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """Apply one run of a partition, and send what came of it."""
        outputs = self._apply(records)
        if self._task.variant == "latest":
            outputs = list(dict(outputs).items())
        changes = [(key, _packed(self._users[key])) for key in dict.fromkeys(record.key for record in records)]
        await self._send(self._task.output_topic, tp.partition, outputs)
        await self._send(self._task.state_topic, tp.partition, changes)
        self._next_offsets[tp] = records[-1].offset + 1
        await self._acknowledged(MAX_UNACKNOWLEDGED)

    def _apply(self, records: Iterable[Any]) -> list[tuple[bytes, bytes]]:
        """Keys and values of the outputs, one for each record."""
        decode, encode, users = self._decode, self._encode, self._users
        outputs = []
        for record in records:
            key = record.key
            event = decode(record.value)
            user = users.get(key)
            if user is None:
                user = users[key] = [0]
            elif user[0] >= HISTORY_EVENTS:
                del user[1]
            user[0] += 1
            user.append(event.item_id)
            outputs.append((key, encode(Output(event.user_id, user[0], event.item_id, user[1]))))
        return outputs

    async def _send(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Hand over records as whole batches; their acknowledgements are awaited later."""
        now_ms = int(time.time() * 1000)
        batch = self._producer.create_batch()
        for key, value in records:
            if batch.append(timestamp=now_ms, key=key, value=value) is None:
                self._sent.append(await self._producer.send_batch(batch, topic, partition=partition))
                batch = self._producer.create_batch()
                batch.append(timestamp=now_ms, key=key, value=value)
        self._sent.append(await self._producer.send_batch(batch, topic, partition=partition))

    async def _acknowledged(self, num_left: int) -> None:
        """Wait until at most `num_left` batches are not acknowledged."""
        while len(self._sent) > num_left:
            await self._sent.pop(0)


def _packed(user: User) -> bytes:
    num_events: int = user[0]
    return num_events.to_bytes(COUNT_BYTES, "big") + "\n".join(user[1:]).encode() + END


async def main(task: Task) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    consumer = AIOKafkaConsumer(
        task.input_topic,
        bootstrap_servers=task.servers,
        group_id=task.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=task.servers,
        enable_idempotence=True,
        acks="all",
        max_batch_size=BATCH_BYTES,
        max_request_size=REQUEST_BYTES,
        linger_ms=0,
    )
    async with consumer, producer:
        await Relay(task, consumer, producer).run(stop)


if __name__ == "__main__":
    # A search for cycles would go through the histories of all users again and again, and there are none.
    gc.disable()
    uvloop.run(main(task_of_arguments()))
