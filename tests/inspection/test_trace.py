"""A user watched alone is the user that the sequence role sees among all others."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.inspection.trace import FULL, GAP, SILENCE, SPAN, Trace, trace
from stream_app.records import ActivityRecord, Event, SliceRecord
from stream_app.settings_rules import clean_rules, sequence_stage
from stream_app.stages.intake import read_record, take_record
from stream_app.stages.sequence import KeptHistory
from tests.examples import examples
from tests.inspection.cases import SETTINGS, USERS, Raw, broken, click, log_of, raws, tick


def traced(records: list[Raw], user_id: str = "a", until_ms: int | None = None) -> Trace:
    return trace(user_id, 0, log_of(user_id, records, until_ms).entries, SETTINGS)


def by_the_role(records: Sequence[Raw], user_id: str) -> tuple[list[SliceRecord], list[ActivityRecord]]:
    """What the stage makes of the whole partition, one record at a time, as far as it is of the user."""
    stage = sequence_stage(SETTINGS, 0)
    stage.restore([], None)
    histories: dict[str, KeptHistory] = {}
    slices: list[SliceRecord] = []
    activity: list[ActivityRecord] = []
    for offset, record in enumerate(records):
        content = read_record(record.key, record.value, record.timestamp_ms, record.headers, clean_rules(SETTINGS))
        stage.begin_run([], lambda users: {user: histories[user] for user in users if user in histories})
        take_record(stage, content, offset, record.headers, is_counted=False)
        effects = stage.end_run(offset, 0)
        histories.update(effects.changed)
        slices += [made for made in effects.slices if made.user_id == user_id]
        if isinstance(content, Event) and content.user_id == user_id:
            activity += effects.activity
    return slices, activity


@examples(300)
@given(raws())
def test_a_user_alone_is_the_user_among_all(records: list[Raw]) -> None:
    for user_id in USERS:
        made = traced(records, user_id)
        assert (made.revisions, made.activity) == by_the_role(records, user_id)
        own = [offset for offset, record in enumerate(records) if record.key == user_id.encode()]
        assert [one.offset for one in made.events] == own
        closed = {record.seq for record in made.revisions if record.closed}
        assert made.closed_by.keys() == closed


@examples(200)
@given(raws(), st.integers(0, 80))
def test_as_of_a_time_nothing_later_counts(records: list[Raw], until_ms: int) -> None:
    for user_id in USERS:
        log, whole = log_of(user_id, records, until_ms), traced(records, user_id)
        made = trace(user_id, 0, log.entries, SETTINGS)
        assert made.events == whole.events[: log.num_own]
        assert all(one.ts is None or one.ts <= until_ms for one in made.events)
        assert made.revisions == whole.revisions[: len(made.revisions)]
        assert log.is_over == any(one.ts is not None and one.ts > until_ms for one in whole.events)


def test_every_outcome_is_named() -> None:
    records = [
        click("a", "p", 100),
        click("b", "p", 101),
        click("a", "p", 100),
        click("a", "q", 104),
        click("a", "r", 102),
        click("a", "s", 103),
        broken("a"),
        click("a", "t", 50),
        click("a", "u", 105, event_id="e"),
        click("a", "v", 106, event_id="e"),
    ]
    made = traced(records)
    assert [(one.offset, one.outcome, one.slice) for one in made.events] == [
        (0, "applied", 0),
        (2, "duplicate", None),
        (3, "applied", 0),
        (4, "applied_late", 0),
        (5, "late_slice_full", None),
        (6, "dead_letter", None),
        (7, "late_too_old", None),
        (8, "applied", 1),
        (9, "duplicate", None),
    ]
    assert made.events[5].detail is not None and made.events[5].detail.startswith("not_json")
    assert made.answered is not None and made.answered.offset == 8


@pytest.mark.parametrize(
    ("records", "closed_by"),
    [
        ([click("a", "p", 100)], {}),
        ([click("a", item, 100) for item in "pqr"], {0: FULL}),
        ([click("a", "p", 100), click("a", "q", 111)], {0: GAP}),
        ([click("a", "p", 100), click("b", "q", 114)], {}),
        ([click("a", "p", 100), click("b", "q", 115)], {0: SILENCE}),
        ([click("a", "p", 100), tick(115), click("a", "q", 116)], {0: SILENCE}),
    ],
)
def test_why_slices_close(records: list[Raw], closed_by: dict[int, str]) -> None:
    assert traced(records).closed_by == closed_by


def test_a_slice_that_would_span_too_much_closes() -> None:
    # With room for four events: each is within the gap of the one before, the third 21 ms after the first.
    roomy = msgspec.structs.replace(SETTINGS, slice_events=4)
    records = [click("a", "p", 100), click("a", "q", 110), click("a", "r", 120), click("b", "r", 124)]
    assert trace("a", 0, log_of("a", records).entries, roomy).closed_by == {}
    records += [click("a", "s", 121)]
    assert trace("a", 0, log_of("a", records).entries, roomy).closed_by == {0: SPAN}


def test_a_late_event_closes_at_once_where_the_clock_has_passed() -> None:
    # Others moved the clock to 200; the slice that this event opens could not grow any more.
    made = traced([click("b", "p", 200), click("a", "p", 100)])
    assert made.closed_by == {0: SILENCE}
    assert made.answered is not None and made.answered.fresh


def test_the_user_is_as_of_the_own_last_event_and_the_clock_of_that_time() -> None:
    records = [click("a", "p", 100), click("b", "q", 112), click("b", "q", 130), click("a", "q", 140)]
    for until_ms, closed in ((105, {}), (112, {}), (129, {}), (130, {0: SILENCE}), (139, {0: SILENCE})):
        assert traced(records, until_ms=until_ms).closed_by == closed, until_ms
    log = log_of("a", records, 99)
    assert (log.num_own, log.ended_by_ms, log.entries) == (0, 100, [])
