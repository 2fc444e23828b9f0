"""Which structure is for how many items, and when a main segment is due to be rebuilt."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from index.structures import StructureKind

DELTA_SHARE: Final = 0.01
"""Of the main segment: the delta is scanned by every search."""
LEAST_DELTA: Final = 4096
"""Items that a delta may have whatever the main segment: a scan of them takes 20 µs."""
TOMBSTONE_SHARE: Final = 0.2
"""Of the main segment's rows."""
MAX_BACKOFFS: Final = 6
"""After a refusal a delta has to be twice as large for the next try, and so on, so many times."""


@dataclass(frozen=True, slots=True)
class SizeRule:
    """Up to how many items which structure serves.

    Attributes:
        flat: No main segment: everything is exact.
        hnsw: A graph; beyond, an inverted file. Below `flat`: never a graph.
        kind: One structure for all above `flat`; None: by size, and the GPU where there is one.
    """

    flat: int = 50_000
    hnsw: int = 0
    kind: StructureKind | None = None

    def kind_for(self, num_items: int, num_gpus: int) -> StructureKind | None:
        """The structure of the main segment; None where there is to be none.

        >>> [SizeRule(10, 100).kind_for(items, 0) for items in (10, 100, 101)]
        [None, 'hnsw', 'ivf']
        """
        if num_items <= self.flat:
            return None
        if self.kind is not None:
            return self.kind
        if num_gpus > 0:
            return "gpu"
        return "hnsw" if num_items <= self.hnsw else "ivf"

    def is_due(self, num_main_rows: int, num_tombstones: int, num_delta: int, num_refusals: int) -> bool:
        """Whether the main segment should be built or rebuilt.

        Args:
            num_main_rows: Rows of the main segment, tombstones too.
            num_tombstones: Those of them that count no longer.
            num_delta: Items in the delta.
            num_refusals: How often in a row a new one was refused.
        """
        patience = 1 << min(num_refusals, MAX_BACKOFFS)
        if num_main_rows == 0:
            return num_delta > self.flat * patience
        most_delta = max(LEAST_DELTA, int(DELTA_SHARE * num_main_rows)) * patience
        return num_delta > most_delta or num_tombstones > TOMBSTONE_SHARE * num_main_rows * patience


ALWAYS_FLAT: Final = SizeRule(flat=sys.maxsize)
"""Never a main segment: exact, whatever the number of items."""
