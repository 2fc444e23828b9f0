"""A whole event log in memory, as training and evaluation need it: valid events in order of time, but those that an
erasure of their user came behind.

What is a valid event the stream's own rules decide, on the very records that a replay would send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stream_app.errors import LogFormatError
from stream_app.records import TICK_HEADER, Erasure, Event
from stream_app.replay.planning import ReplayPlan, event_time_ms
from stream_app.replay.readers import open_log
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules
from stream_app.stages.clean import Rejection
from stream_app.stages.intake import Content, read_record
from stream_app.topic_reader import TopicReader
from stream_app.topics import EVENTS, prefixed

READ_TOPIC_S = 3600.0
"""Longest reading of the events topic: an hour reads hundreds of millions of events."""

UNKNOWN_TYPE = "unknown_type"
"""Why an event of a type that the settings do not name is refused."""


@dataclass(frozen=True)
class LogEvents:
    """The events by time (ties in file order), and how many rows the stream would make dead letters of."""

    events: list[Event]
    num_refused: int

    def quantile_ms(self, share: float) -> int:
        """The time that `share` of the events come before."""
        place = min(len(self.events) - 1, max(0, int(share * len(self.events))))
        return self.events[place].ts


def read_events(
    path: Path,
    settings: Settings,
    *,
    fields: Mapping[str, str] | None = None,
    ts_unit: Literal["ms", "s", "us"] | None = None,
    limit: int | None = None,
) -> LogEvents:
    """Read a log.

    Raises:
        LogFormatError: The file is no event log, or holds no event of the types the settings name.
    """
    rules = clean_rules(settings)
    plan = ReplayPlan(1, settings.epoch_ms, fields=settings.fields)
    taken = _Taken()
    unknown: set[str] = set()
    for chunk in open_log(path, fields, ts_unit=ts_unit).iter_chunks(limit=limit):
        for row in chunk:
            content = (
                None if isinstance(row, bytes) else read_record(*plan.event_bytes(row), event_time_ms(row), (), rules)
            )
            taken.take(content)
            if isinstance(content, Rejection) and content.reason == UNKNOWN_TYPE and isinstance(row, dict):
                unknown.add(str(row["type"]))
    events = taken.kept()
    if not events:
        seen = f"types seen: {', '.join(sorted(unknown)[:10])}" if unknown else "no row is an event"
        raise LogFormatError(
            f"{path} holds no event of the types {', '.join(settings.event_types)} ({seen}).",
            mend="name its types with weights in the settings: [event_types]",
        )
    return LogEvents(events, taken.num_refused)


def read_topic(settings: Settings) -> LogEvents:
    """Read what is on the events topic now; records that are no valid events are counted, as the stream would.

    Raises:
        KafkaUnreachableError: The broker does not answer.
        LogFormatError: The topic holds no valid event.
    """
    taken = asyncio.run(_read_topic(settings))
    events = taken.kept()
    if not events:
        raise LogFormatError(
            f"The events topic holds no valid event ({taken.num_refused} other records).",
            mend="send events first, or train on a file",
        )
    return LogEvents(events, taken.num_refused)


class _Taken:
    """The events of a log, and which of them an erasure of their user came behind."""

    def __init__(self) -> None:
        self.num_refused = 0
        self._events: list[Event] = []
        self._first_of: dict[str, int] = {}

    def take(self, content: Content | None) -> None:
        """Take what one record says; None is what nobody could read."""
        if isinstance(content, Event):
            self._events.append(content)
        elif isinstance(content, Erasure):
            self._first_of[content.user_id] = len(self._events)
        else:
            self.num_refused += 1

    def kept(self) -> list[Event]:
        """The events that were not erased, by time (ties in their order)."""
        kept = [event for at, event in enumerate(self._events) if at >= self._first_of.get(event.user_id, 0)]
        return sorted(kept, key=lambda event: event.ts)


async def _read_topic(settings: Settings) -> _Taken:
    rules = clean_rules(settings)
    taken = _Taken()
    async with TopicReader(settings, timeout_s=READ_TOPIC_S) as reader:
        async for record in reader.read_all(prefixed(settings.prefix, EVENTS)):
            if any(name == TICK_HEADER for name, _ in record.headers):
                continue
            taken.take(read_record(record.key, record.value, record.timestamp_ms, (), rules))
    return taken
