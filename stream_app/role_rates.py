"""How fast each role reads its input and how far it is behind, asked of Kafka while the roles run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from stream_app.kafka import admin_client
from stream_app.lag import committed_offsets, group_name, records_behind
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader
from stream_app.topics import prefixed


@dataclass(frozen=True)
class RoleRate:
    """A role between two looks: input records committed a second, and those not committed yet."""

    records_per_s: float
    lag: int


class RoleRates:
    """Looks at the roles' groups, as an asynchronous context manager; one connection for all looks.

    Args:
        settings: With a Kafka address.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._admin: Any = None
        self._reader: TopicReader | None = None
        self._before: dict[str, tuple[int, float]] = {}

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            KafkaUnreachableError: The broker does not answer.
        """
        self._admin = await self._stack.enter_async_context(admin_client(self._settings))
        self._reader = await self._stack.enter_async_context(TopicReader(self._settings))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._stack.aclose()

    async def look(self) -> dict[str, RoleRate]:
        """Every role's rate since the last look (0 at the first), and its lag.

        Raises:
            KafkaUnreachableError: The broker did not answer.
            KafkaError: The groups could not be asked.
        """
        assert self._reader is not None, "used before it was entered"
        bounds: dict[str, Mapping[int, tuple[int, int]]] = {}
        for name in sorted(set(ROLE_INPUTS.values())):
            topic = prefixed(self._settings.prefix, name)
            bounds[topic] = await self._reader.bounds(topic)
        return {
            role: await self._rate_of(role, bounds, prefixed(self._settings.prefix, name))
            for role, name in ROLE_INPUTS.items()
        }

    async def _rate_of(self, role: str, bounds: Mapping[str, Mapping[int, tuple[int, int]]], topic: str) -> RoleRate:
        committed = await committed_offsets(self._admin, group_name(self._settings, role))
        done = {partition: committed.get((topic, partition), start) for partition, (start, _) in bounds[topic].items()}
        lag = sum(records_behind(start, end, done[partition]) for partition, (start, end) in bounds[topic].items())
        now_s, total = time.monotonic(), sum(done.values())
        before, before_s = self._before.get(role, (total, now_s))
        self._before[role] = (total, now_s)
        elapsed_s = now_s - before_s
        return RoleRate((total - before) / elapsed_s if elapsed_s > 0 else 0.0, lag)
