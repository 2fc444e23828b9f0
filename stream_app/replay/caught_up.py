"""Waiting until every role has worked off its input, in the order of the flow, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from stream_app.errors import CaughtUpError
from stream_app.kafka import admin_client
from stream_app.lag import committed_offsets, group_name
from stream_app.records import StatusRecord
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader
from stream_app.topics import RECOMMENDATIONS, STATUS, prefixed

POLL_S: Final = 0.15
"""Pause between two looks at a group: roles commit every 0.25 s."""

IDLE_S: Final = 1.0
"""After so long without a commit it is looked whether there is anything to read at all: four times the time between
two commits, and rare enough for a connection of its own."""

NO_PROGRESS_S: Final = 120.0
"""Longest time without any committed offset moving. A strict join waits up to a minute for its epoch; a role
that was restarted is back in seconds."""

READ_WITHIN_S: Final = 900.0
"""Deadline for reading the lists of a replay: a million lists of 2 KB take minutes on a slow disk."""

Ends = Mapping[int, int]
"""End offset by partition."""

Bounds = Mapping[int, tuple[int, int]]
"""First offset and end offset by partition."""


@dataclass(frozen=True)
class Lag:
    """How far a role is: records still to work off, and those it has worked off in total."""

    role: str
    behind: int
    done: int


OnLag = Callable[[Lag], None]


@dataclass(frozen=True)
class Totals:
    """What the sequence role has counted: events, and what became of them."""

    events: int = 0
    applied: int = 0
    dead_lettered: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def since(self, before: Totals) -> Totals:
        """The difference to an earlier count; reasons that did not move are left out."""
        names = sorted({*self.dropped, *before.dropped})
        moved = {name: self.dropped.get(name, 0) - before.dropped.get(name, 0) for name in names}
        return Totals(
            self.events - before.events,
            self.applied - before.applied,
            self.dead_lettered - before.dead_lettered,
            {name: count for name, count in moved.items() if count},
        )

    def balances(self, num_sent: int) -> bool:
        """Whether every event sent was applied, dead-lettered or dropped by name, and nothing else was."""
        accounted = self.applied + self.dead_lettered + sum(self.dropped.values())
        return self.events == accounted == num_sent


class ProgressWatch:
    """Notices when nothing has moved for too long; times are seconds of one monotonic clock.

    Args:
        patience_s: Longest time without a move.
        now_s: The time now.
    """

    def __init__(self, patience_s: float, now_s: float) -> None:
        self._patience_s = patience_s
        self._moved_s = now_s
        self._seen: object = None

    def is_stalled(self, state: object, now_s: float) -> bool:
        """Whether `state` has been the same for longer than the patience."""
        if state != self._seen:
            self._seen, self._moved_s = state, now_s
        return now_s - self._moved_s > self._patience_s


async def wait_caught_up(
    settings: Settings,
    *,
    no_progress_s: float = NO_PROGRESS_S,
    on_lag: OnLag | None = None,
) -> None:
    """Wait until each role has committed all of its input, a role after those that feed it.

    What others send meanwhile is not waited for: a role is done when it has come to the end that its input had
    when the roles before it were done.

    Raises:
        CaughtUpError: No role committed anything for `no_progress_s`.
        KafkaUnreachableError: The broker does not answer.
        TopicMismatchError: A topic does not exist.
    """
    async with admin_client(settings) as admin:
        watch = ProgressWatch(no_progress_s, time.monotonic())
        for role in ROLE_INPUTS:
            topic = prefixed(settings.prefix, ROLE_INPUTS[role])
            # A new reader each time: on one that is already fetching, every request waits behind a fetch.
            async with _reader(settings) as reader:
                bounds: Bounds = await reader.bounds(topic)
            idle = ProgressWatch(IDLE_S, time.monotonic())
            while True:
                committed = await _committed_by_role(admin, settings)
                behind = behind_of(bounds, committed[role])
                if on_lag is not None:
                    on_lag(Lag(role, behind, sum(committed[role].values())))
                if behind == 0:
                    break
                if watch.is_stalled(committed, time.monotonic()):
                    raise _stalled(role, topic, behind, no_progress_s)
                if idle.is_stalled(committed[role], time.monotonic()):
                    bounds = await _readable_bounds(settings, topic, bounds, committed[role])
                    idle = ProgressWatch(IDLE_S, time.monotonic())
                await asyncio.sleep(POLL_S)


def _reader(settings: Settings) -> TopicReader:
    return TopicReader(settings, isolation_level="read_committed")


async def _readable_bounds(settings: Settings, topic: str, bounds: Bounds, committed: Ends) -> Bounds:
    """`bounds`, but where nothing but marks and aborted records of transactions is left, the end is what is committed.

    Such offsets are never handed to a role, so it never commits what lies behind them.
    """
    readable = dict(bounds)
    async with _reader(settings) as reader:
        for number, (start, end) in bounds.items():
            place = max(start, committed.get(number, start))
            async with aclosing(reader.read_range(topic, {number: (place, end)})) as records:
                if await anext(records, None) is None:
                    readable[number] = (start, min(place, end))
    return readable


def behind_of(bounds: Bounds, committed: Ends) -> int:
    """Records between what is committed (or the start) and the end, over all partitions."""
    return sum(max(0, end - max(start, committed.get(number, start))) for number, (start, end) in bounds.items())


async def read_totals(settings: Settings) -> Totals:
    """The sum of the newest status of every partition of `events`.

    Raises:
        KafkaUnreachableError: The broker did not deliver in time.
        TopicMismatchError: There is no topic `status`.
    """
    newest: dict[int, StatusRecord] = {}
    topic = prefixed(settings.prefix, STATUS)
    async with TopicReader(settings) as reader:
        # All partitions' statuses lie in partition 0, so the newest of most are at its end.
        async for record in reader.read_backwards(topic, 0):
            if record.value is None:
                continue
            status = msgspec.json.decode(record.value, type=StatusRecord)
            newest.setdefault(status.partition, status)
            if len(newest) == settings.partitions:
                break
    return sum_of(newest.values())


def sum_of(statuses: Collection[StatusRecord]) -> Totals:
    """One count over all partitions."""
    dropped: dict[str, int] = {}
    for status in statuses:
        for name, count in status.dropped.items():
            dropped[name] = dropped.get(name, 0) + count
    return Totals(
        sum(status.events for status in statuses),
        sum(status.applied for status in statuses),
        sum(status.dead_lettered for status in statuses),
        dict(sorted(dropped.items())),
    )


async def users_with_list(settings: Settings, users: Collection[bytes], since: Ends) -> int:
    """How many of `users` got a list on `recommendations` from the offsets `since` on."""
    topic = prefixed(settings.prefix, RECOMMENDATIONS)
    found: set[bytes] = set()
    async with TopicReader(settings, timeout_s=READ_WITHIN_S) as reader:
        bounds = await reader.bounds(topic)
        ranges = {number: (max(start, since.get(number, 0)), end) for number, (start, end) in bounds.items()}
        async for record in reader.read_range(topic, ranges):
            if record.key is not None and record.value is not None and record.key in users:
                found.add(record.key)
    return len(found)


async def _committed_by_role(admin: Any, settings: Settings) -> dict[str, dict[int, int]]:
    by_role: dict[str, dict[int, int]] = {}
    for role, name in ROLE_INPUTS.items():
        topic = prefixed(settings.prefix, name)
        offsets = await committed_offsets(admin, group_name(settings, role))
        by_role[role] = {number: offset for (seen, number), offset in offsets.items() if seen == topic}
    return by_role


def _stalled(role: str, topic: str, behind: int, patience_s: float) -> CaughtUpError:
    return CaughtUpError(
        f"The role {role} is {behind} records behind on {topic}, and no role has moved for {patience_s:g} s.",
        mend="see that all roles run (`sliceflow up`, or `sliceflow worker` for each), with the same prefix and "
        "model, and read their logs",
    )
