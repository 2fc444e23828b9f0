"""Recordings: canonical, read back as written, and compared field by field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import UsageError
from stream_app.recording import (
    FORMAT,
    RECORDED_SETTINGS,
    Record,
    RecordedList,
    RecordedReplay,
    RecordedSlice,
    Recorder,
    Recording,
    read_recording,
    recorded_settings,
    write_recording,
)
from stream_app.recording_check import MAX_SHOWN_FIELDS, NOTHING, FieldDifference, compare
from stream_app.records import RankedItem, Recommendation, SliceEvent, SliceRecord
from stream_app.settings import Settings

USERS = ["ann", "bob", "c\x1b"]


def ranked(*scores: float) -> list[RankedItem]:
    """Items i0, i1, … with these scores."""
    return [RankedItem(item_id=f"i{place}", score=score, sources=["index"]) for place, score in enumerate(scores)]


def list_for(user: str, offset: int, items: list[RankedItem]) -> Recommendation:
    """A list as it stands on its topic."""
    return Recommendation(
        recommendation_id=f"r{offset}",
        user_id=user,
        event_ts=1000 + offset,
        partition=3,
        offset=offset,
        release="m-1",
        index_version="m-1/7",
        epoch=offset // 10,
        has_vector=True,
        items=items,
    )


def slice_for(user: str, seq: int, revision: int) -> SliceRecord:
    """A slice revision as it stands on its topic; revision n has n events."""
    return SliceRecord(
        user_id=user,
        seq=seq,
        revision=revision,
        closed=False,
        fresh=True,
        events=[SliceEvent(f"i{n}", "click", n, -1) for n in range(revision)],
        partition=3,
        offset=17,
        join_epoch=5,
    )


def first_line(**changes: object) -> RecordedReplay:
    made = RecordedReplay(
        format=FORMAT,
        events_in=3,
        applied=2,
        dead_letters={"not_json": 1},
        dropped={},
        users=2,
        settings=recorded_settings(Settings()),
    )
    return msgspec.structs.replace(made, **changes)


def recording_of(*records: Record) -> Recording:
    return Recording([msgspec.json.encode(record) for record in (first_line(), *records)])


def ann(*scores: float, epoch: int = 1) -> RecordedList:
    return RecordedList(user_id="ann", event_ts=5, epoch=epoch, release="m-1", has_vector=True, items=ranked(*scores))


# ---------------------------------------------------------------- recording


@given(st.permutations([list_for(user, offset, ranked(1.0)) for user in USERS for offset in (7, 21)]))
def test_of_each_user_the_list_of_the_latest_event_is_kept(lists: list[Recommendation]) -> None:
    recorder = Recorder()
    recorder.take_lists(lists)
    kept = [record for record in recorder.recording(first_line()).records() if isinstance(record, RecordedList)]
    assert [(record.user_id, record.event_ts, record.epoch) for record in kept] == [(user, 1021, 2) for user in USERS]
    assert recorder.num_lists == len(USERS)


@given(st.permutations([(user, seq, revision) for user in "ba" for seq in (9, 10) for revision in (1, 2, 3)]))
def test_of_each_slice_the_last_revision_is_kept(revisions: list[tuple[str, int, int]]) -> None:
    recorder = Recorder()
    recorder.take_slices(slice_for(*one) for one in revisions)
    kept = [record for record in recorder.recording(first_line()).records() if isinstance(record, RecordedSlice)]
    assert [(record.user_id, record.seq) for record in kept] == [("a", 9), ("a", 10), ("b", 9), ("b", 10)]
    assert all((record.revision, len(record.events)) == (3, 3) for record in kept)


def test_what_depends_on_partitions_and_runs_is_left_out() -> None:
    first, second = Recorder(), Recorder()
    one = list_for("ann", 7, ranked(1.0))
    part = slice_for("ann", 0, 1)
    first.take_lists([one])
    second.take_lists([msgspec.structs.replace(one, recommendation_id="x", partition=0, offset=900, index_version="")])
    first.take_slices([part])
    second.take_slices([msgspec.structs.replace(part, partition=0, offset=900, fresh=False, join_epoch=None)])
    assert first.recording(first_line()).lines == second.recording(first_line()).lines


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    recorder = Recorder()
    recorder.take_lists([list_for(user, 7, ranked(0.1, -2.5)) for user in USERS])
    recorder.take_slices([slice_for("ann", 0, 2)])
    made, path = recorder.recording(first_line()), tmp_path / "golden.ndjson"
    write_recording(made, path)
    write_recording(made, path)
    assert list(read_recording(path).lines) == list(made.lines)
    assert path.read_bytes() == b"".join(line + b"\n" for line in made.lines)
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


def test_the_settings_of_a_recording_are_settings() -> None:
    assert list(recorded_settings(Settings())) == list(RECORDED_SETTINGS)
    assert recorded_settings(Settings(partitions=9, prefix="x", model="y")) == recorded_settings(Settings())


LINE = msgspec.json.encode(ann(1.0)).decode()
HEAD = msgspec.json.encode(first_line()).decode()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Line 1 "),
        ("{}", "Line 1 "),
        (LINE, "Line 1 "),
        (HEAD.replace('"format":1', '"format":2'), "Line 1 "),
        (f"{HEAD}\n{LINE[:-5]}", "Line 2 "),
        (f"{HEAD}\n{HEAD}", "order"),
        (f"{HEAD}\n{LINE}\n{LINE}", "Line 3 .* order"),
        (f"{HEAD}\n{LINE.replace('ann', 'bob')}\n{LINE}", "Line 3 .* order"),
        (f"{HEAD}\n\n{LINE}", "Line 2 "),
    ],
)
def test_what_is_no_recording_is_refused_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "golden.ndjson"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=told) as caught:
        read_recording(path)
    assert "--record" in caught.value.mend


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_recording(tmp_path / "none")
    with pytest.raises(UsageError, match="cannot be written"):
        write_recording(recording_of(), tmp_path / "none" / "out")
    with pytest.raises(UsageError, match="cannot be written"):
        write_recording(recording_of(), tmp_path)


# ---------------------------------------------------------------- comparing


def test_equal_recordings_have_no_difference() -> None:
    compared = compare(recording_of(ann(1.0)), recording_of(ann(1.0)))
    assert (compared.num_records, compared.num_differing, compared.first) == (2, 0, None)


def test_the_first_record_that_differs_is_told_field_by_field() -> None:
    bob = msgspec.structs.replace(ann(3.0), user_id="bob")
    other = msgspec.structs.replace(bob, release="m-2")
    compared = compare(recording_of(ann(2.0, 1.0), bob), recording_of(ann(2.0, 0.5, 0.25, epoch=4), other))
    assert (compared.num_records, compared.num_differing) == (3, 2)
    first = compared.first
    assert first is not None and first.line == 2
    assert [(field.path, field.expected, field.found) for field in first.fields[:2]] == [
        ("epoch", 1, 4),
        ("items[1].score", 1.0, 0.5),
    ]
    assert first.fields[2].path == "items[2]" and first.fields[2].expected is NOTHING
    assert first.text().splitlines()[:3] == [
        'The list of user "ann" (line 2) differs:',
        "  epoch: expected 1, is 4",
        "  items[1].score: expected 1.0, is 0.5",
    ]
    assert "items[2]: expected nothing, is {" in first.text()


@pytest.mark.parametrize("is_missing", [True, False])
def test_a_record_that_only_one_side_has_differs(is_missing: bool) -> None:
    part = RecordedSlice(user_id="c\x1b", seq=4, revision=1, closed=True, events=[SliceEvent("i", "click", 1, -1)])
    full, short = recording_of(ann(1.0), part), recording_of(ann(1.0))
    compared = compare(full, short) if is_missing else compare(short, full)
    assert (compared.num_records, compared.num_differing) == (3, 1)
    assert compared.first is not None
    assert compared.first.line == (3 if is_missing else None)
    assert compared.first.text().startswith('Slice 4 of user "c\\u001b"')
    assert ("is nothing" in compared.first.text()) == is_missing


def test_totals_and_settings_are_compared_too() -> None:
    found = Recording([msgspec.json.encode(first_line(settings=recorded_settings(Settings(epoch_s=60.0))))])
    compared = compare(recording_of(), found)
    assert compared.first is not None
    assert compared.first.fields == (FieldDifference("settings.epoch_s", 10.0, 60.0),)


def test_of_many_fields_the_first_are_shown() -> None:
    compared = compare(recording_of(ann(*range(50))), recording_of(ann(*(score + 1.0 for score in range(50)))))
    assert compared.first is not None
    lines = compared.first.text().splitlines()
    assert len(compared.first.fields) == 50
    assert len(lines) == 1 + MAX_SHOWN_FIELDS + 1
    assert lines[-1] == f"  and {50 - MAX_SHOWN_FIELDS} more fields"
    assert replace(compared.first, fields=compared.first.fields[:1]).text().count("\n") == 1


def test_a_tolerance_lets_rounding_pass_and_nothing_else() -> None:
    def differing(items: list[RankedItem], tolerance: float, **changes: object) -> int:
        found = msgspec.structs.replace(ann(3.0, 2.00001, 2.0), items=items, **changes)
        expected = recording_of(ann(3.0, 2.00001, 2.0))
        return compare(expected, recording_of(found), score_tolerance=tolerance).num_differing

    first, second, third = ranked(3.0, 2.00001, 2.0)
    swapped = [first, msgspec.structs.replace(third, score=2.00001), msgspec.structs.replace(second, score=2.0)]
    assert (differing(swapped, 0.0), differing(swapped, 1e-6), differing(swapped, 1e-4)) == (1, 1, 0)
    assert differing([first, third, second], 1e-4) == 0
    assert differing([second, first, third], 1e-4) == 1
    assert differing([first, second], 1e-4) == 1
    assert differing([first, second, third, *ranked(1.0)], 1e-4) == 1
    assert differing([first, second, msgspec.structs.replace(third, item_id="other")], 1e-4) == 1
    assert differing([first, second, msgspec.structs.replace(third, sources=["transition"])], 1e-4) == 1
    assert differing([first, second, third], 1e-4, epoch=2) == 1
