"""What lists need to know of items beside the trends, by row there: looked up by id once, until something changes.

Lists come to the same items again and again, and a look at an id costs as much as several at an array.

Shapes: R rows asked for, N rows of a view, M items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from stream_app.stages.trend_view import TrendView

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

UNKNOWN = -2
"""In the place of a number that was not looked up yet."""


class VectorsByNumber(Protocol):
    """Vectors of items, as an item index has them."""

    @property
    def version(self) -> int:
        """Another one after every change."""
        ...

    def numbers_of(self, ids: Sequence[str]) -> Ints:
        """The number (M,) of each item's vector in this version, -1 where it has none."""
        ...

    def vectors_at(self, numbers_M: Ints) -> npt.NDArray[np.float32]:
        """Vectors (M, D) by number, zeros for -1."""
        ...


class ViewColumns:
    """What was looked up of the items of one view in one state of the index and the catalogue.

    Args:
        view: The view.
        vectors: The items' vectors.
        is_available: Whether an item may be listed.
    """

    def __init__(self, view: TrendView, vectors: VectorsByNumber, is_available: Callable[[str], bool]) -> None:
        self._ids = view.item_ids
        self._vectors = vectors
        self.is_available = is_available
        self._numbers_N: Ints = np.full(len(view), UNKNOWN)
        self._available_N: Bools = np.zeros(len(view), dtype=np.bool_)

    def available(self, rows_R: Ints) -> Bools:
        """Whether the items of rows may be listed."""
        self._know(rows_R)
        return self._available_N.take(rows_R)

    def numbers(self, rows_R: Ints) -> Ints:
        """The numbers of the vectors of the items of rows, -1 where an item has none."""
        self._know(rows_R)
        return self._numbers_N.take(rows_R)

    def grow(self) -> None:
        """Have a place for every row of the view."""
        num_new = len(self._ids) - len(self._numbers_N)
        if num_new > 0:
            num_new += len(self._ids) // 4
            self._numbers_N = np.concatenate([self._numbers_N, np.full(num_new, UNKNOWN)])
            self._available_N = np.concatenate([self._available_N, np.zeros(num_new, dtype=np.bool_)])

    def _know(self, rows_R: Ints) -> None:
        """Look up by id what is not known yet."""
        if self._numbers_N.take(rows_R).min(initial=0) == UNKNOWN:
            rows = rows_R[self._numbers_N[rows_R] == UNKNOWN]
            ids = list(map(self._ids.__getitem__, rows.tolist()))
            self._numbers_N[rows] = self._vectors.numbers_of(ids)
            self._available_N[rows] = list(map(self.is_available, ids))


class ItemColumns:
    """Availability and vectors of items, by their rows in views of the trends.

    Args:
        vectors: The items' vectors.
        is_available: Whether an item may be listed.
        num_changes: Grows when `is_available` may answer otherwise than before.
    """

    def __init__(
        self,
        vectors: VectorsByNumber,
        is_available: Callable[[str], bool] = lambda _: True,
        num_changes: Callable[[], int] = lambda: 0,
    ) -> None:
        self.vectors = vectors
        self.is_available = is_available
        self._num_changes = num_changes
        self._state = (-1, -1)
        self._columns: WeakKeyDictionary[TrendView, ViewColumns] = WeakKeyDictionary()

    def of(self, view: TrendView) -> ViewColumns:
        """The columns of a view as of now; valid until anything changes."""
        state = self.vectors.version, self._num_changes()
        if state != self._state:
            self._state = state
            self._columns.clear()
        columns = self._columns.get(view)
        if columns is None:
            columns = self._columns[view] = ViewColumns(view, self.vectors, self.is_available)
        columns.grow()
        return columns
