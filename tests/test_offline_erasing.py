"""Replays of logs with erasures: an erased user is a new one, whatever the chunks and partitions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.event_log import read_events
from stream_app.recording import RecordedList, RecordedReplay, RecordedSlice, Recorder, Recording
from stream_app.records import ERASE_TYPE, ErasedRecord, RankedItem, Recommendation, SliceEvent, SliceRecord
from stream_app.replay.fields import event_of
from stream_app.replay.readers import Row, describe, open_log
from tests.examples import examples
from tests.replay_cases import START_MS, cut_rows, demo_settings, known_items, logs, replayed, row_of

CUTS = st.sets(st.integers(1, 30), max_size=6)


def erasure_of(user_id: str, ts_ms: int) -> dict[str, object]:
    """A row that asks for a user to be erased."""
    return {"user_id": user_id, "type": ERASE_TYPE, "ts": ts_ms}


@st.composite
def logs_with_erasures(draw: st.DrawFn) -> list[Row]:
    """Rows in order of time, with erasures between."""
    rows: list[Row] = []
    ts_ms = START_MS
    for row in draw(logs(is_ordered=True)):
        if isinstance(row, dict):
            ts_ms = row["ts"]  # type: ignore[assignment]
        rows.append(row)
        if draw(st.integers(0, 4)) == 0:
            rows.append(erasure_of(draw(st.sampled_from("abcde")), ts_ms))
    return rows


def as_if_by_others(rows: Sequence[Row]) -> list[Row]:
    """The rows with all in front of a user's last erasure done by somebody else."""
    last = {
        str(row["user_id"]): place
        for place, row in enumerate(rows)
        if isinstance(row, dict) and row["type"] == ERASE_TYPE
    }
    return [
        {**row, "user_id": f"{row['user_id']} before"}
        if isinstance(row, dict) and place <= last.get(str(row["user_id"]), -1)
        else row
        for place, row in enumerate(rows)
    ]


def of_users(recording: Recording, users: str) -> list[RecordedList | RecordedSlice]:
    """Lists and slices of some users."""
    found = [record for record in recording.records() if not isinstance(record, RecordedReplay)]
    return [record for record in found if record.user_id in users]


@pytest.mark.slow
@examples(15)
@given(logs_with_erasures(), st.integers(2, 5), CUTS)
def test_chunks_and_partitions_do_not_matter(rows: list[Row], partitions: int, cuts: set[int]) -> None:
    whole, _ = replayed(demo_settings(1), [rows])
    cut, _ = replayed(demo_settings(partitions), cut_rows(rows, cuts))
    assert cut.lines == whole.lines


@pytest.mark.slow
@examples(15)
@given(logs_with_erasures())
def test_an_erased_user_is_as_a_new_one(rows: list[Row]) -> None:
    found, _ = replayed(demo_settings(1), [rows])
    expected, _ = replayed(demo_settings(1), [as_if_by_others(rows)])
    assert of_users(found, "abcde") == of_users(expected, "abcde")
    first = next(found.records())
    assert isinstance(first, RecordedReplay)
    assert (
        first.applied + sum(first.dead_letters.values()) + sum(first.dropped.values()) == first.events_in == len(rows)
    )


def recommendation(user_id: str, offset: int) -> Recommendation:
    """A list for the event at an offset."""
    return Recommendation(
        recommendation_id="id",
        user_id=user_id,
        event_ts=1,
        partition=0,
        offset=offset,
        release="r",
        index_version="r/1",
        epoch=0,
        has_vector=True,
        items=[RankedItem(item_id="i", score=1.0, sources=["index"])],
    )


def slice_of(user_id: str, seq: int, revision: int, offset: int) -> SliceRecord:
    """A revision of a slice."""
    return SliceRecord(
        user_id=user_id,
        seq=seq,
        revision=revision,
        closed=False,
        fresh=True,
        events=[SliceEvent("i", "click", 1, -1)],
        partition=0,
        offset=offset,
    )


def test_a_recording_forgets_what_lies_before_an_erasure() -> None:
    recorder = Recorder()
    recorder.take_lists([recommendation("a", 4), recommendation("b", 5), recommendation("c", 9)])
    recorder.take_slices([slice_of("a", 0, 7, 3), slice_of("a", 1, 2, 4), slice_of("b", 0, 1, 5)])
    erased = [ErasedRecord(user_id=user_id, partition=0, offset=6) for user_id in "acd"]
    recorder.take_erased(erased)
    recorder.take_slices([slice_of("a", 0, 1, 8)])
    recorder.take_erased(erased)  # told twice
    first = RecordedReplay(format=1, events_in=0, applied=0, dead_letters={}, dropped={}, users=0, settings={})
    found = of_users(recorder.recording(first), "abcd")
    kept = [(record.user_id, getattr(record, "revision", None)) for record in found]
    assert kept == [("b", None), ("c", None), ("a", 1), ("b", 1)]


def test_a_log_file_may_hold_erasures_and_training_leaves_out_what_they_erase(tmp_path: Path) -> None:
    item = known_items()[0]
    rows = [
        row_of("a", item, START_MS),
        row_of("b", item, START_MS + 1),
        erasure_of("a", START_MS + 2),
        row_of("a", item, START_MS + 3),
        {"user_id": "a", "type": "click", "ts": START_MS + 4},
    ]
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
    chunks = [row for chunk in open_log(path).iter_chunks() for row in chunk]
    assert chunks[2] == rows[2]
    assert isinstance(chunks[4], bytes)
    found = read_events(path, demo_settings())
    assert [(event.user_id, event.ts - START_MS) for event in found.events] == [("b", 1), ("a", 3)]
    assert found.num_refused == 1
    assert (describe(path).num_items, describe(path).types) == (1, {"rating": 3, ERASE_TYPE: 1})


def test_an_erasure_in_a_table_has_no_item() -> None:
    columns = {name: name for name in ("user_id", "item_id", "type", "ts")}
    row = {"user_id": "a", "item_id": "", "type": ERASE_TYPE, "ts": 5}
    assert event_of(row, columns, "ms") == {"user_id": "a", "type": ERASE_TYPE, "ts": 5}
    assert event_of({**row, "type": "click"}, columns, "ms") is None
    assert msgspec.json.encode(event_of({**row, "item_id": "i"}, columns, "ms")).startswith(b'{"user_id":"a","item_id"')
