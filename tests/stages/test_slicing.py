"""Slicing: the three rules, in event time only, against oracles that look at whole histories."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import Event, SliceEvent
from stream_app.stages.slicing import (
    DUPLICATE,
    LATE_FULL,
    LATE_TOO_OLD,
    HistoryEvent,
    Slice,
    SlicingRule,
    UserHistory,
    apply_event,
    close_deadline,
    close_silent,
    events_before,
    newest_items,
    slice_record,
)
from tests.stages.cases import RULE, event, events

ENDLESS = replace(RULE, history_events=1000)


def applied(log: list[Event], rule: SlicingRule = RULE) -> UserHistory:
    """The history after a log."""
    history = UserHistory()
    for offset, entry in enumerate(log):
        apply_event(history, entry, offset, rule)
    return history


def times(history: UserHistory) -> list[list[int]]:
    """The event times of each slice."""
    return [[entry.ts for entry in part.events] for part in history.slices]


def at(*all_ts: int) -> list[Event]:
    """Events of one user at these times, none a duplicate of another."""
    return [event("a", f"item {place}", ts) for place, ts in enumerate(all_ts)]


def cut_in_one_pass(all_ts: list[int], rule: SlicingRule) -> list[list[int]]:
    """Oracle: the slices of a whole log in order of time."""
    slices: list[list[int]] = []
    while all_ts:
        ends = [
            place
            for place in range(1, len(all_ts))
            if place == rule.slice_events
            or all_ts[place] - all_ts[place - 1] > rule.gap_ms
            or all_ts[place] - all_ts[0] > rule.span_ms
        ]
        end = min(ends, default=len(all_ts))
        slices.append(all_ts[:end])
        all_ts = all_ts[end:]
    return slices


def obeys_rules(all_ts: list[int], rule: SlicingRule) -> bool:
    """Oracle: whether these sorted times may stand in one slice, its size aside."""
    gaps = [later - sooner for sooner, later in pairwise(all_ts)]
    return all(gap <= rule.gap_ms for gap in gaps) and all_ts[-1] - all_ts[0] <= rule.span_ms


def could_hold(history: UserHistory, ts: int, rule: SlicingRule) -> list[Slice]:
    """Oracle: the repairable slices that could take an event at `ts` in, their size aside."""
    found = []
    slices = history.slices
    for place in range(max(0, len(slices) - rule.repair_slices), len(slices)):
        changed = sorted([*(entry.ts for entry in slices[place].events), ts])
        before = slices[place - 1].last_ts if place else slices[place].previous_ts
        after = slices[place + 1].first_ts if place + 1 < len(slices) else changed[-1]
        if before <= changed[0] and changed[-1] <= after and obeys_rules(changed, rule):
            found.append(slices[place])
    return found


def is_known(history: UserHistory, wanted: Event) -> bool:
    """Oracle: whether the history holds the event already."""
    for known in (entry for part in history.slices for entry in part.events):
        both_named = wanted.event_id is not None and known.event_id is not None
        same_content = (known.ts, known.item_id, known.type) == (wanted.ts, wanted.item_id, wanted.type)
        if (known.event_id == wanted.event_id) if both_named else same_content:
            return True
    return False


@given(st.lists(st.integers(0, 200), max_size=40).map(sorted))
def test_a_log_in_order_is_cut_as_in_one_pass(all_ts: list[int]) -> None:
    history = applied(at(*all_ts), ENDLESS)
    assert times(history) == cut_in_one_pass(all_ts, ENDLESS)
    assert [part.closed for part in history.slices[:-1]] == [True] * (len(history.slices) - 1)


@given(st.lists(events(users="a"), max_size=40), st.sampled_from([RULE, ENDLESS]))
def test_slices_obey_the_rules_whatever_the_order(log: list[Event], rule: SlicingRule) -> None:
    history = UserHistory()
    for offset, entry in enumerate(log):
        apply_event(history, entry, offset, rule)
        parts = history.slices
        assert all(1 <= len(part.events) <= rule.slice_events for part in parts)
        assert all(obeys_rules(slice_times, rule) for slice_times in times(history))
        flat = [ts for slice_times in times(history) for ts in slice_times]
        assert flat == sorted(flat)
        assert all(part.closed for part in parts[:-1])
        assert all(part.closed for part in parts if len(part.events) == rule.slice_events)
        assert [part.seq for part in parts] == list(range(history.next_seq - len(parts), history.next_seq))
        assert all(b.previous_ts == a.last_ts for a, b in pairwise(parts))
        assert len(flat) <= max(rule.history_events, (rule.repair_slices + 2) * rule.slice_events)


@given(st.lists(events(users="a"), max_size=40))
def test_every_applied_event_is_in_one_slice_and_every_other_is_dropped_by_name(log: list[Event]) -> None:
    history = UserHistory()
    held: list[int] = []
    for offset, entry in enumerate(log):
        before = copy.deepcopy(history)
        outcome = apply_event(history, entry, offset, ENDLESS)
        if outcome.dropped is None:
            held.append(offset)
            assert outcome.into is not None
            assert offset in [known.offset for known in outcome.into.events]
        elif is_known(before, entry):
            assert outcome.dropped == DUPLICATE
        elif takers := could_hold(before, entry.ts, ENDLESS):
            assert outcome.dropped == LATE_FULL
            assert len(takers[-1].events) == ENDLESS.slice_events
        else:
            assert outcome.dropped == LATE_TOO_OLD
        assert (outcome.dropped == DUPLICATE) == is_known(before, entry)
    assert sorted(known.offset for part in history.slices for known in part.events) == held
    assert history.applied == len(held)
    assert history.applied + sum(history.dropped.values()) == len(log)


@given(st.lists(events(users="a"), max_size=40))
def test_a_revision_grows_by_one_with_each_change_and_only_then(log: list[Event]) -> None:
    history = UserHistory()
    for offset, entry in enumerate(log):
        before = {part.seq: copy.deepcopy(part) for part in history.slices}
        outcome = apply_event(history, entry, offset, ENDLESS)
        changed = Counter(part.seq for part in outcome.changed)
        assert set(changed.values()) <= {1}
        for part in history.slices:
            known = before.get(part.seq)
            assert part.revision == (0 if known is None else known.revision) + changed[part.seq]
            assert changed[part.seq] or part == known


def test_the_bounds_themselves_are_inside() -> None:
    assert times(applied(at(0, 10, 20))) == [[0, 10, 20]]
    assert times(applied(at(0, 11))) == [[0], [11]]
    assert times(applied(at(0, 10, 21), replace(RULE, gap_ms=100))) == [[0, 10], [21]]
    assert times(applied(at(0, 1, 2, 3))) == [[0, 1, 2], [3]]


def test_a_late_event_goes_where_it_belongs() -> None:
    history = applied(at(0, 100, 104, 5), ENDLESS)
    assert times(history) == [[0, 5], [100, 104]]
    assert applied(at(0, 1, 2, 100, 1), ENDLESS).dropped == {LATE_FULL: 1}
    assert applied(at(0, 100, 50), ENDLESS).dropped == {LATE_TOO_OLD: 1}


def test_no_event_goes_in_front_of_a_slice_whose_predecessor_ends_later() -> None:
    # 25 makes the first slice end later, so that 20 may not go to the second one, near as it is.
    rule = SlicingRule(slice_events=5, gap_ms=30, span_ms=1000, history_events=100)
    history = applied(at(0, 100, 25, 75, 46, 20), rule)
    assert times(history) == [[0, 20, 25], [46, 75, 100]]
    assert [part.previous_ts for part in history.slices] == [-1, 25]


def test_the_slice_after_a_repaired_end_gets_its_new_gap_as_a_new_revision() -> None:
    history = applied(at(0, 15), ENDLESS)
    outcome = apply_event(history, event("a", "late", 4), 2, ENDLESS)
    assert [(part.seq, part.revision) for part in outcome.changed] == [(0, 3), (1, 2)]
    assert outcome.into is history.slices[0]
    assert slice_record("a", history.slices[1], [], 0, fresh=True, join_epoch=None).events[0].gap_ms == 11


def before_by_hand(history: UserHistory, part: Slice, limit: int) -> list[SliceEvent]:
    """Oracle: the events before a slice, out of the whole history written down event by event."""
    entries = [entry for other in history.slices for entry in other.events]
    gaps_ms = [-1, *(later.ts - sooner.ts for sooner, later in pairwise(entries))]
    whole = [SliceEvent(e.item_id, e.type, e.ts, gap_ms) for e, gap_ms in zip(entries, gaps_ms, strict=True)]
    end = next(place for place, entry in enumerate(entries) if entry is part.events[0])
    return whole[max(0, end - limit) : end]


@given(st.lists(st.integers(0, 200), max_size=40).map(sorted))
def test_what_is_forgotten_is_before_no_slice_that_may_still_change(all_ts: list[int]) -> None:
    history, endless = applied(at(*all_ts)), applied(at(*all_ts), ENDLESS)
    for part, same in zip(history.slices[-4:], endless.slices[-4:], strict=True):
        assert events_before(history, part, RULE.slice_events) == before_by_hand(endless, same, RULE.slice_events)


@given(st.lists(events(users="a"), max_size=40), st.sampled_from([RULE, ENDLESS]))
def test_whatever_a_slice_is_published_with_changes_with_its_revision(log: list[Event], rule: SlicingRule) -> None:
    history = UserHistory()
    published: dict[tuple[int, int], object] = {}
    for offset, entry in enumerate(log):
        changed = apply_event(history, entry, offset, rule).changed
        for part in history.slices[-rule.repair_slices :]:
            before = events_before(history, part, rule.slice_events)
            now = slice_record("a", part, before, 0, fresh=False, join_epoch=None)
            assert published.setdefault((part.seq, part.revision), now) == now
            assert part in changed or (part.seq, part.revision) in published


def test_a_late_event_renews_the_slices_it_is_before() -> None:
    # Slices of one event each; the rule looks back at three events, and one more for the gap of the oldest.
    history = applied(at(0, 100, 200, 300, 400), replace(ENDLESS, repair_slices=9))
    outcome = apply_event(history, event("a", "late", 3), 5, replace(ENDLESS, repair_slices=9))
    assert [part.seq for part in outcome.changed] == [0, 1, 2, 3, 4]
    assert [entry.gap_ms for entry in events_before(history, history.slices[4], 3)] == [97, 100, 100]
    outcome = apply_event(history, event("a", "later still", 1), 6, replace(ENDLESS, repair_slices=9))
    assert [part.seq for part in outcome.changed] == [0, 1, 2, 3]
    items = [entry.item_id for entry in events_before(history, history.slices[1], 3)]
    assert items == ["item 0", "later still", "late"]
    assert events_before(history, history.slices[0], 3) == []


def test_the_oldest_slices_are_forgotten_whole() -> None:
    history = applied(at(*range(0, 300, 30)), replace(RULE, history_events=3))
    # Four may still be repaired, and three are looked back at from the oldest of these.
    assert times(history) == [[ts] for ts in range(90, 300, 30)]
    assert history.applied == 10


@pytest.mark.parametrize(
    ("second", "dropped"),
    [
        (event("a", "p", 7, event_id="1"), True),
        (event("a", "q", 9, "buy", event_id="1"), True),
        (event("a", "p", 7, event_id="2"), False),
        (event("a", "p", 7), True),
        (event("a", "p", 7, "buy"), False),
        (event("a", "p", 8), False),
        (event("a", "q", 7), False),
    ],
)
def test_duplicates_are_told_by_id_or_else_by_content(second: Event, dropped: bool) -> None:
    history = applied([event("a", "p", 7, event_id="1"), second])
    assert history.dropped == ({DUPLICATE: 1} if dropped else {})


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6).map(sorted), st.integers(-1, 120))
def test_the_watermark_closes_once_no_event_could_join(all_ts: list[int], watermark_ms: int) -> None:
    history = applied(at(*all_ts))
    last = history.slices[-1]
    revision, open_before = last.revision, not last.closed
    newest = [entry.ts for entry in last.events]
    could_join = any(obeys_rules([*newest, ts], RULE) for ts in range(max(watermark_ms, newest[-1]), 200))
    closed = close_silent(history, watermark_ms, RULE)
    assert (closed is last) == (open_before and not could_join)
    assert last.revision == revision + (closed is not None)
    assert close_silent(history, watermark_ms, RULE) is None
    assert (close_deadline(history, RULE) is None) == last.closed


def test_a_new_user_has_no_deadline_and_no_item() -> None:
    assert close_deadline(UserHistory(), RULE) is None
    assert close_silent(UserHistory(), 10**15, RULE) is None


def test_the_newest_items_come_first_and_each_once() -> None:
    log = [event("a", item, ts) for ts, item in ((10, "p"), (20, "q"), (400, "p"), (410, "r"))]
    history = applied(log)
    assert newest_items(UserHistory(), 3) == []
    assert newest_items(history, 9) == ["r", "p", "q"]
    assert newest_items(history, 2) == ["r", "p"]


def test_the_record_tells_gaps_and_names_the_event_applied_last() -> None:
    part = Slice(4, 2, True, 90, [HistoryEvent(8, 95, "p", "click"), HistoryEvent(3, 99, "q", "buy")])
    before = [SliceEvent("o", "click", 90, -1)]
    record = slice_record("a", part, before, 1, fresh=True, join_epoch=5)
    assert record.before == before
    assert record.events == [SliceEvent("p", "click", 95, 5), SliceEvent("q", "buy", 99, 4)]
    assert (record.seq, record.revision, record.closed) == (4, 2, True)
    assert (record.partition, record.offset, record.fresh, record.join_epoch) == (1, 8, True, 5)
    first = Slice(0, 1, False, -1, part.events[:1])
    assert slice_record("a", first, [], 1, fresh=False, join_epoch=None).events[0].gap_ms == -1
