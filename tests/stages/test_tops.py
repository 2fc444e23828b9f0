"""The top that is kept while scores change, against sorting everything anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_app.stages.tops import NEVER, Floats, Ints, changed_top, top_of

NUM_ROWS = 12
SCORES = st.sampled_from([NEVER, -1.0, 0.0, 0.0, 1.0, 2.0])
"""Few different ones: most of what can go wrong is about ties."""

ORDERS = st.permutations(range(NUM_ROWS))
CHANGES = st.lists(st.dictionaries(st.integers(0, NUM_ROWS - 1), SCORES, min_size=1, max_size=4), max_size=6)


def sorted_anew(scores_N: Floats, order: Sequence[int]) -> list[int]:
    """Oracle: all touched rows, greatest score first, ties by their place in `order`."""
    touched = [row for row in range(len(scores_N)) if scores_N[row] > NEVER]
    return sorted(touched, key=lambda row: (-scores_N[row], order[row]))


@given(st.lists(SCORES, min_size=NUM_ROWS, max_size=NUM_ROWS), CHANGES, ORDERS, st.integers(1, 8))
def test_a_top_through_changes_equals_sorting_anew(
    start: list[float], changes: list[dict[int, float]], order: list[int], num_rows: int
) -> None:
    def sort(rows: Ints, scores: Floats) -> Ints:
        return rows[np.lexsort((np.array(order)[rows], -scores))]

    scores_N = np.array(start)
    top = top_of(scores_N, num_rows, sort)
    for change in changes:
        scores_N[list(change)] = list(change.values())
        top = changed_top(top, np.array(list(change)), scores_N, num_rows, sort)
        expected = sorted_anew(scores_N, order)
        assert top.rows_T.tolist() == expected[: len(top.rows_T)]
        assert top.scores_T.tolist() == scores_N[top.rows_T].tolist()
        assert not top.is_all or len(top.rows_T) == len(expected)


def test_rising_rows_never_make_a_top_shorter() -> None:
    """Scores of items only rise, so that all rows are looked at once alone."""
    chooser = np.random.default_rng(0)
    scores_N = chooser.normal(size=1000)
    top = top_of(scores_N, 20, by_row)
    for _ in range(200):
        rows_R = chooser.choice(1000, 3, replace=False)
        scores_N[rows_R] += chooser.exponential(size=3)
        top = changed_top(top, rows_R, scores_N, 20, by_row)
        assert top.rows_T.tolist() == by_row(np.arange(1000), scores_N)[:20].tolist()
    assert top.reaches(20)
    assert not top.reaches(21)


def test_a_top_of_everything_reaches_any_number() -> None:
    top = top_of(np.array([1.0, NEVER]), 5, by_row)
    assert (top.rows_T.tolist(), top.reaches(1000)) == ([0], True)


def by_row(rows: Ints, scores: Floats) -> Ints:
    return rows[np.lexsort((rows, -scores))]
