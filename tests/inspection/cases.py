"""Raw records of a small partition of `events`, and settings under which little time suffices for everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from stream_app.inspection.user_log import UserLog
from stream_app.records import STRICT_HEADER, TICK_HEADER, Event, encode
from stream_app.settings import Settings, parse_settings
from stream_app.settings_rules import clean_rules
from stream_app.stages.intake import Headers
from tests.stages.cases import event, events

USERS = "ab"

SETTINGS: Settings = parse_settings(
    {
        "event_types": {"click": 1.0, "buy": 2.0},
        "slice_events": 3,
        "slice_gap_s": 0.01,
        "slice_span_s": 0.02,
        "history_events": 9,
        "allowed_lateness_s": 0.004,
        "epoch_s": 0.016,
        "half_lives_s": [1.0, 60.0],
    }
)
"""Slices of 3 events, gaps of 10 ms, spans of 20 ms, 4 ms of patience, epochs of 16 ms."""


@dataclass(frozen=True)
class Raw:
    """A record as it lies on the topic."""

    key: bytes | None
    value: bytes
    timestamp_ms: int
    headers: Headers = ()


def raw(made: Event, *, strict: bool = False) -> Raw:
    """The record of an event."""
    return Raw(made.user_id.encode(), encode(made), made.ts, ((STRICT_HEADER, b"1"),) if strict else ())


def click(user_id: str, item_id: str, ts: int, **more: Any) -> Raw:
    """The record of a click."""
    return raw(event(user_id, item_id, ts, **more))


def tick(ts: int, *, last: bool = False) -> Raw:
    """A tick."""
    return Raw(None, b"{}", ts, ((TICK_HEADER, b"%d last" % ts if last else b"%d" % ts),))


def broken(user_id: str, ts: int = 0) -> Raw:
    """A record that is no event."""
    return Raw(user_id.encode(), b"{", ts)


def raws() -> st.SearchStrategy[list[Raw]]:
    """Partitions in which users interleave, events come late, and ticks and live events both move the clock."""
    one = st.one_of(
        st.builds(raw, events(users=USERS), strict=st.booleans()),
        st.builds(raw, events(users=USERS), strict=st.booleans()),
        st.builds(raw, events(users=USERS), strict=st.just(False)),
        st.builds(tick, st.integers(0, 90), last=st.booleans()),
        st.builds(broken, st.sampled_from(USERS)),
    )
    return st.lists(one, max_size=30)


def log_of(user_id: str, records: list[Raw], until_ms: int | None = None) -> UserLog:
    """A user's log of these records."""
    log = UserLog(user_id, clean_rules(SETTINGS), until_ms)
    for offset, record in enumerate(records):
        log.take(offset, record.key, record.value, record.timestamp_ms, record.headers)
    return log
