"""What followed one item, in an array: a popular item is followed by hundreds, and every list asks for ten of them.

Shapes: K items that followed it, 4 columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROW, SHORT, LONG, EPOCH = range(4)
"""Columns of what stands near an item: row of the other item (exact: rows are far below 2^53), its decayed counts of
short and of long memory, and the epoch at whose end these are of."""


class Followers:
    """The items that followed one item, each with decayed counts and the epoch that they are of."""

    __slots__ = ("_places", "_table_K4")

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._table_K4: Floats = np.zeros((4, 4))

    def __len__(self) -> int:
        return len(self._places)

    @property
    def table_K4(self) -> Floats:
        """All of them in no order, columns as above; valid until the next change."""
        return self._table_K4[: len(self._places)]

    def put(self, row: int, short: float, long: float, epoch: int) -> None:
        """Set the counts of an item as of the end of `epoch`."""
        place = self._places.setdefault(row, len(self._places))
        if place == len(self._table_K4):
            self._table_K4 = np.concatenate([self._table_K4, np.zeros_like(self._table_K4)])
        self._table_K4[place] = row, short, long, epoch

    def drop(self, row: int) -> None:
        """Forget an item that is there: the last one takes its place."""
        place, last = self._places.pop(row), len(self._places)
        if place != last:
            self._places[int(self._table_K4[last, ROW])] = place
            self._table_K4[place] = self._table_K4[last]
