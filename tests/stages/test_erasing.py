"""Erasing in the sequence stage: what is left came behind the erasure, and everything is still accounted for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import ERASE_TYPE, ErasedRecord, Erasure, Event, SliceRecord
from stream_app.stages.clean import CleanRules, Rejection, clean_erasure, clean_event
from stream_app.stages.intake import read_record
from tests.stages.cases import Entry, Erase, Tick, Worker, event, logs, newest

CUTS = st.sets(st.integers(1, 39), max_size=8)
RULES = CleanRules(event_types={"click": 1.0}, max_future_ms=1000)
NOW_MS = 1_700_000_000_000


@st.composite
def logs_with_erasures(draw: st.DrawFn) -> list[Entry | Erase]:
    """Logs with erasures between, of users who may have nothing, come back, or be erased twice."""
    log: list[Entry | Erase] = [*draw(logs())]
    for user_id, place in draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=5)):
        log.insert(min(place, len(log)), Erase(user_id))
    return log


def last_erasures(log: Sequence[Entry | Erase]) -> dict[str, int]:
    """Offset of each user's last erasure."""
    return {entry.user_id: offset for offset, entry in enumerate(log) if isinstance(entry, Erase)}


def as_if_by_others(log: Sequence[Entry | Erase]) -> list[Entry | Erase]:
    """The log with everything in front of a user's last erasure done by somebody else, so that it moves the clock."""
    last = last_erasures(log)
    return [
        msgspec.structs.replace(entry, user_id=f"{entry.user_id} before")
        if isinstance(entry, Event) and offset < last.get(entry.user_id, -1)
        else entry
        for offset, entry in enumerate(log)
    ]


@given(logs_with_erasures(), CUTS)
def test_what_is_left_of_a_user_is_what_came_behind_the_last_erasure(log: list[Entry | Erase], cuts: set[int]) -> None:
    worker, oracle = Worker().run_all(log, cuts), Worker().run_all(as_if_by_others(log))
    users = {"a", "b"}
    assert worker.table == {user: kept for user, kept in oracle.table.items() if user in users}
    last = last_erasures(log)
    left = newest(record for record in worker.slices if record.offset > last.get(record.user_id, -1))
    assert left == newest(record for record in oracle.slices if record.user_id in users)


@given(logs_with_erasures(), CUTS)
def test_erasures_leave_everything_accounted_for(log: list[Entry | Erase], cuts: set[int]) -> None:
    worker = Worker().run_all(log, cuts)
    status = worker.status()
    assert status.events == sum(not isinstance(entry, Tick) for entry in log)
    assert status.applied + status.dead_lettered + sum(status.dropped.values()) == status.events
    assert status.users == len(worker.table)
    worker.restart()
    assert worker.status() == status


@given(logs_with_erasures(), CUTS)
def test_erasures_are_told_of_in_order_between_the_slices(log: list[Entry | Erase], cuts: set[int]) -> None:
    worker = Worker().run_all(log, cuts)
    told = [record for record in worker.published if isinstance(record, ErasedRecord)]
    assert [(record.user_id, record.offset) for record in told] == [
        (entry.user_id, offset) for offset, entry in enumerate(log) if isinstance(entry, Erase)
    ]
    erased_at: dict[str, int] = {}
    for record in worker.published:
        if isinstance(record, ErasedRecord):
            erased_at[record.user_id] = record.offset
        elif isinstance(record, SliceRecord):
            assert record.offset > erased_at.get(record.user_id, -1)


@given(logs_with_erasures(), CUTS, st.integers(0, 34))
def test_reading_again_brings_nobody_back(log: list[Entry | Erase], cuts: set[int], start: int) -> None:
    worker = Worker().run_all(log, cuts)
    table, totals, status = dict(worker.table), worker.totals, worker.status()
    num_published = len(worker.published)
    worker.restart()
    if start < len(log):
        worker.run(log, range(start, len(log)))
    assert (worker.table, worker.totals, worker.status()) == (table, totals, status)
    assert [
        record for record in worker.published[num_published:] if isinstance(record, SliceRecord | ErasedRecord)
    ] == []


def test_who_comes_back_begins_with_slice_0_and_nothing_is_a_double() -> None:
    worker = Worker().run_all([event("a", "p", 1, event_id="1"), Erase("a"), event("a", "p", 1, event_id="1")])
    assert [(record.seq, record.revision, record.offset) for record in worker.slices] == [(0, 1, 0), (0, 1, 2)][1:]
    assert (worker.status().applied, worker.status().dropped) == (3, {})


def record_of(**fields: Any) -> bytes:
    """The value of an erasure with these fields, None leaving one out."""
    given_fields = {"type": ERASE_TYPE, "user_id": "u", "ts": NOW_MS, **fields}
    return json.dumps({name: value for name, value in given_fields.items() if value is not None}).encode()


def test_an_erasure_is_read_however_it_is_written() -> None:
    wanted = Erasure(user_id="u", ts=NOW_MS)
    plain = record_of()
    escaped = plain.replace(b"$erase", b"\\u0024\\u0065rase")
    for value in (plain, escaped, record_of(ts="2023-11-14T22:13:20Z"), record_of(item_id=None)):
        assert read_record(b"u", value, NOW_MS, (), RULES) == wanted
    assert read_record(b"u", record_of(event_id="7"), NOW_MS, (), RULES) == Erasure(
        user_id="u", ts=NOW_MS, event_id="7"
    )
    mapped = CleanRules(
        event_types={"click": 1.0}, max_future_ms=1000, field_map={"user_id": "visitor", "type": "kind"}
    )
    value = json.dumps({"kind": ERASE_TYPE, "visitor": "u", "ts": NOW_MS}).encode()
    assert read_record(b"u", value, NOW_MS, (), mapped) == wanted


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"v", record_of(), "key_mismatch"),
        (None, record_of(), "null_key"),
        (b"u", record_of(item_id="i"), "erasure_of_item"),
        (b"u", record_of(user_id=""), "empty_id"),
        (b"u", record_of(user_id=7), "wrong_type"),
        (b"u", record_of(ts=None), "missing_field"),
        (b"u", record_of(ts=-1), "negative_ts"),
        (b"u", record_of(ts=NOW_MS + 1001), "ts_in_future"),
        (b"u", b'{"type":"$erase","type":"$erase","user_id":"u","ts":5}', "duplicate_key"),
    ],
)
def test_a_wrong_erasure_is_refused_by_name(key: bytes | None, value: bytes, reason: str) -> None:
    found = read_record(key, value, NOW_MS, (), RULES)
    assert isinstance(found, Rejection) and found.reason == reason


@pytest.mark.parametrize("value", [None, b"", b"$erase", b"[1]", b'{"type":"click","item_id":"$erase"}'])
def test_what_is_no_erasure_is_what_it_was(value: bytes | None) -> None:
    found = clean_erasure(b"u", value, NOW_MS, RULES)
    assert found is None or found == clean_event(b"u", value, NOW_MS, RULES)


def test_an_item_may_be_called_like_an_erasure_but_no_event_type() -> None:
    value = json.dumps({"user_id": "u", "item_id": ERASE_TYPE, "type": "click", "ts": 5}).encode()
    assert isinstance(read_record(b"u", value, NOW_MS, (), RULES), Event)
    with pytest.raises(ValueError, match="no event type may be called"):
        CleanRules(event_types={ERASE_TYPE: 1.0}, max_future_ms=0)
