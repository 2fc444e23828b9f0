"""What a filter keeps of a main segment: where that is little, it is searched exactly, and by itself.

Shape suffixes: M items kept, N item numbers, R rows of the main segment.
"""

from __future__ import annotations

import threading
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np

from index.attributes import FilterView
from index.contract import BoolArray, Int32Array
from index.flat import FlatSegment
from index.main_segment import MainSegment

FEW: Final = 50_000
"""Items up to which a scan costs less than a search by parts that passes over the others: 3% of a million took 3.1 ms
a query by parts (for a recall of .9998), and a tenth of that by a scan. A copy of so many takes 13 MB at 64
dimensions."""


LEAST_SHARE: Final = 0.05
"""Of the main segment: where fewer are kept, a structure that cannot pass over the others would fetch too many of
them."""


class KeptPart:
    """The current items of a main segment that a filter keeps, as they were at one moment.

    Args:
        kept_N: Which item numbers the filter keeps.
        main: The main segment.
        row_of_N: Its row of each current number.
    """

    def __init__(self, kept_N: BoolArray, main: MainSegment, row_of_N: Int32Array) -> None:
        numbers_M = np.flatnonzero(kept_N)
        rows_M = row_of_N[numbers_M]
        is_current_M = rows_M >= 0
        self.main = main
        self._numbers_M = numbers_M[is_current_M]
        self._rows_M = rows_M[is_current_M]
        self.share = max(1, len(self._rows_M)) / len(main.numbers_R)
        """Of the main segment's rows; never 0."""
        self._segment: FlatSegment | None = None
        self._lock = threading.Lock()

    def segment(self, num_threads: int) -> FlatSegment | None:
        """The items in a segment of their own, which nobody may change; None where they are so many that the main
        segment is to be searched. The first call copies their vectors."""
        is_much = self.main.structure.takes_selector or self.share >= LEAST_SHARE
        if len(self._rows_M) > FEW and is_much:
            return None
        with self._lock:
            if self._segment is None:
                segment = FlatSegment(self.main.vectors_RD.shape[1], num_threads)
                segment.put(self._numbers_M, self.main.vectors_RD[self._rows_M])
                self._segment = segment
            return self._segment


class KeptParts:
    """What the filters in use keep of the main segment, found anew when a filter keeps other items."""

    def __init__(self) -> None:
        self._parts: WeakKeyDictionary[FilterView, tuple[int, KeptPart]] = WeakKeyDictionary()

    def find(self, view: FilterView, main: MainSegment, row_of_N: Int32Array) -> KeptPart:
        """What a filter keeps. O(N) where that is news."""
        num_changes, part = self._parts.get(view, (-1, None))
        if part is None or num_changes != view.num_changes or part.main is not main:
            part = KeptPart(view.kept_N, main, row_of_N)
            self._parts[view] = (view.num_changes, part)
        return part
