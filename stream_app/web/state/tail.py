"""The newest part of several topics, read and followed by one consumer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
from aiokafka import TopicPartition

from stream_app.faustkit import Run
from stream_app.faustkit.fetching import RunConsumer
from stream_app.groupless_reader import POLL_MS, GrouplessReader
from stream_app.kafka import as_unreachable
from stream_app.settings import Settings

MAX_PART_BYTES: Final = 4 * 1024 * 1024
"""Of one partition in one fetch. Kafka gives a larger record alone."""

log = logging.getLogger("sliceflow.web")

OnRun = Callable[[Run], None]


@dataclass(frozen=True)
class Followed:
    """What is followed of a topic: records from `newest` offsets before its end on go to `on_run`."""

    on_run: OnRun
    newest: int


class Tail(GrouplessReader):
    """Follows topics from shortly before their ends.

    Args:
        settings: With a Kafka address.
        topics: What is followed, by full name.

    Raises:
        KafkaUnreachableError: On entering or following, the broker does not answer.
    """

    def __init__(self, settings: Settings, topics: Mapping[str, Followed]) -> None:
        new_consumer = partial(RunConsumer, auto_offset_reset="earliest", max_partition_fetch_bytes=MAX_PART_BYTES)
        super().__init__(settings, "read_committed", new_consumer)
        self._topics = dict(topics)
        self._missing: dict[TopicPartition, int] = {}
        self._caught_up = asyncio.Event()
        self._whole: set[str] = set()

    async def wait_caught_up(self) -> None:
        """Wait until everything is read that was there at the start."""
        await self._caught_up.wait()

    def is_whole(self, topic: str) -> bool:
        """Whether the topic was followed from its very beginning."""
        return topic in self._whole

    async def follow(self) -> None:
        """Read and go on reading, without end.

        Raises:
            TopicMismatchError: A topic does not exist.
        """
        places = await self._places()
        self._consumer.assign(list(places))
        for tp, offset in places.items():
            self._consumer.seek(tp, offset)
        while True:
            with as_unreachable(self._settings):
                found = await self._consumer.getmany(timeout_ms=POLL_MS)
            for tp, runs in found.items():
                for run in runs:
                    self._take(tp.topic, run)
            if not self._caught_up.is_set() and await self._is_caught_up():
                self._caught_up.set()
            # A long backlog must not keep requests waiting.
            await asyncio.sleep(0)

    def _take(self, topic: str, run: Run) -> None:
        try:
            self._topics[topic].on_run(run)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            # Somebody else's: what the roles write can be read. A server that ends would show nothing at all.
            log.warning("records of %s from offset %d on cannot be read: %s", topic, run.offsets[0], error)

    async def _places(self) -> dict[TopicPartition, int]:
        places: dict[TopicPartition, int] = {}
        for topic, followed in self._topics.items():
            bounds = await self.bounds(topic)
            for number, (start, end) in bounds.items():
                places[TopicPartition(topic, number)] = max(start, end - followed.newest)
                self._missing[TopicPartition(topic, number)] = end
            if all(start == 0 and end <= followed.newest for start, end in bounds.values()):
                self._whole.add(topic)
        return places

    async def _is_caught_up(self) -> bool:
        for tp, end in list(self._missing.items()):
            if await self._consumer.position(tp) >= end:
                del self._missing[tp]
        return not self._missing
