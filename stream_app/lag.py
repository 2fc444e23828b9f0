"""Consumer groups: their names, and how far each is behind the end of its topics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)

from stream_app.kafka import admin_client
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader

COORDINATOR_WITHIN_S: Final = 15.0
"""How long a group's coordinator may take to be there. A new broker creates its offsets topic at the first
question, which takes about a second."""

_NOT_YET: Final = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)


@dataclass(frozen=True)
class PartitionLag:
    """How far a group is in one partition.

    `committed` is the offset of the next record it will read, None where it never committed; `end` the
    offset the next record will get; `lag` the records between, or all records there are where nothing was
    committed.
    """

    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int


def records_behind(start: int, end: int, committed: int | None) -> int:
    """Records that a group has yet to read of a partition that holds offsets from `start` to `end`.

    Retention may have taken records that the group never read: they are no lag any more.
    """
    return max(0, end - max(start, start if committed is None else committed))


def group_name(settings: Settings, role: str) -> str:
    """The consumer group of a role."""
    return f"{settings.prefix}sliceflow-{role}"


def lag_of(settings: Settings, group: str, topics: Sequence[str]) -> list[PartitionLag]:
    """The lag of `group` in every partition of `topics`, by topic and partition.

    Not for use inside a running loop.

    Raises:
        TopicMismatchError: A topic does not exist.
        KafkaUnreachableError: The broker does not answer.
    """
    return asyncio.run(_lag_of(settings, group, topics))


async def _lag_of(settings: Settings, group: str, topics: Sequence[str]) -> list[PartitionLag]:
    async with admin_client(settings) as admin:
        committed = await committed_offsets(admin, group)
    lags = []
    async with TopicReader(settings) as reader:
        for topic in topics:
            for partition, (start, end) in sorted((await reader.bounds(topic)).items()):
                offset = committed.get((topic, partition))
                lags.append(PartitionLag(topic, partition, offset, end, records_behind(start, end, offset)))
    return lags


async def committed_offsets(admin: Any, group: str) -> dict[tuple[str, int], int]:
    """What `group` has committed, by topic and partition; waits for the group's coordinator to be there."""
    give_up_at = time.monotonic() + COORDINATOR_WITHIN_S
    while True:
        try:
            answer = await admin.list_consumer_group_offsets(group)
        except _NOT_YET:
            if time.monotonic() > give_up_at:
                raise
            await asyncio.sleep(0.1)
            continue
        return {(tp.topic, tp.partition): found.offset for tp, found in answer.items() if found.offset >= 0}
