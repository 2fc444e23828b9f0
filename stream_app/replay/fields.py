"""From the fields of somebody's log to the fields of our events.

*Column* is the name in the log, *field* is ours. A row that cannot become an event gives None here: what then
happens to it is the reader's decision.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from stream_app.errors import LogFormatError
from stream_app.records import ERASE_TYPE

TsUnit = Literal["ms", "s", "us"]
"""Unit of integer times in a log."""

Event = dict[str, object]
"""An event by our field names: `user_id`, `item_id`, `type` (str), `ts` (int, ms), and optional ones."""


class TopicRow(NamedTuple):
    """A record of an events topic, to be sent again byte by byte.

    `clock_ms` is how far event time had come on its partition with this record (0: not begun); `partition` is where
    it lay, `timestamp_ms` its record time. `headers` are its own, without the marks of an earlier replay. `has_user`
    tells that its key is the user that its value names, whether or not it is a valid event.
    """

    clock_ms: int
    partition: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    has_user: bool


REQUIRED = ("user_id", "item_id", "type", "ts")
TEXTS = ("event_id", "session_id", "query", "recommendation_id")
NUMBERS = ("price", "quantity")
OPTIONAL = (*TEXTS, *NUMBERS, "context")

ALIASES: Mapping[str, tuple[str, ...]] = {
    "user_id": ("user_id", "user"),
    "item_id": ("item_id", "item"),
    "type": ("type", "event_type", "event"),
    "ts": ("ts", "timestamp", "time"),
    "session_id": ("session_id", "session"),
}
"""Columns tried for a field nobody mapped, in this order. Fields not named here are tried by their own
name."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ONE_MS = timedelta(milliseconds=1)

SMALLEST_LIKELY_MS = 10**11
"""March 1973 in milliseconds. Present times in seconds stay below it until the year 5138."""

LARGEST_LIKELY_MS = 10**14
"""The year 5138 in milliseconds. Times in microseconds since 1973 lie above it."""


def match_columns(seen: Collection[str], fields: Mapping[str, str] | None, *, where: str) -> dict[str, str]:
    """Find the column of each field.

    Args:
        seen: Columns that the log has.
        fields: Column by field, for those that are called otherwise; these win over the known aliases.
        where: The log's name, for the message.

    Returns:
        Column by field: all the required fields, and the optional ones that the log has.

    Raises:
        LogFormatError: A mapped column is not there, a mapped field does not exist, or a required one is
        missing.

    >>> match_columns(["visitor", "item", "type", "ts"], {"user_id": "visitor"}, where="log.csv")
    {'user_id': 'visitor', 'item_id': 'item', 'type': 'type', 'ts': 'ts'}
    """
    given = dict(fields or {})
    unknown = sorted(set(given) - {*REQUIRED, *OPTIONAL})
    if unknown:
        raise LogFormatError(
            f"There is no event field {', '.join(unknown)}; expected {', '.join((*REQUIRED, *OPTIONAL))}.",
            mend="name one of these before the `=` of --field FIELD=COLUMN.",
        )
    absent = sorted(column for column in given.values() if column not in seen)
    if absent:
        raise LogFormatError(
            f"{where} has no column {', '.join(absent)}; it has {_listed(seen)}.",
            mend="name a column that is there: --field FIELD=COLUMN.",
        )
    columns = {}
    for field in (*REQUIRED, *OPTIONAL):
        tried = (given[field],) if field in given else ALIASES.get(field, (field,))
        found = next((column for column in tried if column in seen), None)
        if found is not None:
            columns[field] = found
    missing = [field for field in REQUIRED if field not in columns]
    if missing:
        expected = "; ".join(f"{field} (or {', '.join(ALIASES[field][1:])})" for field in missing)
        raise LogFormatError(
            f"{where} has the columns {_listed(seen)}; expected also {expected}.",
            mend=" ".join(f"--field {field}=COLUMN" for field in missing),
        )
    return columns


def event_of(row: Mapping[str, object], columns: Mapping[str, str], unit: TsUnit) -> Event | None:
    """The event that a row stands for; None if a required field is missing, empty or of a wrong kind.

    An erasure has no item. Optional fields are passed on as they are if they cannot be converted: the stream judges
    them.
    """
    user_id = text_of(row.get(columns["user_id"]))
    item_id = text_of(row.get(columns["item_id"]))
    kind = text_of(row.get(columns["type"]))
    ts = ts_ms_of(row.get(columns["ts"]), unit)
    if user_id is None or kind is None or ts is None or (item_id is None and kind != ERASE_TYPE):
        return None
    item: Event = {} if item_id is None else {"item_id": item_id}
    event: Event = {"user_id": user_id, **item, "type": kind, "ts": ts}
    for field in OPTIONAL:
        if field in columns:
            add_optional(event, field, row.get(columns[field]))
    return event


def add_optional(event: Event, field: str, value: object) -> None:
    """Set an optional field of the event, unless the value is absent (None, NaN, or empty text)."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return
    converted = _number_of(value) if field in NUMBERS else text_of(value) if field in TEXTS else None
    event[field] = value if converted is None else converted


def text_of(value: object) -> str | None:
    """An id as text: text and whole numbers are accepted; empty text and everything else is None.

    >>> text_of(17), text_of("017"), text_of(""), text_of(True), text_of(1.5)
    ('17', '017', None, None, None)
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def ts_ms_of(value: object, unit: TsUnit) -> int | None:
    """Event time in ms since 1970 (UTC), rounded down; None where the value is no time.

    Numbers, also as text, count in `unit`. Other text is ISO 8601 or RFC 3339; without an offset it is UTC.

    >>> ts_ms_of("1970-01-01T01:00:01.5+01:00", "s"), ts_ms_of(2, "s"), ts_ms_of("2500", "us")
    (1500, 2000, 2)
    """
    if isinstance(value, str):
        return _ts_ms_of_text(value.strip(), unit)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        return math.floor(_scaled(value, unit)) if math.isfinite(value) else None
    return value if unit == "ms" else value * 1000 if unit == "s" else value // 1000


def check_unit(times_ms: Collection[int], *, where: str) -> None:
    """Refuse a log whose times look like another unit than milliseconds.

    Raises:
        LogFormatError: All times lie before March 1973, or all after the year 5138.
    """
    if not times_ms:
        return
    least, greatest = min(times_ms), max(times_ms)
    if greatest < SMALLEST_LIKELY_MS:
        likely, seen = "s", "before March 1973"
    elif least > LARGEST_LIKELY_MS:
        likely, seen = "us", "after the year 5138"
    else:
        return
    raise LogFormatError(
        f"{where} starts with times from {least} to {greatest}: as milliseconds since 1970, all {seen}.",
        mend=f"state the unit: --ts-unit {likely}, or --ts-unit ms if they really are milliseconds.",
    )


def _scaled(value: float, unit: TsUnit) -> float:
    return value if unit == "ms" else value * 1000 if unit == "s" else value / 1000


def _ts_ms_of_text(text: str, unit: TsUnit) -> int | None:
    number = _number_of(text)
    if number is not None:
        return ts_ms_of(number, unit)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // ONE_MS


def _number_of(value: object) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return None
    try:
        return int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _listed(seen: Collection[str]) -> str:
    return ", ".join(sorted(seen)[:30]) or "none"
