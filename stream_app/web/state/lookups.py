"""Users that are not held in memory, looked up on the topics: so any instance answers for any user."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from stream_app import tables
from stream_app.faustkit.store import unseal
from stream_app.kafka import partition_of
from stream_app.settings import Settings
from stream_app.stages.slicing import UserHistory
from stream_app.topic_reader import TopicReader
from stream_app.topics import RECOMMENDATIONS, changelog_name, prefixed
from stream_app.web.problems import Problem
from stream_app.web.state.bounded import Bounded

MAX_OFFSETS: Final = 100_000
"""How far back a partition is read for one user: about a second."""

READ_WITHIN_S: Final = 5.0
"""Longest reading for one request."""

MAX_AT_ONCE: Final = 2
MAX_WAITING: Final = 16
"""Readings at the same time, and requests that may wait for one; each reading is a connection of its own."""

MISSING_FOR_S: Final = 5.0
"""For so long nobody is looked for again who was not found."""


class Lookups:
    """Reads topics backwards for single users, a few at a time.

    Args:
        settings: With a Kafka address.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._num_waiting = 0
        self._missing: Bounded[float] = Bounded(10_000)

    async def newest_list(self, user_id: str) -> bytes | None:
        """The newest list of a user; None where it is not within `MAX_OFFSETS`."""
        return await self._in_turn(user_id, prefixed(self._settings.prefix, RECOMMENDATIONS))

    async def history(self, user_id: str) -> UserHistory | None:
        """The history of a user as the sequence role kept it last; None where it is not within `MAX_OFFSETS`."""
        value = await self._in_turn(user_id, changelog_name(self._settings.prefix, tables.USER_HISTORIES))
        return None if value is None else tables.HISTORY.decode(unseal(value).payload)

    async def _in_turn(self, user_id: str, topic: str) -> bytes | None:
        missed_s = self._missing.get(topic + user_id)
        if missed_s is not None and time.monotonic() - missed_s < MISSING_FOR_S:
            return None
        if self._num_waiting >= MAX_WAITING:
            raise Problem(429, "Too many users are being looked up on the topics.", headers={"Retry-After": "1"})
        self._num_waiting += 1
        try:
            async with self._turns:
                value = await self._newest(user_id, topic)
        finally:
            self._num_waiting -= 1
        if value is None:
            self._missing.put(topic + user_id, time.monotonic())
        return value

    async def _newest(self, user_id: str, topic: str) -> bytes | None:
        key = tables.key_of(user_id)
        async with TopicReader(self._settings, timeout_s=READ_WITHIN_S) as reader:
            partition = partition_of(key, await reader.num_partitions(topic))
            async for record in reader.read_backwards(topic, partition, max_offsets=MAX_OFFSETS):
                if record.key == key:
                    return record.value
        return None
