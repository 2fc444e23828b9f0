"""Inspecting a log file: the list, also as of a time and without an event, is the one that a replay gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream_app.errors import ModelError, SliceflowError, UsageError
from stream_app.inspection.from_file import LogFile, inspect_file
from stream_app.inspection.question import Question
from stream_app.inspection.report import RECOMPUTED, Inspection, Snapshot
from stream_app.recording import RecordedList
from stream_app.replay.readers import Row, open_log
from stream_app.settings import Settings
from tests.replay_cases import MINUTE_MS, START_MS, demo_settings, replayed, row_of, sample_rows

pytestmark = pytest.mark.slow

NUM_EVENTS = 700


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """A part of the sample, in which one event is told twice."""
    found = sample_rows(NUM_EVENTS)
    return [*found[:300], found[299], *found[300:]]


@pytest.fixture(scope="module")
def users(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Some users: with the most events, with the repeated one, and with a single one."""
    counted = Counter(row["user_id"] for row in rows)
    single = next(user for user, num in counted.items() if num == 1)
    return [user for user, _ in counted.most_common(2)] + [rows[299]["user_id"], single]


def write(rows: Sequence[dict[str, Any]], folder: Path) -> Path:
    path = folder / "events.ndjson"
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
    return path


def inspect(path: Path, user: str, at_ms: int | None = None, without: str | None = None, **more: Any) -> Inspection:
    settings: Settings = more.pop("settings", demo_settings())
    file = LogFile(path, open_log(path), settings)
    return inspect_file(file, Question(user, at_ms, without), **more)[0]


def last_lists(rows: Sequence[Row]) -> dict[str, RecordedList]:
    recording, _ = replayed(demo_settings(), [rows])
    return {record.user_id: record for record in recording.records() if isinstance(record, RecordedList)}


def assert_same_list(snapshot: Snapshot, expected: RecordedList) -> None:
    assert snapshot.answer is not None
    made = snapshot.answer.recommendation
    assert (made.items, made.epoch, made.event_ts) == (expected.items, expected.epoch, expected.event_ts)
    assert [(one.item_id, one.score) for one in snapshot.candidates if one.is_listed] == [
        (item.item_id, item.score) for item in expected.items
    ]


def test_the_list_is_that_of_a_replay(rows: list[dict[str, Any]], users: list[str], tmp_path: Path) -> None:
    path, lists = write(rows, tmp_path), last_lists(rows)
    for user in users:
        made = inspect(path, user)
        assert_same_list(made.snapshot, lists[user])
        assert made.snapshot.answer is not None
        assert (made.snapshot.answer.origin, made.snapshot.answer.differences) == (RECOMPUTED, None)
        assert len(made.snapshot.events) == sum(row["user_id"] == user for row in rows)
    outcomes = [event.outcome for event in inspect(path, rows[299]["user_id"]).snapshot.events]
    assert outcomes.count("duplicate") == 1


def test_slices_and_vectors_are_told_in_full(rows: list[dict[str, Any]], users: list[str], tmp_path: Path) -> None:
    made = inspect(write(rows, tmp_path), users[0])
    slices, vector = made.snapshot.slices, made.snapshot.vector
    assert vector is not None and vector.num_merged == len(slices) - 1 > 1
    assert vector.is_as_published is None
    merged = [part.shares for part in slices[:-1]]
    assert slices[-1].shares is None
    for half_life in range(len(made.half_lives_ms)):
        assert sum(shares[half_life] for shares in merged if shares is not None) == pytest.approx(1.0)
    items = [item for part in slices for item in part.items]
    applied = [event.item_id for event in made.snapshot.events if event.outcome == "applied"]
    assert sorted(items) == sorted(item for item in applied if item is not None)
    assert all(part.norm > 0 for part in slices)


def test_as_of_a_time_it_is_a_replay_that_ends_there(
    rows: list[dict[str, Any]], users: list[str], tmp_path: Path
) -> None:
    path = write(rows, tmp_path)
    own = [row["ts"] for row in rows if row["user_id"] == users[0]]
    at_ms = own[len(own) // 2]
    lists = last_lists([row for row in rows if row["ts"] <= at_ms])
    assert_same_list(inspect(path, users[0], at_ms).snapshot, lists[users[0]])
    assert_same_list(inspect(path, users[0], own[len(own) // 2 + 1] - 1).snapshot, lists[users[0]])


@pytest.mark.parametrize("place", [0, 1, -2, -1])
def test_without_an_event_it_is_a_replay_of_a_log_that_never_had_it(
    rows: list[dict[str, Any]], users: list[str], tmp_path: Path, place: int
) -> None:
    path = write(rows, tmp_path)
    offsets = [event.offset for event in inspect(path, users[0]).snapshot.events]
    number = [number for number, row in enumerate(rows) if row["user_id"] == users[0]][place]
    made = inspect(path, users[0], without=str(offsets[place]))
    assert made.without is not None and made.without.offsets == [offsets[place]]
    lists = last_lists([*rows[:number], *rows[number + 1 :]])
    assert_same_list(made.without.snapshot, lists[users[0]])
    before = {one.item_id for one in made.snapshot.candidates if one.is_listed}
    after = {item.item_id for item in lists[users[0]].items}
    assert set(made.without.changes.items_in) == after - before
    assert set(made.without.changes.items_out) == before - after


def test_without_the_only_event_there_is_no_list(rows: list[dict[str, Any]], users: list[str], tmp_path: Path) -> None:
    path = write(rows, tmp_path)
    (event,) = inspect(path, users[3]).snapshot.events
    made = inspect(path, users[3], without=str(event.offset)).without
    assert made is not None and made.snapshot.answer is None
    assert (made.changes.items_in, len(made.changes.items_out)) == ([], demo_settings().list_items)


def test_late_and_refused_events_are_told(tmp_path: Path) -> None:
    bad = {**row_of("a", "1", START_MS + 2), "type": "gaze"}
    log = [
        row_of("a", "1", START_MS),
        row_of("b", "2", START_MS + 40 * MINUTE_MS),
        row_of("a", "3", START_MS + 41 * MINUTE_MS),
        row_of("a", "2", START_MS + 5 * MINUTE_MS),
        bad,
    ]
    made = inspect(write(log, tmp_path), "a")
    assert [(event.outcome, event.slice) for event in made.snapshot.events] == [
        ("applied", 0),
        ("applied", 1),
        ("applied_late", 0),
        ("dead_letter", None),
    ]
    assert [part.closed_by for part in made.snapshot.slices] == ["silence", None]
    assert made.snapshot.slices[0].items == ["1", "2"]
    assert_same_list(made.snapshot, last_lists(log)["a"])


def test_a_user_of_refused_events_alone_has_no_list(tmp_path: Path) -> None:
    log = [{**row_of("a", "1", START_MS), "type": "gaze"}, row_of("b", "1", START_MS)]
    made = inspect(write(log, tmp_path), "a")
    assert (made.snapshot.answer, made.snapshot.slices) == (None, [])
    assert made.snapshot.events[0].detail is not None and "gaze" in made.snapshot.events[0].detail


def test_what_is_sold_out_is_kept_out(rows: list[dict[str, Any]], users: list[str], tmp_path: Path) -> None:
    path = write(rows, tmp_path)
    best = [one.item_id for one in inspect(path, users[0]).snapshot.candidates][:2]
    catalogue = tmp_path / "items.ndjson"
    catalogue.write_bytes(b"\n".join(orjson.dumps({"item_id": item, "available": False}) for item in best))
    made = inspect(path, users[0], items=catalogue).snapshot
    assert {one.item_id for one in made.removed if one.rule == "unavailable"} == set(best)
    assert not {one.item_id for one in made.candidates} & set(best)


def test_what_is_not_there_is_refused(rows: list[dict[str, Any]], users: list[str], tmp_path: Path) -> None:
    path = write(rows, tmp_path)
    with pytest.raises(SliceflowError, match="no event of the user 'nobody'"):
        inspect(path, "nobody")
    with pytest.raises(SliceflowError, match="The first event"):
        inspect(path, users[0], at_ms=START_MS - 10**9)
    with pytest.raises(UsageError, match="--without x"):
        inspect(path, users[0], without="x")
    with pytest.raises(ModelError, match="model"):
        inspect(path, users[0], settings=demo_settings(model=""))
