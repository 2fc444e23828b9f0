"""Counting again gives the trends that were published, and what would be without an event."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.inspection.what_if import activity_change, count_again, without_places
from stream_app.records import ActivityRecord, TrendRecord
from stream_app.stages.trend import TrendStage
from tests.examples import examples
from tests.stages.trend_cases import NUM_SOURCES, RULE, SOURCES, Source, interleaved


def touch(offset: int, item_id: str, *before: str, partition: int = 0, epoch: int = 0) -> ActivityRecord:
    return ActivityRecord(partition=partition, offset=offset, epoch=epoch, item_id=item_id, before=before)


def published(activity: Source, epoch: int) -> dict[str, TrendRecord]:
    """The newest records of the trend role as of an epoch."""
    stage = TrendStage(NUM_SOURCES, RULE)
    stage.begin_run(lambda _: {})
    ends = [ActivityRecord(partition=number, offset=999, epoch=99) for number in range(NUM_SOURCES)]
    for offset, record in enumerate([*activity, *ends]):
        stage.take(record, offset)
    folded, _ = stage.end_run(len(activity), frozenset())
    return {record.item_id: record for record in folded if record.epoch <= epoch}


@examples(200)
@given(SOURCES, st.integers(0, 1000), st.integers(0, 20))
def test_counting_again_gives_what_was_published(sources: tuple[Source, ...], seed: int, epoch: int) -> None:
    activity = interleaved(sources, seed)
    assert count_again(activity, epoch, RULE) == published(activity, epoch)
    twice = [record for record in activity for _ in range(2)]
    assert count_again(reversed(twice), epoch, RULE) == published(activity, epoch)


def test_leaving_out_the_middle_of_three_joins_its_neighbours() -> None:
    before = [touch(1, "p"), touch(2, "q", "p"), touch(3, "r", "q", "p")]
    after = [touch(1, "p"), touch(3, "r", "p")]
    change = activity_change(before, after)
    assert change.gone == {(0, 2), (0, 3)}
    assert change.new == (touch(3, "r", "p"),)
    assert change.items == {"q", "r"}  # p was touched just the same

    others = [touch(7, "q", partition=1), touch(8, "s", "q", partition=1)]
    counted = count_again(without_places([*before, *others], change), 0, RULE)
    assert counted["r"].predecessors == [("p", 1.0, 1.0)]
    assert (counted["q"].counts, counted["q"].predecessors) == ([1.0] * 3, [])
    assert counted["s"].predecessors == [("q", 1.0, 1.0)]


def test_an_item_that_only_this_event_touched_is_gone() -> None:
    before = [touch(1, "p"), touch(2, "q", "p")]
    change = activity_change(before, before[:1])
    assert count_again(without_places(before, change), 5, RULE).keys() == {"p"}


def test_what_changes_nothing_touches_nothing() -> None:
    same = [touch(1, "p")]
    change = activity_change(same, list(same))
    assert (change.gone, change.new, change.items) == (frozenset(), (), frozenset())


def test_later_epochs_do_not_count() -> None:
    counted = count_again([touch(1, "p", epoch=2), touch(2, "p", epoch=3)], 2, RULE)
    assert (counted["p"].epoch, counted["p"].counts) == (2, [1.0] * 3)
