"""The part of each slice in the merged vectors, against the merge itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.inspection.vectors import in_order, merge_shares
from stream_app.records import SliceEvent, SliceRecord
from stream_app.stages.merging import DecayedSums, MergedSlice, UserMemory, take_slice
from tests.examples import examples

HOUR_MS = 3_600_000
HALF_LIVES_MS = np.array([HOUR_MS, 24 * HOUR_MS], dtype=np.float64)


def revision(seq: int, number: int, *, offset: int = 0, fresh: bool = False) -> SliceRecord:
    """A revision that says no more than its number."""
    events = [SliceEvent("p", "click", 0, -1)] * number
    return SliceRecord(
        user_id="a", seq=seq, revision=number, closed=False, fresh=fresh, events=events, partition=0, offset=offset
    )


def test_a_slice_of_one_half_life_ago_counts_half() -> None:
    shares_SH = merge_shares([0, HOUR_MS], [1.0, 1.0], HALF_LIVES_MS)
    assert shares_SH[:, 0].tolist() == pytest.approx([1 / 3, 2 / 3])
    old = 2 ** (-1 / 24)
    assert shares_SH[:, 1].tolist() == pytest.approx([old / (old + 1), 1 / (old + 1)])


def test_weights_count_and_a_slice_alone_is_everything() -> None:
    assert merge_shares([5, 5], [1.0, 3.0], HALF_LIVES_MS).tolist() == [[0.25, 0.25], [0.75, 0.75]]
    assert merge_shares([5], [2.0], HALF_LIVES_MS).tolist() == [[1.0, 1.0]]


@examples(100)
@given(
    st.lists(
        st.tuples(st.integers(0, 100 * HOUR_MS), st.sampled_from([0.5, 1.0, 3.0]), st.integers(-9, 9)),
        min_size=2,
        max_size=9,
    )
)
def test_shares_of_codes_sum_to_the_merged_vectors(slices: list[tuple[int, float, int]]) -> None:
    memory, merge = UserMemory(), DecayedSums(HALF_LIVES_MS, 2)
    codes = [np.array([value, 1.0], dtype=np.float32) for _, _, value in slices]
    for seq, ((end_ts, weight, _), code_D) in enumerate(zip(slices, codes, strict=True)):
        part = MergedSlice(seq, 0, end_ts, weight, code_D.tobytes())
        take_slice(memory, part, code_D, merge, keep=4)
    merged = slices[:-1]  # the newest is not merged
    shares_SH = merge_shares([one[0] for one in merged], [one[1] for one in merged], HALF_LIVES_MS)
    # Float32 sums of at most 8 terms, none larger than 9: 8 * 9 * 2^-24 is 4e-6.
    np.testing.assert_allclose(shares_SH.T @ np.stack(codes[:-1]), merge.read(memory.state), atol=2e-5)


def test_revisions_come_in_the_published_order_then_the_newer_ones() -> None:
    revisions = [revision(0, 1), revision(0, 2), revision(1, 1, offset=1), revision(0, 3, offset=2)]
    assert in_order(revisions, []) == [revisions[2], revisions[3]]
    published = [(0, 2), (1, 1), (0, 9)]
    assert in_order(revisions, published) == [revisions[1], revisions[2], revisions[3]]
    assert in_order(revisions, [(1, 1), (0, 3)]) == [revisions[2], revisions[3]]


def test_a_revision_that_only_closes_still_asks_for_the_list() -> None:
    (made,) = in_order([revision(0, 1, fresh=True), revision(0, 2)], [])
    assert (made.revision, made.fresh) == (2, True)
