"""Counts of events held against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.audit.balance import EventCounter, Intake, Sums, judge_intake
from stream_app.audit.findings import Check
from stream_app.records import Event, StatusRecord
from stream_app.stages.intake import Content, Tick
from tests.audit.cases import EVENTS, new_check

EVENT = Event(user_id="u", item_id="i", type="click", ts=1)
TICK = Tick(1, False)


def intake(
    *, applied: int = 7, not_json: int = 2, duplicate: int = 1, begin: int = 0, removed: int = 0, settled: bool = True
) -> Intake:
    """A partition in which everything adds up: some events and two ticks, all of them worked off."""
    events = applied + not_json + duplicate
    last = begin + events - removed + 2 - 1
    status = StatusRecord(
        partition=0,
        offset=last,
        events=events,
        applied=applied,
        dead_lettered=not_json,
        dropped={"duplicate": duplicate},
        users=1,
        watermark_ms=0,
    )
    return Intake(
        topic=EVENTS,
        partition=0,
        begin=begin,
        committed=last + 1,
        status=status,
        sums=Sums(last, applied, {"not_json": not_json}, {"duplicate": duplicate}, settled),
        num_events={last: events - removed},
        letters={"not_json": not_json},
    )


def judged(*intakes: Intake) -> Check:
    """The findings about these partitions."""
    check = new_check()
    judge_intake(check, intakes)
    return check


@given(st.lists(st.booleans(), max_size=30), st.sets(st.integers(-1, 40), min_size=1))
def test_events_are_counted_up_to_each_offset(is_tick: list[bool], asked: set[int]) -> None:
    offsets = [2 * place for place in range(len(is_tick))]
    contents: list[Content] = [TICK if tick else EVENT for tick in is_tick]
    counter = EventCounter(asked)
    counter.take(offsets, contents)
    assert counter.newest == max(asked)
    assert counter.counts() == {
        at: sum(offset <= at and not tick for offset, tick in zip(offsets, is_tick, strict=True)) for at in asked
    }


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_what_adds_up_passes(applied: int, not_json: int, duplicate: int) -> None:
    check = judged(intake(applied=applied, not_json=not_json, duplicate=duplicate), intake())
    assert (check.status, check.notes) == ("pass", [])
    total = check.facts["total"]
    assert total["in"] == applied + not_json + duplicate + 10
    assert (total["applied"], total["dead_lettered"]) == (applied + 7, not_json + 2)
    assert (total["dropped"], total["missing"]) == ({"duplicate": duplicate + 1}, 0)


def test_a_partition_that_nobody_read_has_nothing_to_add_up() -> None:
    check = judged(Intake(EVENTS, 0, begin=3, num_events={-1: 0}))
    assert (check.status, check.facts["total"]["in"]) == ("pass", 0)


def test_events_that_are_not_accounted_for_are_missing() -> None:
    good = intake()
    assert good.sums is not None
    check = judged(replace(good, num_events={good.sums.position: 12}), intake())
    assert check.facts["total"]["missing"] == check.facts["partitions"][0]["missing"] == 2
    assert "missing 2" in check.summary
    assert any("missing 2" in breach.seen and breach.partition == 0 for breach in check.breaches)


def with_status(**changes: object) -> Callable[[Intake], Intake]:
    """Another status."""

    def change(good: Intake) -> Intake:
        assert good.status is not None
        made = {name: getattr(good.status, name) for name in good.status.__struct_fields__} | changes
        return replace(good, status=StatusRecord(**made))

    return change


def with_sums(**changes: object) -> Callable[[Intake], Intake]:
    """Other kept values."""

    def change(good: Intake) -> Intake:
        assert good.sums is not None
        return replace(good, sums=replace(good.sums, **changes))  # type: ignore[arg-type]

    return change


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (with_status(events=11), "11 events, but 10 accounted for"),
        (with_status(applied=8, events=11), "missing -1"),
        (with_sums(applied=6), "the kept histories hold 9 events"),
        (with_sums(dropped={}), "the kept histories hold 9 events"),
        (lambda good: replace(good, letters={"not_json": 1}), "1 dead letters for not_json"),
        (lambda good: replace(good, letters={"not_json": 2, "no_user": 1}), "1 dead letters for no_user"),
        (lambda good: replace(good, committed=good.committed + 1), "committed up to 13"),
        (lambda good: replace(good, status=None), "no status"),
        (lambda good: replace(good, sums=None), "kept totals of offset -1"),
        (lambda good: replace(good, begin=20), "8 offsets were removed unread"),
    ],
)
def test_each_count_that_differs_is_named(damage: Callable[[Intake], Intake], seen: str) -> None:
    check = judged(intake(), replace(damage(intake()), partition=1))
    assert any(seen in breach.seen for breach in check.breaches), check.breaches
    assert {(breach.topic, breach.partition) for breach in check.breaches} == {(EVENTS, 1)}


@given(st.integers(0, 10), st.integers(0, 5))
def test_what_retention_removed_is_counted_aloud_and_no_breach(removed: int, num_ticks: int) -> None:
    begin = removed + num_ticks
    check = judged(intake(begin=begin, removed=removed))
    assert check.status == "pass"
    assert len(check.notes) == (begin > 0)
    assert (check.facts["total"]["in"], check.facts["total"]["removed"]) == (10, removed)


def test_retention_does_not_excuse_more_than_it_removed() -> None:
    check = judged(intake(begin=1, removed=2))
    assert check.facts["total"]["missing"] == -2
    assert check.num_breaches


def test_letters_that_retention_removed_are_not_counted() -> None:
    check = judged(replace(intake(), letters={}, letters_begin=5))
    assert (check.status, len(check.not_checked)) == ("partly checked", 1)


def test_values_of_several_moments_are_not_summed() -> None:
    good = intake(settled=False)
    check = judged(with_sums(applied=5)(good))
    assert (check.status, len(check.not_checked)) == ("partly checked", 1)


def test_a_role_that_reads_events_again_tells_the_totals_of_all_it_has_kept() -> None:
    good = intake()
    assert good.status is not None
    again = with_status(offset=good.status.offset - 4)(good)
    check = judged(replace(again, committed=9, num_events={**good.num_events, good.status.offset - 4: 6}))
    assert check.status == "pass"
