"""How much flows: the ends of all topics, and how far each role is behind, asked for once a second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Final, NoReturn, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_app.errors import KafkaUnreachableError
from stream_app.groupless_reader import GrouplessReader
from stream_app.kafka import admin_client
from stream_app.lag import committed_offsets, group_name, records_behind
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import Settings
from stream_app.topics import TABLE_GROUPS, changelog_name, prefixed, topic_specs
from stream_app.web.answers import FlowAnswer, RoleFacts, TopicFacts

EVERY_S: Final = 1.0
"""How often the ends of topics are asked for: one small request for each broker."""

ROLES_EVERY: Final = 2
"""Every so many times the roles' groups are asked for as well: two requests for each role."""

log = logging.getLogger("sliceflow.web")

_MEMBERS = 5
"""Place of the members in Kafka's description of a group."""

Offsets = dict[str, dict[int, int]]
"""Offsets by topic, without prefix, and partition."""


class Flow:
    """The numbers on the picture of the flow.

    Args:
        settings: With a Kafka address.
        reader: Open; asked for offsets alone.
    """

    def __init__(self, settings: Settings, reader: OffsetsReader) -> None:
        self._settings = settings
        self._reader = reader
        self._ends: Offsets = {}
        self._starts: Offsets = {}
        self._rates: dict[str, float] = {}
        self._asked_s = 0.0
        self._roles: dict[str, RoleFacts] = {
            role: RoleFacts(role=role, lag_records=0, members=0, ready=False) for role in ROLE_INPUTS
        }
        self.is_known = False
        """Whether anything was asked for with success."""

    @property
    def roles(self) -> list[RoleFacts]:
        """The roles, in the order of the flow."""
        return list(self._roles.values())

    def rate(self, topic: str) -> float:
        """Records that came to a topic (without prefix) in the last second."""
        return self._rates.get(topic, 0.0)

    def num_records(self, topic: str) -> int:
        """Records that ever came to a topic (without prefix)."""
        return sum(self._ends.get(topic, {}).values())

    def answer(self) -> FlowAnswer:
        """All numbers."""
        topics = [
            TopicFacts(name=name, records_per_s=round(self.rate(name), 1), end_offset=sum(ends.values()))
            for name, ends in self._ends.items()
        ]
        return FlowAnswer(roles=self.roles, topics=topics)

    async def run(self) -> None:
        """Ask, and go on asking; trouble with Kafka is told and tried again."""
        while True:
            try:
                async with admin_client(self._settings) as admin:
                    await self._go_on_asking(admin)
            except KafkaUnreachableError as error:
                log.warning("the numbers of the flow stand still: %s", error)
            await asyncio.sleep(EVERY_S)

    async def _go_on_asking(self, admin: Any) -> NoReturn:
        num_asked = 0
        while True:
            await self._ask_ends()
            if num_asked % ROLES_EVERY == 0:
                await self._ask_roles(admin)
            self.is_known = True
            num_asked += 1
            await asyncio.sleep(EVERY_S)

    async def _ask_ends(self) -> None:
        ends = await self._reader.ends()
        now_s = time.monotonic()
        passed_s = now_s - self._asked_s
        for topic, found in ends.items():
            if topic in self._ends:
                self._rates[topic] = max(0, sum(found.values()) - self.num_records(topic)) / passed_s
        self._ends, self._asked_s = ends, now_s

    async def _ask_roles(self, admin: Any) -> None:
        self._starts = await self._reader.starts()
        for role, topic in ROLE_INPUTS.items():
            group = group_name(self._settings, role)
            behind = self._behind(topic, await committed_offsets(admin, group))
            # One group at a time: aiokafka cannot read an answer of several.
            (answer,) = await admin.describe_consumer_groups([group])
            members = sum(len(found[_MEMBERS]) for found in answer.groups)
            self._roles[role] = RoleFacts(role=role, lag_records=behind, members=members, ready=members > 0)

    def _behind(self, topic: str, committed: Mapping[tuple[str, int], int]) -> int:
        name = prefixed(self._settings.prefix, topic)
        starts = self._starts.get(topic, {})
        return sum(
            records_behind(starts.get(number, 0), end, committed.get((name, number)))
            for number, end in self._ends.get(topic, {}).items()
        )


class OffsetsReader(GrouplessReader):
    """Asks where the topics of a namespace begin and end; changelogs are left out.

    Args:
        settings: With a Kafka address.

    Raises:
        KafkaUnreachableError: On entering, the broker does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "read_uncommitted", AIOKafkaConsumer)
        prefix = settings.prefix
        changelogs = {changelog_name(prefix, table) for table in TABLE_GROUPS}
        specs = [one for one in topic_specs(prefix, settings.partitions) if one.name not in changelogs]
        self._partitions = [
            TopicPartition(spec.name, number) for spec in specs for number in range(spec.num_partitions)
        ]

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._consumer.assign(self._partitions)  # makes the consumer look up where they are
        self._consumer.pause(*self._partitions)
        return self

    async def ends(self) -> Offsets:
        """The offset that the next record of each partition will get."""
        return self._by_topic(await self._consumer.end_offsets(self._partitions))

    async def starts(self) -> Offsets:
        """The offset of the oldest record of each partition."""
        return self._by_topic(await self._consumer.beginning_offsets(self._partitions))

    def _by_topic(self, offsets: Mapping[TopicPartition, int]) -> Offsets:
        found: Offsets = {}
        for tp, offset in offsets.items():
            found.setdefault(tp.topic.removeprefix(self._settings.prefix), {})[tp.partition] = offset
        return found
