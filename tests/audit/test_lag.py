"""Watching committed offsets."""

from __future__ import annotations

from stream_app.audit.findings import Check
from stream_app.audit.lag import CatchUp, Place
from tests.audit.cases import new_check

FIRST = Place("sequence", "events", 0)
SECOND = Place("sequence", "events", 1)
OTHER = Place("trend", "item-activity", 0)


def judged(watch: CatchUp) -> Check:
    """The findings after a second."""
    check = new_check()
    watch.judge(check, 1.0)
    return check


def test_everything_worked_off_passes() -> None:
    watch = CatchUp({FIRST: (2, 10), SECOND: (5, 5), OTHER: (7, 9)}, {FIRST: 10, OTHER: 8})
    assert (watch.behind(), watch.num_behind) == ({OTHER: (8, 9)}, 1)
    watch.take({FIRST: 12, OTHER: 9})
    check = judged(watch)
    assert (check.status, watch.num_behind, check.num_checked) == ("pass", 0, 3)


def test_a_partition_that_is_behind_is_named_and_one_that_stands_still_told_apart() -> None:
    watch = CatchUp({FIRST: (0, 10), SECOND: (0, 10), OTHER: (4, 9)}, {FIRST: 3, SECOND: 3})
    watch.take({FIRST: 6, SECOND: 3})
    check = judged(watch)
    assert check.facts["lag"] == {"sequence": 4 + 7, "trend": 5}
    moved, still, never = check.breaches
    assert (moved.partition, moved.offset, "did not move" in moved.seen) == (0, 6, False)
    assert (still.partition, still.offset, "did not move" in still.seen) == (1, 3, True)
    assert (never.topic, never.offset, "did not move" in never.seen) == ("item-activity", 4, True)


def test_marks_of_transactions_are_nothing_to_work_off() -> None:
    watch = CatchUp({FIRST: (0, 10)}, {FIRST: 9})
    watch.reached(FIRST)
    assert (watch.num_behind, judged(watch).status) == (0, "pass")
