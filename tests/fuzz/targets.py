"""What must hold for any bytes: each target takes some, and raises where a promise is broken.

They are called by a coverage-guided fuzzer (``make fuzz``), by hypothesis and with the kept crashers (`test_fuzz`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from stream_app import records
from stream_app.records import TICK_HEADER, Erasure, encode, unpack_vector
from stream_app.stages import intake
from stream_app.stages.clean import CleanRules, Rejection, clean_erasure, clean_event, clean_thoroughly
from stream_app.stages.intake import Content, read_record
from stream_app.tables import HISTORY, MEMORY, PROFILE, SEQUENCE_TOTALS, STATISTICS, TREND_TOTALS
from tests.stages import cases

NOW_MS: Final = 1_717_171_717_000

RULES: Final = CleanRules(event_types={"click": 1.0, "buy": 3.0}, max_future_ms=600_000)
MAPPED_RULES: Final = CleanRules(
    event_types=RULES.event_types, max_future_ms=600_000, field_map={"user_id": "visitor", "ts": "time", "price": "ts"}
)

REASONS: Final = frozenset(
    {
        "bad_timestamp",
        "bad_utf8",
        "duplicate_key",
        "empty_id",
        "erasure_of_item",
        "key_mismatch",
        "missing_field",
        "negative_ts",
        "not_an_object",
        "not_finite",
        "not_json",
        "nul_character",
        "null_key",
        "null_value",
        "number_out_of_range",
        "text_too_long",
        "too_deep",
        "ts_in_future",
        "unknown_type",
        "value_too_large",
        "wrong_type",
    }
)
"""Every rule that may refuse a record."""

DROPS: Final = frozenset({"duplicate", "late_slice_full", "late_too_old"})
"""Every name under which an event may be dropped."""

ABSENT: Final = b"-"
"""Stands for no key or no value."""

TICK: Final = b"#"
"""A value that begins with it stands for a record with the tick header, whose value is the rest."""

MAX_LOG_RECORDS: Final = 40
"""Of one input of `log_target`: enough for several slices, few enough for thousands of inputs a second."""


def _record(line: bytes, rules: CleanRules) -> tuple[Content, bytes | None, bytes | None]:
    """What one line says: its key, a tab, its value."""
    first, _, second = line.partition(b"\t")
    key = None if first == ABSENT else first
    value = None if second == ABSENT else second
    headers = [(TICK_HEADER, second[1:])] if second.startswith(TICK) else []
    return read_record(key, value, NOW_MS, headers, rules), key, value


def event_target(data: bytes) -> None:
    """One record on `events` is an event, an erasure, a tick, or refused by a named rule, the same by both paths."""
    for rules in (RULES, MAPPED_RULES):
        content, key, value = _record(data, rules)
        if isinstance(content, intake.Tick):
            assert 0 <= content.ts_ms < 10**intake.MAX_TICK_DIGITS
            continue
        erasure = clean_erasure(key, value, NOW_MS, rules)
        assert content == (erasure or clean_event(key, value, NOW_MS, rules))
        assert clean_event(key, value, NOW_MS, rules) == clean_thoroughly(key, value, NOW_MS, rules)
        if isinstance(content, Rejection):
            assert content.reason in REASONS, content
            assert content.detail.isascii() and content.detail.isprintable() and len(content.detail) < 400, content
        else:
            assert content.user_id.encode("utf-8") == key
            assert read_record(key, encode(content), NOW_MS, (), RULES) == content


def log_target(data: bytes) -> None:
    """A log, one record a line, is accounted for record by record, however it is cut into runs."""
    lines = data.split(b"\n")[:MAX_LOG_RECORDS]
    log = [_entry(_record(line, RULES)[0]) for line in lines]
    whole = cases.Worker().run_all(log)
    in_pieces = cases.Worker().run_all(log, cuts=range(0, len(log), 3))
    assert whole.histories() == in_pieces.histories() and whole.totals == in_pieces.totals
    last = {entry.user_id: offset for offset, entry in enumerate(log) if isinstance(entry, cases.Erase)}
    found, expected = (
        cases.newest(one for one in worker.slices if one.offset > last.get(one.user_id, -1))
        for worker in (in_pieces, whole)
    )
    assert found == expected
    status = whole.status()
    assert status.events == sum(not isinstance(entry, cases.Tick) for entry in log)
    assert status.events == status.applied + status.dead_lettered + sum(status.dropped.values())
    assert set(status.dropped) <= DROPS
    for record in [*whole.slices, *whole.activity, status]:
        assert msgspec.json.decode(encode(record), type=type(record)) == record


def _entry(content: Content) -> cases.Entry | cases.Erase:
    if isinstance(content, intake.Tick):
        return cases.Tick(content.ts_ms, content.last)
    if isinstance(content, Erasure):
        return cases.Erase(content.user_id)
    return cases.Dead(content.reason) if isinstance(content, Rejection) else content


TYPES: Final[Sequence[type[msgspec.Struct]]] = [
    kind for kind in vars(records).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
]
"""Every record there is on a topic."""

TABLES: Final[Sequence[msgspec.msgpack.Decoder[Any]]] = [
    HISTORY,
    MEMORY,
    PROFILE,
    SEQUENCE_TOTALS,
    STATISTICS,
    TREND_TOTALS,
]
"""The decoder of every table."""


def record_target(data: bytes) -> None:
    """Bytes are a record, which then is written and read again as the same, or no record; nothing else is raised."""
    for kind in TYPES:
        try:
            record = msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        written = encode(record)
        assert encode(msgspec.json.decode(written, type=kind)) == written
    for table in TABLES:
        try:
            table.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    try:
        unpack_vector(data.decode("latin-1"))
    except ValueError:
        return


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "event": event_target,
    "log": log_target,
    "record": record_target,
}
"""All targets by name."""
