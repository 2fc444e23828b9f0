"""What followed one item, in arrays: a popular item is followed by hundreds, and every list asks for ten of them.

Shapes: K items that followed it, M = 2 memories (short and long).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Followers:
    """The items that followed one item, by row, each with decayed counts and the epoch that they are of."""

    __slots__ = ("_counts_KM", "_epochs_K", "_places", "_rows_K")

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._rows_K: Ints = np.zeros(4, dtype=np.int64)
        self._counts_KM: Floats = np.zeros((4, 2))
        self._epochs_K: Floats = np.zeros(4)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def rows_K(self) -> Ints:
        """Rows of the items, int64, in no order; like the others valid until the next change."""
        return self._rows_K[: len(self)]

    @property
    def counts_KM(self) -> Floats:
        """Their counts, float64."""
        return self._counts_KM[: len(self)]

    @property
    def epochs_K(self) -> Floats:
        """The epochs at whose ends the counts are of, float64."""
        return self._epochs_K[: len(self)]

    def put(self, row: int, short: float, long: float, epoch: int) -> None:
        """Set the counts of an item as of the end of `epoch`."""
        place = self._places.setdefault(row, len(self._places))
        if place == len(self._rows_K):
            self._rows_K = np.concatenate([self._rows_K, np.zeros_like(self._rows_K)])
            self._counts_KM = np.concatenate([self._counts_KM, np.zeros_like(self._counts_KM)])
            self._epochs_K = np.concatenate([self._epochs_K, np.zeros_like(self._epochs_K)])
        self._rows_K[place] = row
        self._counts_KM[place] = short, long
        self._epochs_K[place] = epoch

    def drop(self, row: int) -> None:
        """Forget an item that is there: the last one takes its place."""
        place, last = self._places.pop(row), len(self._places)
        if place == last:
            return
        moved = int(self._rows_K[last])
        self._places[moved] = place
        self._rows_K[place] = moved
        self._counts_KM[place] = self._counts_KM[last]
        self._epochs_K[place] = self._epochs_K[last]
