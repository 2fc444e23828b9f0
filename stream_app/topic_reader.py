"""Reading topics outside any consumer group: whole, in ranges, backwards from the end, or as they grow."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_app.errors import KafkaUnreachableError
from stream_app.groupless_reader import POLL_MS, GrouplessReader, IsolationLevel
from stream_app.kafka import as_unreachable
from stream_app.settings import Settings
from stream_app.topics import MAX_RECORD_BYTES

DEFAULT_TIMEOUT_S: Final = 60.0
"""The deadline of one reading. A minute reads millions of short records; who needs more says so."""

FIRST_WINDOW: Final = 128
"""Offsets in the first window of a backward reading. The newest record of a busy key is near the end, and
one fetch brings this many; each further window is twice as large, so that the number of seeks stays small."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as it lies on its topic; `timestamp_ms` is the record's own time."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class TopicReader(GrouplessReader):
    """Reads topics without a consumer group, so that nothing is committed and nobody is rebalanced.

    Use it as an asynchronous context manager, for one reading at a time.

    Args:
        settings: The settings.
        timeout_s: The deadline of each reading that has an end.
        isolation_level: What of transactions is read and counts for the end of a partition: ``read_committed`` for what
            the roles read.

    Raises:
        KafkaUnreachableError: On entering or reading, the broker does not answer, or not in time.
        TopicMismatchError: On reading, the topic does not exist.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> None:
        new_consumer = partial(AIOKafkaConsumer, max_partition_fetch_bytes=MAX_RECORD_BYTES)
        super().__init__(settings, isolation_level, new_consumer)
        self._timeout_s = timeout_s

    async def read_range(self, topic: str, ranges: dict[int, tuple[int, int]]) -> AsyncGenerator[StoredRecord, None]:
        """The records of each partition from its first up to before its end offset, each partition in order.

        The ends must not lie behind the ends of the partitions: it would wait until the deadline.
        """
        give_up_at = time.monotonic() + self._timeout_s
        waiting = {TopicPartition(topic, partition): end for partition, (start, end) in ranges.items() if start < end}
        self._place({tp: ranges[tp.partition][0] for tp in waiting})
        while waiting:
            if time.monotonic() > give_up_at:
                self._stalled(topic, list(waiting))
            for record in await self._poll(list(waiting)):
                if record.offset < waiting.get(TopicPartition(topic, record.partition), 0):
                    yield record
            # By position, not by the last record seen: compaction and transactions leave gaps before the end.
            waiting = {tp: end for tp, end in waiting.items() if await self._consumer.position(tp) < end}

    async def read_all(self, topic: str, partitions: Iterable[int] | None = None) -> AsyncIterator[StoredRecord]:
        """All records that are there now; what comes while reading is left out."""
        async for record in self.read_range(topic, await self.bounds(topic, partitions)):
            yield record

    async def read_backwards(
        self, topic: str, partition: int, *, max_offsets: int | None = None
    ) -> AsyncIterator[StoredRecord]:
        """The records of one partition, newest first.

        Args:
            topic: The topic.
            partition: The partition.
            max_offsets: Stop after this many offsets; None reads back to the beginning.
        """
        start, end = (await self.bounds(topic, [partition]))[partition]
        if max_offsets is not None:
            start = max(start, end - max_offsets)
        window = FIRST_WINDOW
        while start < end:
            low = max(start, end - window)
            for record in reversed([record async for record in self.read_range(topic, {partition: (low, end)})]):
                yield record
            end, window = low, window * 2

    async def follow(
        self, topic: str, partitions: Iterable[int] | None = None, *, from_start: bool = False
    ) -> AsyncIterator[StoredRecord]:
        """Records as they come, without end; with those already there first where `from_start` is set."""
        bounds = await self.bounds(topic, partitions)
        places = {TopicPartition(topic, number): ends[0 if from_start else 1] for number, ends in bounds.items()}
        self._place(places)
        while True:
            for record in await self._poll(list(places)):
                yield record

    def _place(self, places: dict[TopicPartition, int]) -> None:
        if places:
            self._consumer.assign(list(places))
        for tp, offset in places.items():
            self._consumer.seek(tp, offset)

    async def _poll(self, partitions: list[TopicPartition]) -> list[StoredRecord]:
        with as_unreachable(self._settings):
            found = await self._consumer.getmany(*partitions, timeout_ms=POLL_MS)
        return [
            StoredRecord(one.topic, one.partition, one.offset, one.timestamp, one.key, one.value, tuple(one.headers))
            for records in found.values()
            for one in records
        ]

    def _stalled(self, topic: str, partitions: list[TopicPartition]) -> None:
        numbers = ", ".join(str(tp.partition) for tp in partitions)
        raise KafkaUnreachableError(
            f"Kafka did not deliver partition {numbers} of {topic} to its end within {self._timeout_s:g} s.",
            mend="check the broker's load and log, then try again",
        )
