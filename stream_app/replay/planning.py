"""From the rows of a log to the records that replay it: which partition, in which order, with which ticks.

Pure. In each partition the records are the log's events in order, and between them *ticks*: before the first
event of a new epoch every partition is told that all events of earlier epochs were sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from stream_app.kafka import partition_of
from stream_app.records import STRICT_HEADER, TICK_HEADER
from stream_app.replay.fields import TopicRow
from stream_app.replay.readers import AnyRow

MALFORMED_KEY: Final = b"malformed"
"""Key of a row that is no event: whose it is nobody can tell."""

MAX_TICK_MS: Final = 10**15
"""Times from here on are no times (the year 33658), and a tick of them would not be read as one."""

_STRICT: Final = [(STRICT_HEADER, b"1")]


class PlannedRecord(NamedTuple):
    """One record for `events`; `timestamp_ms` is its record time."""

    partition: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@dataclass
class Counted:
    """What was planned so far. `users` are the keys of all events that name one; the others are malformed.

    `is_broken_off`: the rest of the log was not sent, since the replay was stopped.
    """

    num_events: int = 0
    num_malformed: int = 0
    users: set[bytes] = field(default_factory=set)
    is_broken_off: bool = False


class ReplayPlan:
    """Turns rows into records, one after the other.

    Args:
        num_partitions: Partitions of `events`.
        epoch_ms: Length of an epoch.
        type_map: Our event type by the log's; types not named stay.
        fields: Producer field by our field, as the settings name them: the roles read those.
        keeps_partitions: Rows of a topic go to the partition they lay in, as both topics have equally many.
    """

    def __init__(
        self,
        num_partitions: int,
        epoch_ms: int,
        *,
        type_map: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        keeps_partitions: bool = False,
    ) -> None:
        self.counted = Counted()
        self._num_partitions = num_partitions
        self._epoch_ms = epoch_ms
        self._type_map = dict(type_map or {})
        self._fields = dict(fields or {})
        self._keeps_partitions = keeps_partitions
        self._epoch = -1

    def records_of(self, rows: Iterable[AnyRow]) -> Iterator[PlannedRecord]:
        """The records of the next rows, ticks included, in the order that each partition must get them in."""
        for row in rows:
            ts_ms = event_time_ms(row)
            if ts_ms // self._epoch_ms > self._epoch and ts_ms > 0:
                self._epoch = ts_ms // self._epoch_ms
                yield from self._ticks(self._epoch * self._epoch_ms, last=False)
            yield self._record(row, ts_ms)

    def last_ticks(self) -> Iterator[PlannedRecord]:
        """The end of the replay: all epochs are complete, the clock is let go. None if no event was sent."""
        if self._epoch >= 0:
            yield from self._ticks((self._epoch + 1) * self._epoch_ms, last=True)

    def release_ticks(self) -> Iterator[PlannedRecord]:
        """The replay breaks off: the clock is let go where it stands, so that it can go on. None if it had not begun.

        No list waits for more: each joins the epoch before its own, and that one every partition was told of.
        """
        if self._epoch >= 0:
            yield from self._ticks(self._epoch * self._epoch_ms, last=True)

    def resume_ticks(self) -> Iterator[PlannedRecord]:
        """The replay goes on: it drives the clock again, from where it stood. None if it had not begun."""
        if self._epoch >= 0:
            yield from self._ticks(self._epoch * self._epoch_ms, last=False)

    def type_of(self, row: Mapping[str, Any]) -> str:
        """The type that a row's event will have."""
        return self._type_map.get(str(row["type"]), str(row["type"]))

    def event_bytes(self, row: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Key and value of the record that a row becomes."""
        key = str(row["user_id"]).encode("utf-8", "surrogatepass")
        named = {**row, "type": self.type_of(row)}
        value = orjson.dumps({self._fields.get(name, name): value for name, value in named.items()}, default=str)
        return key, value

    def _record(self, row: AnyRow, ts_ms: int) -> PlannedRecord:
        self.counted.num_events += 1
        if isinstance(row, TopicRow):
            return self._as_it_was(row)
        if isinstance(row, bytes):
            self.counted.num_malformed += 1
            partition = partition_of(MALFORMED_KEY, self._num_partitions)
            return PlannedRecord(partition, 0, MALFORMED_KEY, row, _STRICT)
        key, value = self.event_bytes(row)
        self.counted.users.add(key)
        return PlannedRecord(partition_of(key, self._num_partitions), ts_ms, key, value, _STRICT)

    def _as_it_was(self, row: TopicRow) -> PlannedRecord:
        if row.key is not None and row.has_user:
            self.counted.users.add(row.key)
        else:
            self.counted.num_malformed += 1
        partition = row.partition
        if not self._keeps_partitions:
            num = self._num_partitions
            partition = partition_of(row.key, num) if row.key is not None else partition % num
        return PlannedRecord(partition, row.timestamp_ms, row.key, row.value, [*row.headers, *_STRICT])

    def _ticks(self, ts_ms: int, *, last: bool) -> Iterator[PlannedRecord]:
        mark = b"%d last" % ts_ms if last else b"%d" % ts_ms
        headers = [(TICK_HEADER, mark)]
        value = b'{"tick":%d}' % ts_ms
        for partition in range(self._num_partitions):
            yield PlannedRecord(partition, ts_ms, None, value, headers)


def event_time_ms(row: AnyRow) -> int:
    """The event time that a row stands for in the replay; 0 where it has none that could be one."""
    if isinstance(row, TopicRow):
        return row.clock_ms
    ts = None if isinstance(row, bytes) else row.get("ts")
    return ts if isinstance(ts, int) and 0 <= ts < MAX_TICK_MS else 0
