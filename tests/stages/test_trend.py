"""The trend stage: the same log gives the same trends, however it arrives, is cut, repeated or interrupted."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import ActivityRecord, TrendRecord
from tests.stages.cases import pieces
from tests.stages.trend_cases import RULE, SOURCES, Source, TrendWorker, interleaved

SEEDS = st.integers(0, 2**32)
CUTS = st.sets(st.integers(1, 30), max_size=6)
ITEMS = st.frozensets(st.sampled_from("pqr"))


def first_publications(records: list[TrendRecord]) -> dict[tuple[str, int], TrendRecord]:
    """Records by item and epoch; one published twice must be the same both times."""
    known: dict[tuple[str, int], TrendRecord] = {}
    for record in records:
        assert known.setdefault((record.item_id, record.epoch), record) == record
    return known


@given(SOURCES, SEEDS, SEEDS, CUTS)
def test_arrival_and_runs_do_not_matter_to_the_last_bit(
    sources: tuple[Source, Source], seed: int, other: int, cuts: set[int]
) -> None:
    whole = TrendWorker().run_all(interleaved(sources, seed))
    cut = TrendWorker().run_all(interleaved(sources, other), cuts)
    assert cut.published == whole.published
    assert cut.statistics() == whole.statistics()
    assert cut.complete[-1:] == whole.complete[-1:]
    assert cut.complete == sorted(set(cut.complete))


@given(SOURCES, SEEDS, CUTS)
def test_published_counts_equal_a_direct_sum(sources: tuple[Source, Source], seed: int, cuts: set[int]) -> None:
    worker = TrendWorker().run_all(interleaved(sources, seed), cuts)
    complete = min(part[-1].epoch for part in sources) - 1
    counted: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for record in (record for part in sources for record in part):
        if record.item_id is not None and record.epoch <= complete:
            counted[record.item_id][record.epoch] += record.weight_milli
    wanted = [(epoch, item) for item, by_epoch in counted.items() for epoch in by_epoch]
    assert [(record.epoch, record.item_id) for record in worker.published] == sorted(wanted)
    for trend in worker.published:
        for half_life_ms, value in zip(RULE.half_lives_ms, trend.counts, strict=True):
            expected = sum(
                milli / 1000 * 0.5 ** ((trend.epoch - epoch) * RULE.epoch_ms / half_life_ms)
                for epoch, milli in counted[trend.item_id].items()
                if epoch <= trend.epoch
            )
            assert value == pytest.approx(expected)


@given(SOURCES, SEEDS, CUTS, st.integers(0, 20), st.integers(0, 20))
def test_activity_published_twice_counts_once(
    sources: tuple[Source, Source], seed: int, cuts: set[int], died_after: int, again_from: int
) -> None:
    first, second = sources
    again = [*first[:died_after], *first[min(again_from, died_after) :]]
    once = TrendWorker().run_all(interleaved(sources, seed))
    twice = TrendWorker().run_all(interleaved((again, second), seed), cuts)
    assert twice.published == once.published
    assert twice.statistics() == once.statistics()


@given(SOURCES, SEEDS, CUTS)
def test_restarts_do_not_matter(sources: tuple[Source, Source], seed: int, cuts: set[int]) -> None:
    log = interleaved(sources, seed)
    whole, restarted = TrendWorker().run_all(log, cuts), TrendWorker()
    for offsets in pieces(len(log), cuts):
        restarted.run(log, offsets)
        restarted.restart()
    assert restarted.published == whole.published
    assert restarted.table == whole.table


@given(SOURCES, SEEDS, st.integers(0, 20), st.integers(1, 20), ITEMS, CUTS)
def test_dying_while_a_run_is_kept_does_not_matter(
    sources: tuple[Source, Source], seed: int, start: int, length: int, lost: frozenset[str], cuts: set[int]
) -> None:
    log = interleaved(sources, seed)
    whole, crashed = TrendWorker().run_all(log), TrendWorker().run_all(log[:start])
    if start < len(log):
        crashed.run(log, range(start, min(start + length, len(log))), lost=lost)
    for piece in pieces(max(0, len(log) - start), {cut - start for cut in cuts}):
        crashed.run(log, range(start + piece.start, start + piece.stop))
    assert crashed.statistics() == whole.statistics()
    assert first_publications(crashed.published) == first_publications(whole.published)


@given(SOURCES, SEEDS, CUTS)
def test_replaying_read_records_changes_nothing(sources: tuple[Source, Source], seed: int, cuts: set[int]) -> None:
    log = interleaved(sources, seed)
    worker = TrendWorker().run_all(log, cuts)
    statistics, published = worker.statistics(), list(worker.published)
    worker.restart()
    worker.run_all(log, cuts)
    assert worker.statistics() == statistics
    assert worker.published == published


def touch(partition: int, offset: int, epoch: int, *, strict: bool = False) -> ActivityRecord:
    """A touch of item p."""
    return ActivityRecord(partition=partition, offset=offset, epoch=epoch, strict=strict, item_id="p")


def test_what_comes_from_a_source_that_was_given_up_counts_in_the_next_epoch() -> None:
    log = [touch(0, 0, 7), touch(1, 0, 2), touch(0, 1, 9), touch(1, 1, 9)]
    worker = TrendWorker()
    worker.run(log, range(1), idle=frozenset({1}))
    assert worker.complete == [6]
    worker.run(log, range(1, 4))
    assert worker.complete == [6, 8]
    assert [(record.epoch, record.counts) for record in worker.published] == [(7, [2.0, 2.0, 2.0])]


def test_a_source_that_ticks_drive_is_never_given_up() -> None:
    log = [touch(0, 0, 7, strict=True), touch(1, 0, 2, strict=True)]
    worker = TrendWorker()
    worker.run(log, range(2), idle=frozenset({0, 1}))
    assert worker.complete == [1]
