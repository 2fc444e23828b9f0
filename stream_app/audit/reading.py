"""Reading topics in runs, with consumers that belong to no group: nothing is committed, nobody is rebalanced."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from stream_app.audit.runs import before
from stream_app.errors import KafkaUnreachableError, TopicMismatchError
from stream_app.faustkit.fetching import RunConsumer
from stream_app.faustkit.run import MAX_RUN_BYTES, Run
from stream_app.groupless_reader import POLL_MS, GrouplessReader, IsolationLevel
from stream_app.kafka import as_unreachable
from stream_app.replay.report import Progress
from stream_app.settings import Settings

STALLED_S: Final = 60.0
"""A partition that yields nothing for this long is given up: a healthy broker answers in milliseconds."""


class RunsReader(GrouplessReader):
    """Reads partitions of topics in runs, one after the other.

    Args:
        settings: The settings.
        isolation: `read_committed` leaves out what a producer took back, as the roles do with their input; changelogs
            are read as recovery reads them.
        show: Takes the progress.

    Raises:
        KafkaUnreachableError: On entering or reading, the broker does not answer, or not in time.
    """

    def __init__(self, settings: Settings, isolation: IsolationLevel, show: Progress) -> None:
        new_consumer = partial(RunConsumer, auto_offset_reset="none", max_partition_fetch_bytes=MAX_RUN_BYTES)
        super().__init__(settings, isolation, new_consumer)
        self._show = show

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
