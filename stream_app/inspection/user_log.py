"""What one partition of `events` says of one user, as of an event time.

Of the others' records only how far they moved the partition's clock is kept, once between two of the user's own
records: slices of this user do not depend on more. So memory grows with the user's events alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from stream_app.records import STRICT_HEADER, TICK_HEADER, Erasure, Event
from stream_app.stages.clean import CleanRules
from stream_app.stages.intake import Content, Headers, Tick, read_record


@dataclass(frozen=True)
class Entry:
    """A record of the user, or how far the clock had moved before it (a `Tick`), with its offset."""

    offset: int
    content: Content
    is_strict: bool = False


class UserLog:
    """Takes the records of a partition in order, and keeps what matters to one user.

    It ends before the user's first event later than `until_ms`. A late event that came after others had moved the
    clock past that time still belongs to it.

    Args:
        user_id: The user.
        rules: What an event must look like.
        until_ms: The event time asked for; None takes everything.
    """

    def __init__(self, user_id: str, rules: CleanRules, until_ms: int | None = None) -> None:
        self.is_over = False
        self.ended_by_ms: int | None = None
        self.num_own = 0
        self._key = user_id.encode("utf-8", "surrogatepass")
        self._rules = rules
        self._until_ms = until_ms
        self._entries: list[Entry] = []
        self._is_driven = False
        # Since the last of the user's records: how far the clock came, by what, and how far within the time asked for.
        self._clock_ms, self._tail_ms, self._mark_offset = -1, -1, -1

    @property
    def entries(self) -> list[Entry]:
        """The user's records and the clock between them, and how far the clock came after the last one."""
        return [*self._entries, *self._mark(self._tail_ms)]

    def take(self, offset: int, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers) -> bool:
        """Take the next record of the partition; whether it is one of the user's.

        Args:
            offset: Its place in the partition.
            key: Its key.
            value: Its value.
            timestamp_ms: Its own time.
            headers: Its headers.
        """
        if self.is_over:
            return False
        names = {name for name, _ in headers}
        is_own, is_strict = key == self._key, STRICT_HEADER in names
        if not is_own and is_strict and TICK_HEADER not in names:
            return False  # It moves no clock.
        content = read_record(key, value, timestamp_ms, headers, self._rules)
        if isinstance(content, Tick):
            self._move_clock(offset, content.ts_ms)
            self._is_driven = not content.last
            return False
        if not is_own:
            if isinstance(content, Event):
                self._move_clock(offset, content.ts)
            return False
        return self._take_own(Entry(offset, content, is_strict), timestamp_ms)

    def _take_own(self, entry: Entry, timestamp_ms: int) -> bool:
        # What is no event has no event time; the record's own stands for it.
        ts_ms = entry.content.ts if isinstance(entry.content, Event | Erasure) else timestamp_ms
        if self._until_ms is not None and ts_ms > self._until_ms:
            self.is_over, self.ended_by_ms = True, ts_ms
            return False
        self._entries += [*self._mark(self._clock_ms), entry]
        self.num_own += 1
        self._clock_ms, self._tail_ms, self._mark_offset = -1, -1, -1
        return True

    def _move_clock(self, offset: int, ts_ms: int) -> None:
        self._mark_offset = offset
        self._clock_ms = max(self._clock_ms, ts_ms)
        if self._until_ms is None or ts_ms <= self._until_ms:
            self._tail_ms = max(self._tail_ms, ts_ms)

    def _mark(self, ts_ms: int) -> list[Entry]:
        return [Entry(self._mark_offset, Tick(ts_ms, last=not self._is_driven))] if ts_ms >= 0 else []
