"""The order of answers: best score first, equal scores by smaller id.

Shape suffixes: Q queries, F candidates per query, K answered per query, N item numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.contract import Float32Array, Int64Array

NO_ITEM = -1
"""In the place of an item number where there is none; FAISS's own sign for it."""
NO_SCORE = np.float32(-np.inf)
"""The score of what may not be answered. No item has it: vectors are finite, and bounded in length."""


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """Item numbers and scores, best first, both (Q, K); `NO_ITEM` and `NO_SCORE` behind the last one."""

    numbers_QK: Int64Array
    scores_QK: Float32Array

    @classmethod
    def nothing(cls, num_queries: int, k: int) -> Found:
        """No item for any query, in k places."""
        shape = (num_queries, k)
        return cls(np.full(shape, NO_ITEM, dtype=np.int64), np.full(shape, NO_SCORE, dtype=np.float32))

    @property
    def counts_Q(self) -> Int64Array:
        """Items found for each query."""
        return np.asarray(np.count_nonzero(self.numbers_QK != NO_ITEM, axis=1), dtype=np.int64)

    def put(self, rows: Int64Array, other: Found) -> None:
        """Put in what was found for the queries numbered `rows`, the first of them where there are fewer places
        here."""
        num_places = min(self.numbers_QK.shape[1], other.numbers_QK.shape[1])
        self.numbers_QK[rows, :num_places] = other.numbers_QK[:, :num_places]
        self.scores_QK[rows, :num_places] = other.scores_QK[:, :num_places]


def best_of(numbers_QF: Int64Array, scores_QF: Float32Array, k: int, ids_N: npt.NDArray[np.object_]) -> Found:
    """The best k candidates of each query in order; fewer columns where there are fewer candidates.

    Args:
        numbers_QF: Item numbers, none twice in a row but `NO_ITEM`.
        scores_QF: `NO_SCORE` for those that may not be answered.
        k: Places wanted.
        ids_N: The id of each item number.
    """
    num_queries, num_candidates = scores_QF.shape
    order_QF = np.argsort(-scores_QF, axis=1, kind="stable")
    order_QF += num_candidates * np.arange(num_queries)[:, None]
    numbers_QF, scores_QF = numbers_QF.take(order_QF), scores_QF.take(order_QF)
    numbers_QF[scores_QF == NO_SCORE] = NO_ITEM
    tied_QF = scores_QF[:, 1:] == scores_QF[:, :-1]
    if tied_QF.any():
        _order_ties(numbers_QF, scores_QF, tied_QF & (numbers_QF[:, 1:] != NO_ITEM), ids_N)
    return Found(numbers_QF[:, :k], scores_QF[:, :k])


def _order_ties(
    numbers_QF: Int64Array, scores_QF: Float32Array, tied_QF: npt.NDArray[np.bool_], ids_N: npt.NDArray[np.object_]
) -> None:
    """Put sorted candidates with equal scores in the order of their ids, in place.

    Args:
        numbers_QF: Sorted by score.
        scores_QF: Theirs.
        tied_QF: Whether each but the first is an item with the score of the one in front of it.
        ids_N: The id of each item number.
    """
    for q in np.flatnonzero(tied_QF.any(axis=1)).tolist():
        num_found = int(np.count_nonzero(numbers_QF[q] != NO_ITEM))
        ids = ids_N[numbers_QF[q, :num_found]].tolist()
        paired = zip((-scores_QF[q, :num_found]).tolist(), ids, numbers_QF[q, :num_found].tolist(), strict=True)
        numbers_QF[q, :num_found] = [number for _, _, number in sorted(paired)]
