"""What a record on `events` is: an event, an erasure, a tick of a replay's clock, or refused; and how the stage takes
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream_app.records import STRICT_HEADER, TICK_HEADER, Erasure, Event
from stream_app.stages.clean import CleanRules, Rejection, clean_erasure, clean_event
from stream_app.stages.sequence import SequenceStage

Headers = Sequence[tuple[str, bytes | None]]
"""Kafka lets a value be null."""

MAX_TICK_DIGITS = 15
"""Longest time (ms) of a tick: 15 digits last until the year 33658, and a longer one is a mistake."""


@dataclass(frozen=True)
class Tick:
    """All events before `ts_ms` were sent; `last` ends the replay."""

    ts_ms: int
    last: bool


Content = Event | Erasure | Rejection | Tick


def read_record(
    key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers, rules: CleanRules
) -> Content:
    """What one record says; never raises, whatever the bytes. `timestamp_ms` is the record's own time."""
    if headers and (tick := _tick(headers)) is not None:
        return tick
    return clean_erasure(key, value, timestamp_ms, rules) or clean_event(key, value, timestamp_ms, rules)


def take_record(stage: SequenceStage, content: Content, offset: int, headers: Headers, *, is_counted: bool) -> None:
    """Let the stage take one record of its partition.

    Args:
        stage: Of the partition, in a run.
        content: What `read_record` made of the record.
        offset: Its place in the partition.
        headers: Its headers.
        is_counted: The totals reflect the record already. Dead letters and erasures need to know, and events whose
            history is there no more; other histories know for themselves.
    """
    if isinstance(content, Event):
        is_strict = any(name == STRICT_HEADER for name, _ in headers)
        stage.take_event(content, offset, strict=is_strict, is_counted=is_counted)
    elif isinstance(content, Erasure):
        stage.take_erasure(content.user_id, offset, is_counted=is_counted)
    elif isinstance(content, Tick):
        stage.take_tick(content.ts_ms, offset, last=content.last)
    elif not is_counted:
        stage.take_dead_letter(content.reason)


def _tick(headers: Headers) -> Tick | None:
    for name, value in headers:
        if name == TICK_HEADER:
            text, _, rest = (value or b"").partition(b" ")
            is_time = text.isdigit() and len(text) <= MAX_TICK_DIGITS
            return Tick(int(text), rest == b"last") if is_time else None
    return None
