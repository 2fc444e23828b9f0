"""Items for tests of lists: vectors by id, as an index would have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stream_app.stages.item_columns import ItemColumns


class HeldVectors:
    """Vectors by id and number; each version has other numbers.

    Args:
        vectors: By item id.
        dim: Of each.
    """

    def __init__(self, vectors: Mapping[str, Sequence[float] | npt.NDArray[np.floating]], dim: int) -> None:
        self.version = 0
        self._dim = dim
        self.put(vectors)

    def put(self, vectors: Mapping[str, Sequence[float] | npt.NDArray[np.floating]]) -> None:
        """Have these vectors from now on, and no others."""
        self.version += 1
        self._ids = sorted(vectors, reverse=self.version % 2 == 0)
        # The last row, which the number -1 means too, is nobody's.
        rows = [*(vectors[item_id] for item_id in self._ids), [0.0] * self._dim]
        self._vectors_ND = np.array(rows, dtype=np.float32)

    def numbers_of(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        return np.array([self._ids.index(item_id) if item_id in self._ids else -1 for item_id in ids], dtype=np.int64)

    def vectors_at(self, numbers_M: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self._vectors_ND[numbers_M]


def items_of(
    vectors: Mapping[str, Sequence[float] | npt.NDArray[np.floating]],
    dim: int,
    is_available: Callable[[str], bool] = lambda _: True,
) -> ItemColumns:
    """Items with these vectors."""
    return ItemColumns(HeldVectors(vectors, dim), is_available)
