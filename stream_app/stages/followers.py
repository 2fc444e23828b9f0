"""What followed one item, in an array: a popular item is followed by hundreds, and every list asks for ten of them.

Shapes: K items that followed it, 4 facts of each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROW, SHORT, LONG, EPOCH = range(4)
"""The facts of what stands near an item, each in a line of its own: row of the other item (exact: rows are far below
2^53), its decayed counts of short and of long memory, and the epoch at whose end these are of."""


class Followers:
    """The items that followed one item, each with decayed counts and the epoch that they are of."""

    __slots__ = ("_places", "_table_4K")

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._table_4K: Floats = np.zeros((4, 4))

    def __len__(self) -> int:
        return len(self._places)

    @property
    def table_4K(self) -> Floats:
        """All of them in no order; valid until the next change."""
        return self._table_4K[:, : len(self._places)]

    def put(self, row: int, short: float, long: float, epoch: int) -> None:
        """Set the counts of an item as of the end of `epoch`."""
        place = self._places.setdefault(row, len(self._places))
        if place == self._table_4K.shape[1]:
            self._table_4K = np.concatenate([self._table_4K, np.zeros_like(self._table_4K)], axis=1)
        self._table_4K[:, place] = row, short, long, epoch

    def drop(self, row: int) -> None:
        """Forget an item that is there: the last one takes its place."""
        place, last = self._places.pop(row), len(self._places)
        if place != last:
            self._places[int(self._table_4K[ROW, last])] = place
            self._table_4K[:, place] = self._table_4K[:, last]
