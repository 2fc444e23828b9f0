"""Offsets of records delivered one by one: committed is what is done, and all of it."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from stream_app.faustkit.delivered import Delivered


def delivered(*offsets: int) -> Delivered:
    """Records handed out in this order."""
    made = Delivered()
    for offset in offsets:
        made.deliver(offset)
    return made


def first_not_done(offsets: Sequence[int], done: set[int]) -> int | None:
    """The oracle: one past the last of the records that are done without one before them that is not."""
    next_offset = None
    for offset in offsets:
        if offset not in done:
            break
        next_offset = offset + 1
    return next_offset


@given(st.data(), st.sets(st.integers(0, 60), min_size=1))
def test_everything_before_the_first_that_is_not_done(data: st.DataObject, chosen: set[int]) -> None:
    offsets = sorted(chosen)
    order = data.draw(st.permutations(offsets))
    num_early = data.draw(st.integers(0, len(offsets)))
    records = delivered(*offsets[:num_early])
    waiting = list(offsets[num_early:])
    done: set[int] = set()
    for offset in order:
        while offset in waiting:
            records.deliver(waiting.pop(0))
        records.acknowledge([offset])
        done.add(offset)
        assert records.next_offset == first_not_done(offsets, done)
    assert records.next_offset == offsets[-1] + 1


def test_nothing_delivered_is_nothing_done() -> None:
    assert delivered().next_offset is None
    assert delivered(5).next_offset is None


def test_what_was_not_delivered_is_passed_over() -> None:
    records = delivered(5, 9)
    records.acknowledge([4, 7, 9])
    assert records.next_offset is None
    records.acknowledge([5])
    assert records.next_offset == 10


def test_after_a_step_back_only_the_new_deliveries_count() -> None:
    records = delivered(3, 4, 5)
    records.acknowledge([3, 5])
    assert records.next_offset == 4
    for offset in (4, 5):
        records.deliver(offset)
    records.acknowledge([4])
    assert records.next_offset == 5
    records.acknowledge([5])
    assert records.next_offset == 6
