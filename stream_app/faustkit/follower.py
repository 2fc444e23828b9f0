"""Reading a whole topic into a view: for tables that every worker holds in full."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_app.faustkit.failure import ending_process
from stream_app.faustkit.fetching import RunConsumer
from stream_app.faustkit.run import Run

log = logging.getLogger("sliceflow.follower")

FETCH_MS = 200
"""Longest wait of one fetch; records that are there come at once."""

OnRun = Callable[[Run], None]
Hold = Callable[[], Collection[int]]


class Follower:
    """Reads all partitions of a topic, and goes on following it.

    Args:
        connection: Keyword arguments for aiokafka clients.
        topic: The topic.
        on_run: Called with each run, in offset order within a partition.
        hold: Back-pressure: the partitions that nothing is to be fetched of for now.
        start: The offset to begin at, by partition; the others are read from the beginning.
    """

    def __init__(
        self,
        connection: dict[str, Any],
        topic: str,
        on_run: OnRun,
        *,
        hold: Hold = lambda: (),
        start: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._on_run = on_run
        self._hold = hold
        self._start = start
        self._task: asyncio.Task[None] | None = None
        self._caught_up = asyncio.Event()

    async def start(self) -> None:
        """Begin to read in the background."""
        self._task = asyncio.create_task(self._follow(), name=f"follow {self._topic}")

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait_caught_up(self) -> None:
        """Wait until everything is read that was there at the start."""
        await self._caught_up.wait()

    async def _follow(self) -> None:
        with ending_process(f"Topic {self._topic} could not be followed"):
            await self._read()

    async def _read(self) -> None:
        consumer = RunConsumer(**self._connection, enable_auto_commit=False, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = await _assign_all(consumer, self._topic)
            for number, offset in self._start.items():
                consumer.seek(TopicPartition(self._topic, number), offset)
            ends = await consumer.end_offsets(partitions)
            while True:
                self._pause_held(consumer, partitions)
                for runs in (await consumer.getmany(timeout_ms=FETCH_MS)).values():
                    for run in runs:
                        self._on_run(run)
                if not self._caught_up.is_set() and await _reached(consumer, ends):
                    self._caught_up.set()
        finally:
            await consumer.stop()

    def _pause_held(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        held = {tp for tp in partitions if tp.partition in self._hold()}
        paused = consumer.paused()
        if held != paused:
            consumer.resume(*(paused - held))
            consumer.pause(*(held - paused))


async def _assign_all(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    await consumer._client._wait_on_metadata(topic)
    numbers = consumer.partitions_for_topic(topic) or set()
    partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    return partitions


async def _reached(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    for tp, end in ends.items():
        if await consumer.position(tp) < end:
            return False
    return True
