"""Trends of all items in arrays: against each item's own record, however they came."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import TrendRecord
from stream_app.stages.popularity import TrendRule
from stream_app.stages.trend_view import MAX_BEHIND, Neighbours, TrendView

RULE = TrendRule(epoch_ms=60_000, half_lives_ms=(120_000.0, 3_600_000.0))
ITEMS = [f"item {number}" for number in range(8)]


@st.composite
def trends(draw: st.DrawFn) -> list[TrendRecord]:
    """Records of several items over some epochs, in order of epoch; equal counts are frequent."""
    made: list[TrendRecord] = []
    first_epochs: dict[str, int] = {}
    for epoch in range(draw(st.integers(0, 6))):
        for item_id in draw(st.sets(st.sampled_from(ITEMS))):
            count = draw(st.sampled_from([0.25, 1.0, 1.0, 3.0]))
            made.append(
                TrendRecord(
                    item_id=item_id,
                    epoch=epoch,
                    first_epoch=first_epochs.setdefault(item_id, epoch),
                    counts=[count, 2 * count],
                    predecessors=[(other, 1.0, 2.0 * count) for other in ITEMS[:3] if other != item_id],
                )
            )
    return made


def view_of(records: list[TrendRecord], epoch: int = 9) -> TrendView:
    """A view that took in everything at once."""
    view = TrendView(RULE)
    view.advance(epoch, records)
    return view


def shown(view: TrendView) -> dict[str, object]:
    """All that the view says, by item, with every bit of its numbers."""
    rows_C = view.rows_of([*ITEMS, "unheard of"])
    return {
        "top": [[view.item_ids[row] for row in view.top(h, 5)] for h in range(2)],
        "popularity": view.popularity(rows_C).tolist(),
        "age": view.log_age(rows_C).tolist(),
        "near": [(near(view, view.after([item_id])), near(view, view.before([item_id]))) for item_id in ITEMS],
        "epoch": view.epoch,
    }


def near(view: TrendView, neighbours: Neighbours) -> dict[str, list[float]]:
    """Shares of short and long memory by item; each item is there once."""
    shares = {
        view.item_ids[row]: shares_M
        for row, shares_M in zip(neighbours.rows_K.tolist(), neighbours.shares_MK.T.tolist(), strict=True)
    }
    assert len(shares) == len(neighbours.rows_K)
    return shares


def decayed(records: list[TrendRecord], now: int) -> dict[str, list[float]]:
    """Oracle: the counts of each item decayed to the end of epoch `now`."""
    newest = {record.item_id: record for record in sorted(records, key=lambda record: record.epoch)}
    return {
        item_id: [
            count * 0.5 ** ((now - record.epoch) * RULE.epoch_ms / half_life_ms)
            for count, half_life_ms in zip(record.counts, RULE.half_lives_ms, strict=True)
        ]
        for item_id, record in newest.items()
    }


@given(trends())
def test_popularity_is_the_distance_from_the_top_in_halvings(records: list[TrendRecord]) -> None:
    counts = decayed(records, 9)
    popularity_CH = view_of(records).popularity(view_of(records).rows_of(ITEMS))
    for h in range(2):
        best = max((count[h] for count in counts.values()), default=0.0)
        for place, item_id in enumerate(ITEMS):
            behind = math.log2(best / counts[item_id][h]) if item_id in counts else MAX_BEHIND
            assert popularity_CH[place, h] == pytest.approx(-math.log(1 + behind), abs=1e-6)


@given(trends(), st.integers(1, 9))
def test_top_equals_sorting_the_decayed_counts(records: list[TrendRecord], num_items: int) -> None:
    view, counts = view_of(records), decayed(records, 9)
    for h in range(2):
        listed = [round(math.log2(counts[view.item_ids[row]][h]), 6) for row in view.top(h, num_items)]
        wanted = sorted((round(math.log2(count[h]), 6) for count in counts.values()), reverse=True)
        assert listed == wanted[:num_items]


@given(trends(), st.sets(st.integers(0, 6)))
def test_advancing_in_steps_equals_advancing_at_once(records: list[TrendRecord], stops: set[int]) -> None:
    view = TrendView(RULE)
    done = -1
    for stop in [*sorted(stops), 9]:
        view.advance(stop, [record for record in records if done < record.epoch <= stop])
        view.top(0, 3)  # what was asked before must not be kept for too long
        done = stop
    assert shown(view) == shown(view_of(records))


@given(trends(), st.integers(0, 2**32))
def test_the_order_of_arrival_within_an_epoch_does_not_matter(records: list[TrendRecord], seed: int) -> None:
    chooser = random.Random(seed)
    arrived = sorted(records, key=lambda record: (record.epoch, chooser.random()))
    assert shown(view_of(arrived)) == shown(view_of(records))


def popular(num_items: int) -> list[TrendRecord]:
    """Many items with few different counts."""
    return [
        TrendRecord(item_id=f"i{n}", epoch=3, first_epoch=0, counts=[1.0 + n % 3, 1.0], predecessors=[])
        for n in range(num_items)
    ]


def test_the_cut_through_many_ties_does_not_depend_on_rows() -> None:
    records = popular(1000)
    view, turned = view_of(records), view_of(records[::-1])
    for h in range(2):
        ids = [[each.item_ids[row] for row in each.top(h, 450)] for each in (view, turned)]
        assert ids[0] == ids[1]
        assert len(set(ids[0])) == 450
    assert all(int(view.item_ids[row][1:]) % 3 == 2 for row in view.top(0, 333))


def test_asking_for_more_than_before_gives_more() -> None:
    view = view_of(popular(700))
    few, many = view.top(0, 2).tolist(), view.top(0, 600).tolist()
    assert many[:2] == few
    assert (len(few), len(many), len(view.top(0, 5000))) == (2, 600, 700)


@given(trends())
def test_shares_fade_where_nothing_is_touched(records: list[TrendRecord]) -> None:
    soon, late = view_of(records, 9), view_of(records, 5000)
    for item_id in ITEMS:
        for later, now in (
            (near(late, late.after([item_id])), near(soon, soon.after([item_id]))),
            (near(late, late.before([item_id])), near(soon, soon.before([item_id]))),
        ):
            assert later.keys() == now.keys()
            assert all(later[item][0] < short for item, (short, _) in now.items())


@given(trends())
def test_shares_are_the_decayed_counts_of_the_records_both_ways_round(records: list[TrendRecord]) -> None:
    view, touches = view_of(records), decayed(records, 9)
    after: dict[str, dict[str, object]] = {item_id: {} for item_id in ITEMS}
    before: dict[str, dict[str, object]] = {item_id: {} for item_id in ITEMS}
    for record in {record.item_id: record for record in records}.values():
        for other, *counts in record.predecessors:
            kept = [
                count * 0.5 ** ((9 - record.epoch) * RULE.epoch_ms / half_life_ms)
                for count, half_life_ms in zip(counts, RULE.pair_half_lives_ms, strict=True)
            ]
            for found, item_id, neighbour in ((after, other, record.item_id), (before, record.item_id, other)):
                shares = [
                    count / (1 + touched) for count, touched in zip(kept, touches.get(item_id, [0, 0]), strict=True)
                ]
                found[item_id][neighbour] = pytest.approx(shares)
    for item_id in ITEMS:
        assert near(view, view.after([item_id])) == after[item_id]
        # What was never touched as far as the view knows has no row, so it cannot be told of.
        known = {item: shares for item, shares in before[item_id].items() if item in touches}
        assert near(view, view.before([item_id])) == known


def test_shares_by_hand() -> None:
    # Long memory has a half-life of 60 epochs.
    followed = TrendRecord(item_id="p", epoch=0, first_epoch=0, counts=[14.0, 8.0], predecessors=[])
    followers = [
        TrendRecord(item_id=item_id, epoch=0, first_epoch=0, counts=[1.0, 1.0], predecessors=[("p", short, long)])
        for item_id, short, long in (("q", 4.0, 6.0), ("r", 2.0, 2.0))
    ]
    view = view_of([followed, *followers], epoch=60)
    short_kept = 0.5 ** (60 * RULE.epoch_ms / RULE.pair_half_lives_ms[0])
    touches = 1 + 14 * short_kept
    assert near(view, view.after(["p"])) == {
        "q": pytest.approx([4 * short_kept / touches, 3 / 5]),
        "r": pytest.approx([2 * short_kept / touches, 1 / 5]),
    }
    assert near(view, view.before(["q"])) == {"p": pytest.approx([4 * short_kept / (1 + short_kept), 3 / 1.5])}
    assert near(view, view.after(["q"])) == near(view, view.before(["p"])) == {}
    assert view.log_age(view.rows_of(["p", "unknown"])).tolist() == [math.log(2), 0.0]


def test_an_item_that_is_no_predecessor_any_more_is_followed_no_more() -> None:
    view = TrendView(RULE)
    for epoch, before in ((1, ["p", "r"]), (2, ["r", "s"])):
        pairs = [(item_id, 1.0, 1.0) for item_id in before]
        view.advance(
            epoch, [TrendRecord(item_id="q", epoch=epoch, first_epoch=1, counts=[1.0, 1.0], predecessors=pairs)]
        )
    assert [list(near(view, view.after([item_id]))) for item_id in "prs"] == [[], ["q"], ["q"]]


def test_an_empty_view_answers_all_the_same() -> None:
    view = TrendView(RULE)
    rows_C = view.rows_of(["p"])
    assert rows_C.tolist() == [-1]
    assert view.top(0, 5).tolist() == []
    assert (view.popularity(rows_C) < -13).all()
    assert view.log_age(rows_C).tolist() == [0.0]
    assert view.popularity(np.empty(0, dtype=np.int64)).shape == (0, 2)
