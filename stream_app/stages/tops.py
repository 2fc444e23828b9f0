"""The rows with the greatest scores, kept while scores change, without a look at all rows for each change.

Shapes: N rows, T rows at the top, R changed rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEVER = -1e18
"""Log score of an item that was never touched: no row of a top."""

Sort = Callable[[Ints, Floats], Ints]
"""Sorts rows by their scores, greatest first, ties in an order that does not depend on the rows' numbers."""


@dataclass(frozen=True)
class Top:
    """The rows that are not below the last of them.

    Args:
        rows_T: int64, best first.
        scores_T: Their scores, float64.
        is_all: Whether no other row was ever touched.
    """

    rows_T: Ints
    scores_T: Floats
    is_all: bool

    def reaches(self, num_rows: int) -> bool:
        """Whether it tells the first `num_rows` rows."""
        return self.is_all or len(self.rows_T) >= num_rows


def top_of(scores_N: Floats, num_rows: int, sort: Sort) -> Top:
    """The top of all rows: `num_rows`, or all where there are fewer."""
    rows = np.arange(len(scores_N))
    if len(scores_N) > num_rows:
        # All that tie with the last place are kept, so that the cut does not depend on row order.
        threshold = np.partition(scores_N, len(scores_N) - num_rows)[len(scores_N) - num_rows]
        rows = np.flatnonzero(scores_N >= threshold)
    rows = rows[scores_N[rows] > NEVER]
    return _cut(rows, scores_N, num_rows, sort, is_all=len(rows) == np.count_nonzero(scores_N > NEVER))


def changed_top(top: Top, changed_R: Ints, scores_N: Floats, num_rows: int, sort: Sort) -> Top:
    """The top after the scores of some rows have changed, at most `num_rows` of it; shorter where rows fell out of it.

    Args:
        top: As it was before.
        changed_R: int64, each once.
        scores_N: All scores as they are now.
        num_rows: The most rows that are wanted.
        sort: Sorts rows.
    """
    if not len(top.rows_T) and not top.is_all:
        return top
    # Rows that are not known here score no more than the last of the top did; NEVER is below all that were touched.
    bound = NEVER if top.is_all else float(top.scores_T[-1])
    changed_scores_R = scores_N[changed_R]
    is_changed_N = np.zeros(len(scores_N), dtype=np.bool_)
    is_changed_N[changed_R] = True
    is_kept_T = ~is_changed_N[top.rows_T]
    if is_kept_T.all() and changed_scores_R.max() < bound:
        return top
    if (changed_scores_R == bound).any():
        # One that ties with unknown rows now may stand before some of the top that tie with them too.
        is_kept_T &= top.scores_T > bound
    rows = np.concatenate([top.rows_T[is_kept_T], changed_R[changed_scores_R > bound]])
    return _cut(rows, scores_N, num_rows, sort, is_all=top.is_all)


def _cut(rows: Ints, scores_N: Floats, num_rows: int, sort: Sort, *, is_all: bool) -> Top:
    sorted_rows = sort(rows, scores_N[rows])
    rows_T = sorted_rows[:num_rows]
    return Top(rows_T, scores_N[rows_T], is_all and len(sorted_rows) <= num_rows)
