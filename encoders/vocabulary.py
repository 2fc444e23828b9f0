"""Names to rows: items and event types as the embedding tables number them, and time gaps as buckets.

Item ids and type names are strings from outside; rows are int64 positions in an embedding table.
Row 0 pads, row 1 stands for whatever training did not see, names start at row 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from encoders.contract import NO_GAP_MS, Int64Array

PAD_ROW = 0
UNKNOWN_ROW = 1
FIRST_NAME_ROW = 2

FIRST_EVENT_BUCKET = 0
"""The bucket of a user's first event, which has no gap."""


def default_gap_edges_ms() -> tuple[int, ...]:
    """Edges of the gap buckets: powers of two from one second to 194 days, in milliseconds.

    Below a second the order of clicks says more than their distance; above half a year all gaps are "long".
    """
    return tuple(1000 * 2**power for power in range(25))


def gap_buckets(gaps_ms: Int64Array, edges_ms: Sequence[int]) -> Int64Array:
    """Bucket of each gap: 0 for "first event", then 1 + the number of edges at or below the gap.

    Args:
        gaps_ms: int64 of any shape; every negative value counts as "first event".
        edges_ms: rising bucket edges in milliseconds.

    Returns:
        int64 of the same shape, 0 to ``len(edges_ms) + 1``.

    >>> gap_buckets(np.array([-1, 0, 1000, 5000]), [1000, 2000]).tolist()
    [0, 1, 2, 3]
    """
    positions = np.searchsorted(np.asarray(edges_ms, dtype=np.int64), gaps_ms, side="right").astype(np.int64)
    return np.where(gaps_ms <= NO_GAP_MS, FIRST_EVENT_BUCKET, positions + 1).astype(np.int64)


def _rows_by_name(names: tuple[str, ...], kind: str) -> dict[str, int]:
    rows = {name: row for row, name in enumerate(names, start=FIRST_NAME_ROW)}
    if len(rows) != len(names):
        raise ValueError(f"{len(names) - len(rows)} of {len(names)} {kind} repeat; give each once")
    return rows


@dataclass(frozen=True)
class Vocabulary:
    """The names a model was trained with, in row order.

    Args:
        item_ids: distinct item ids; the i-th has row ``i + 2``.
        type_names: distinct event type names; the i-th has row ``i + 2``.

    Raises:
        ValueError: if a name is given twice.

    >>> Vocabulary(("a", "b"), ("click",)).rows_of(["b", "new", "a"]).tolist()
    [3, 1, 2]
    """

    item_ids: tuple[str, ...]
    type_names: tuple[str, ...]

    def __post_init__(self) -> None:
        _ = self._item_rows, self._type_rows

    @cached_property
    def _item_rows(self) -> dict[str, int]:
        return _rows_by_name(self.item_ids, "item ids")

    @cached_property
    def _type_rows(self) -> dict[str, int]:
        return _rows_by_name(self.type_names, "event types")

    @property
    def num_item_rows(self) -> int:
        """Rows of the item embedding, padding and unknown included."""
        return len(self.item_ids) + FIRST_NAME_ROW

    @property
    def num_type_rows(self) -> int:
        """Rows of the event type embedding, padding and unknown included."""
        return len(self.type_names) + FIRST_NAME_ROW

    def rows_of(self, item_ids: Iterable[str]) -> Int64Array:
        """(n,) int64 rows of item ids, `UNKNOWN_ROW` for those not in the vocabulary. O(n)."""
        rows = self._item_rows
        return np.fromiter((rows.get(name, UNKNOWN_ROW) for name in item_ids), dtype=np.int64)

    def type_rows_of(self, names: Iterable[str]) -> Int64Array:
        """(n,) int64 rows of event types, `UNKNOWN_ROW` for those not in the vocabulary. O(n)."""
        rows = self._type_rows
        return np.fromiter((rows.get(name, UNKNOWN_ROW) for name in names), dtype=np.int64)
