"""Item numbers: a small integer for each item id, as long as the item is known.

FAISS and arrays go by numbers. A number does not move when segments are rebuilt; after its item is gone, another item
may get it. Not safe for use from several threads at once.

Shape suffixes: N numbers handed out so far and spare ones, M ids asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from index.contract import Int64Array

MIN_CAPACITY = 64

Scalar = TypeVar("Scalar", bound=np.generic)


class ItemNumbers:
    """The two ways between ids and numbers."""

    def __init__(self) -> None:
        self._number_of: dict[str, int] = {}
        self._free: list[int] = []
        self._num_used = 0
        self.ids_N: npt.NDArray[np.object_] = np.empty(MIN_CAPACITY, dtype=np.object_)
        """The id of each number; None where there is none. Another array after it grew."""

    def __len__(self) -> int:
        return len(self._number_of)

    @property
    def capacity(self) -> int:
        """All numbers are below it."""
        return len(self.ids_N)

    def find(self, ids: Sequence[str]) -> Int64Array:
        """Int64, shape (M,): the numbers of ids, -1 where there is none."""
        return np.fromiter(map(self._number_of.get, ids, repeat(-1)), dtype=np.int64, count=len(ids))

    def assign(self, ids: Sequence[str]) -> tuple[Int64Array, Int64Array]:
        """Give numbers to those that have none.

        Args:
            ids: Each once.

        Returns:
            The numbers of all, and those that are new.
        """
        numbers_M = self.find(ids)
        new_places = np.flatnonzero(numbers_M < 0)
        new = self._next(len(new_places))
        numbers_M[new_places] = new
        if self._num_used > self.capacity:
            self.ids_N = grown(self.ids_N, max(self._num_used, 2 * self.capacity), None)
        new_ids = [ids[place] for place in new_places.tolist()]
        self._number_of.update(zip(new_ids, new.tolist(), strict=True))
        self.ids_N[new] = np.array(new_ids, dtype=np.object_)
        return numbers_M, new

    def release(self, number: int) -> None:
        """Forget the item of a number."""
        del self._number_of[self.ids_N[number]]
        self.ids_N[number] = None
        self._free.append(number)

    def _next(self, num: int) -> Int64Array:
        """So many numbers: those given back first, the last one before the others."""
        again = [self._free.pop() for _ in range(min(num, len(self._free)))]
        first = self._num_used
        self._num_used += num - len(again)
        return np.concatenate([np.array(again, dtype=np.int64), np.arange(first, self._num_used)])


def grown(array_N: npt.NDArray[Scalar], num_rows: int, filler: object) -> npt.NDArray[Scalar]:
    """The array itself where it has so many rows, else a longer copy, the new rows filled."""
    if len(array_N) >= num_rows:
        return array_N
    longer = np.full((num_rows, *array_N.shape[1:]), filler, dtype=array_N.dtype)
    longer[: len(array_N)] = array_N
    return longer
