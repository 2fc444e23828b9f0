"""Reading topics in runs, with consumers that belong to no group: nothing is committed, nobody is rebalanced."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Literal, Self

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from stream_app.audit.runs import before
from stream_app.errors import KafkaUnreachableError, TopicMismatchError
from stream_app.faustkit.fetching import RunConsumer
from stream_app.faustkit.run import MAX_RUN_BYTES, Run
from stream_app.kafka import REQUEST_TIMEOUT_MS, as_unreachable, connection, start_reading
from stream_app.replay.report import Progress
from stream_app.settings import Settings

POLL_MS: Final = 200
"""How long one fetch waits for records, at most."""

STALLED_S: Final = 60.0
"""A partition that yields nothing for this long is given up: a healthy broker answers in milliseconds."""

Bounds = dict[int, tuple[int, int]]
"""First offset and end offset (that of the next record to come) by partition."""


class RunsReader:
    """Reads partitions of topics in runs, one after the other.

    Args:
        settings: The settings.
        isolation: `read_committed` leaves out what a producer took back, as the roles do with their input; changelogs
            are read as recovery reads them.
        show: Takes the progress.

    Raises:
        KafkaUnreachableError: On entering or reading, the broker does not answer, or not in time.
    """

    def __init__(
        self, settings: Settings, isolation: Literal["read_committed", "read_uncommitted"], show: Progress
    ) -> None:
        self._settings = settings
        self._isolation = isolation
        self._show = show
        self._consumer: Any = None

    async def __aenter__(self) -> Self:
        self._consumer = RunConsumer(
            **connection(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=self._isolation,
            # A fetch that waits for records holds up every other request of the consumer.
            fetch_max_wait_ms=50,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_partition_fetch_bytes=MAX_RUN_BYTES,
        )
        await start_reading(self._settings, self._consumer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()

    async def bounds(self, topic: str) -> Bounds:
        """Where each partition begins and ends at this moment.

        Raises:
            TopicMismatchError: The topic does not exist.
        """
        with as_unreachable(self._settings):
            # All topics are asked for: naming a missing one would create it on many clusters.
            cluster = await self._consumer._client.fetch_all_metadata()
            numbers = cluster.partitions_for_topic(topic)
            if not numbers:
                raise TopicMismatchError(f"The topic {topic} does not exist.", mend="run `sliceflow topics --create`")
            wanted = [TopicPartition(topic, number) for number in sorted(numbers)]
            self._consumer.assign(wanted)  # makes the consumer look up where the partitions are
            starts = await self._consumer.beginning_offsets(wanted)
            ends = await self._consumer.end_offsets(wanted)
        return {tp.partition: (starts[tp], ends[tp]) for tp in wanted}

    async def runs(self, topic: str, partition: int, start: int, end: int) -> AsyncIterator[Run]:
        """The records of one partition from offset `start` up to before `end`, in order.

        Raises:
            TopicMismatchError: Retention removed records while they were read.
        """
        if start >= end:
            return
        tp = TopicPartition(topic, partition)
        self._consumer.assign([tp])
        self._consumer.seek(tp, start)
        position, moved_s = start, time.monotonic()
        while position < end:
            self._show(f"{topic}[{partition}]: {position - start:,} of {end - start:,} offsets read")
            for run in await self._fetch(tp):
                if (wanted := before(run, end)) is not None:
                    yield wanted
            # By position, not by the last record seen: compaction and transactions leave gaps before the end.
            if (reached := await self._consumer.position(tp)) > position:
                position, moved_s = reached, time.monotonic()
            elif time.monotonic() - moved_s > STALLED_S:
                raise KafkaUnreachableError(
                    f"Kafka delivered nothing of {topic}[{partition}] from offset {position} on for {STALLED_S:g} s; "
                    f"its end is {end}.",
                    mend="check the broker's load and log, then try again",
                )

    async def _fetch(self, tp: TopicPartition) -> list[Run]:
        with as_unreachable(self._settings):
            try:
                fetched = await self._consumer.getmany(tp, timeout_ms=POLL_MS)
            except OffsetOutOfRangeError as error:
                raise TopicMismatchError(
                    f"Records of {tp.topic}[{tp.partition}] were removed while they were read: {error}.",
                    mend="run the audit again; lengthen the topic's retention where that happens often",
                ) from error
        runs: list[Run] = fetched.get(tp, [])
        return runs
