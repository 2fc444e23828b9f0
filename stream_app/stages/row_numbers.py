"""Rows numbered through without sorting them: what lists do with some hundreds of rows of many, several times each.

The idea is that of sparse sets (Briggs and Torczon, "An Efficient Representation for Sparse Sets", 1993): one place in
memory for each row, whose content means nothing until it is checked. So nothing is cleared between two uses.

Shapes: N rows, K rows given (of which some are the same), S different ones, C rows asked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class RowNumbers:
    """Numbers rows. Not safe for use from several threads at once."""

    def __init__(self) -> None:
        self._places_N: Ints = np.zeros(256, dtype=np.int64)

    def reserve(self, num_rows: int) -> None:
        """Have a place for each row below `num_rows`: before any of these is given or asked for."""
        if num_rows > len(self._places_N):
            self._places_N = np.zeros(max(num_rows, 2 * len(self._places_N)), dtype=np.int64)

    def distinct(self, rows_K: Ints) -> tuple[Ints, Ints]:
        """The different rows (S,) in the order in which they come first, and the place there of each that was given.

        >>> numbers = RowNumbers()
        >>> [array.tolist() for array in numbers.distinct(np.array([7, 3, 7, 5]))]
        [[7, 3, 5], [0, 1, 0, 2]]
        """
        places_K = np.arange(len(rows_K))
        # Of equal rows the last that is written stays: from behind that is the first one.
        self._places_N[rows_K[::-1]] = places_K[::-1]
        firsts_K = self._places_N.take(rows_K)
        is_first_K = firsts_K == places_K
        return rows_K[is_first_K], (is_first_K.cumsum() - 1).take(firsts_K)

    def find(self, rows_C: Ints, rows_S: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Where rows stand among others: a place for each (C,), and whether it is there at all.

        Args:
            rows_C: Rows; negative ones are nowhere.
            rows_S: Different rows.

        >>> numbers = RowNumbers()
        >>> [array.tolist() for array in numbers.find(np.array([5, 4]), np.array([7, 3, 5]))]
        [[2, 0], [True, False]]
        """
        if not len(rows_S):
            return np.zeros(len(rows_C), dtype=np.int64), np.zeros(len(rows_C), dtype=np.bool_)
        self._places_N[rows_S] = np.arange(len(rows_S))
        places_C = np.minimum(self._places_N.take(rows_C), len(rows_S) - 1)
        return places_C, rows_S.take(places_C) == rows_C
