"""Counts and transitions of one item: the fold against a direct sum."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import ActivityRecord
from stream_app.stages.popularity import (
    ItemStatistics,
    SourceProgress,
    TrendRule,
    complete_epoch,
    count,
    decay,
    fold,
)
from tests.stages.trend_cases import RULE

TOUCHES = st.lists(
    st.tuples(st.integers(0, 9), st.lists(st.sampled_from("qrs"), unique=True), st.integers(1, 5000)), max_size=25
)


def touch(before: Sequence[str], weight_milli: int) -> ActivityRecord:
    """A touch of item p after others, newest first."""
    return ActivityRecord(partition=0, offset=0, epoch=0, item_id="p", before=tuple(before), weight_milli=weight_milli)


def folded(touches: Sequence[tuple[int, Sequence[str], int]], rule: TrendRule = RULE) -> ItemStatistics:
    """Statistics after all of these, folded epoch by epoch."""
    statistics = ItemStatistics()
    for epoch, before, weight_milli in touches:
        count(statistics, touch(before, weight_milli), epoch)
    for epoch in range(10):
        fold("p", statistics, epoch, rule)
    return statistics


@given(TOUCHES)
def test_counts_and_predecessors_equal_a_direct_sum(touches: list[tuple[int, list[str], int]]) -> None:
    statistics = folded(touches)
    last = max((epoch for epoch, _, _ in touches), default=-1)
    assert (statistics.first_epoch, statistics.epoch) == (min((e for e, _, _ in touches), default=-1), last)
    sums: dict[tuple[str | None, float], float] = defaultdict(float)
    for epoch, before, weight_milli in touches:
        for half_life_ms in RULE.half_lives_ms:
            kept = 0.5 ** ((last - epoch) * RULE.epoch_ms / half_life_ms)
            sums[None, half_life_ms] += weight_milli / 1000 * kept
            for item, place_milli in zip(before, (1000, 800, 640), strict=False):
                sums[item, half_life_ms] += weight_milli * place_milli // 1000 / 1000 * kept
    assert statistics.counts == pytest.approx([sums[None, h] for h in RULE.half_lives_ms] if touches else [])
    short_ms, long_ms = RULE.pair_half_lives_ms
    known = {item: (short, long) for item, short, long in statistics.predecessors}
    assert known.keys() == {item for _, before, _ in touches for item in before}
    for item, scores in known.items():
        assert scores == pytest.approx((sums[item, short_ms], sums[item, long_ms]))


@given(TOUCHES, st.integers(0, 2**32))
def test_the_order_of_arrival_does_not_matter_to_the_last_bit(
    touches: list[tuple[int, list[str], int]], seed: int
) -> None:
    shuffled = random.Random(seed).sample(touches, len(touches))
    rule = TrendRule(RULE.epoch_ms, RULE.half_lives_ms, max_predecessors=2)
    assert folded(shuffled, rule) == folded(touches, rule)


def test_only_the_strongest_predecessors_are_kept_and_ties_go_by_name() -> None:
    rule = TrendRule(RULE.epoch_ms, RULE.half_lives_ms, max_predecessors=3)
    weights = {"d": 1000, "c": 1000, "b": 1000, "a": 500, "e": 2000}
    touches = [(0, [item], milli) for item, milli in weights.items()]
    assert [item for item, _, _ in folded(touches, rule).predecessors] == ["e", "b", "c"]


def test_an_epoch_without_activity_gives_no_record() -> None:
    statistics = ItemStatistics()
    count(statistics, touch([], 1000), 4)
    assert fold("p", statistics, 3, RULE) is None
    record = fold("p", statistics, 4, RULE)
    assert record is not None
    assert (record.epoch, record.first_epoch, record.counts) == (4, 4, [1.0, 1.0, 1.0])
    assert fold("p", statistics, 4, RULE) is None


def test_by_hand() -> None:
    # Two touches of weight 1 in epoch 0, one of weight 3 in epoch 3: one half-life of 3 s later.
    statistics = folded([(0, [], 1000), (0, [], 1000), (3, [], 3000)])
    assert statistics.counts[1] == 2 * 0.5 + 3
    assert decay(3000, 3000.0) == 0.5
    assert decay(0, 3000.0) == 1.0


def test_predecessors_use_the_middle_and_the_longest_half_life() -> None:
    assert TrendRule(1, (9.0, 1.0, 4.0)).pair_half_lives_ms == (4.0, 9.0)
    assert TrendRule(1, (9.0,)).pair_half_lives_ms == (9.0, 9.0)


def at(epoch: int, *, strict: bool = False) -> SourceProgress:
    """Progress of a source."""
    return SourceProgress(offset=0, epoch=epoch, strict=strict)


@pytest.mark.parametrize(
    ("sources", "idle", "expected"),
    [
        ({}, (), -1),
        ({0: at(5), 1: at(7)}, (), 4),
        ({0: at(5)}, (), -1),  # nothing was heard of source 1 yet
        ({0: at(5)}, (1,), 4),
        ({0: at(5), 1: at(2)}, (1,), 4),
        ({0: at(5), 1: at(2, strict=True)}, (1,), 1),  # ticks drive it: it is waited for, however silent
        ({0: at(5, strict=True)}, (1,), -1),  # a replay sends ticks to source 1 too, though nothing came yet
        ({0: at(5), 1: at(7)}, (0, 1), 6),
        ({0: at(0), 1: at(0)}, (), -1),
    ],
)
def test_an_epoch_is_complete_when_no_awaited_source_is_in_it_any_more(
    sources: dict[int, SourceProgress], idle: tuple[int, ...], expected: int
) -> None:
    assert complete_epoch(sources, 2, frozenset(idle)) == expected
