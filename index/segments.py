"""The items of an index in two segments: a main one, which does not change, and a delta, which is exact.

A number in the main segment is *current* while the item has that vector still. When it gets another one, it goes into
the delta; the row in the main segment stays behind as a tombstone, which a search fetches and drops. Not safe for use
from several threads at once: `index.live` holds the lock.

Shape suffixes: N item numbers, R rows of the main segment, M items given, D dimensions, Q queries, F candidates, K
answered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from index.attributes import AttributeTable, FilterView
from index.contract import (
    AttributeColumns,
    BoolArray,
    Float32Array,
    Int32Array,
    Int64Array,
    Partition,
)
from index.flat import FlatSegment
from index.kept import KeptPart, KeptParts
from index.main_segment import MainSegment
from index.numbers import ItemNumbers, grown
from index.ordering import NO_ITEM

NO_ROW = -1


@dataclass(frozen=True, eq=False, slots=True)
class Frozen:
    """The items at one moment, for a new main segment or a snapshot.

    Attributes:
        numbers_R: Those with vectors: first the main segment's, in its order, then the delta's.
        main: Holds the vectors of the first ones.
        main_rows: Theirs.
        delta_MD: The vectors of the others; a copy.
    """

    numbers_R: Int64Array
    main: MainSegment | None
    main_rows: Int64Array
    delta_MD: Float32Array

    def vectors_RD(self) -> Float32Array:
        """All vectors, a copy. Takes a while; nothing need be locked for it."""
        if self.main is None:
            return self.delta_MD
        vectors = np.empty((len(self.numbers_R), self.delta_MD.shape[1]), dtype=np.float32)
        np.take(self.main.vectors_RD, self.main_rows, axis=0, out=vectors[: len(self.main_rows)], mode="clip")
        vectors[len(self.main_rows) :] = self.delta_MD
        return vectors

    def partition(self) -> Partition | None:
        """The main segment's, where it has one; those of the delta have no part yet."""
        parts = None if self.main is None else self.main.partition
        if parts is None:
            return None
        undecided = np.full(len(self.delta_MD), -1, dtype=np.int32)
        return Partition(parts.centres_PD, np.concatenate([parts.parts_N[self.main_rows], undecided]))


class SegmentedItems:
    """Ids, attributes, a main segment with tombstones, and a delta.

    Args:
        dim: Dimensions of every vector.
        num_threads: Threads FAISS may use for a batch of queries.
    """

    def __init__(self, dim: int, num_threads: int) -> None:
        self._num_threads = num_threads
        self.numbers = ItemNumbers()
        self.attributes = AttributeTable()
        self.delta = FlatSegment(dim, num_threads)
        self.main: MainSegment | None = None
        self.row_of_N: Int32Array = np.empty(0, dtype=np.int32)
        """The row in the main segment of each number that is current there, else `NO_ROW`."""
        self.num_current = 0
        """Items whose vector is in the main segment."""
        self._kept_parts = KeptParts()
        self._touched: set[int] | None = None
        """Numbers whose vector changed since `freeze`; None where nothing is frozen."""

    def __len__(self) -> int:
        return self.num_current + len(self.delta)

    @property
    def num_tombstones(self) -> int:
        """Rows of the main segment that are no longer current."""
        return 0 if self.main is None else len(self.main.numbers_R) - self.num_current

    def upsert(self, ids: Sequence[str], vectors_MD: Float32Array) -> None:
        """Insert or replace; where an id comes twice, the last one counts."""
        place_of = {item_id: place for place, item_id in enumerate(ids)}
        numbers_M = self._assign(list(place_of))
        self._bury(numbers_M)
        self.delta.put(numbers_M, vectors_MD[list(place_of.values())])

    def remove(self, ids: Sequence[str]) -> int:
        """Remove vectors; the number of items that had one."""
        num_before = len(self)
        numbers_M = self._known(ids)
        self._bury(numbers_M)
        self.delta.remove(numbers_M)
        self._release(numbers_M[~self.attributes.is_told(numbers_M)])
        return num_before - len(self)

    def put_attributes(self, columns: AttributeColumns) -> None:
        """Set attributes; no id comes twice."""
        self.attributes.put(self._assign(columns.ids), columns)

    def remove_attributes(self, ids: Sequence[str]) -> int:
        """Forget attributes; of how many items something was told."""
        numbers_M = self._known(ids)
        told_M = numbers_M[self.attributes.is_told(numbers_M)]
        self.attributes.clear(told_M)
        self._release(told_M[~self._has_vector(told_M)])
        return len(told_M)

    def vectors_of(self, ids: Sequence[str]) -> tuple[Float32Array, BoolArray]:
        """As `ItemIndex.vectors_of`."""
        return self.vectors_at(self.numbers.find(ids))

    def numbers_of(self, ids: Sequence[str]) -> Int64Array:
        """As `ItemIndex.numbers_of`."""
        numbers_M = self.numbers.find(ids)
        numbers_M[~self._has_vector(numbers_M)] = NO_ITEM
        return numbers_M

    def vectors_at(self, numbers_M: Int64Array) -> tuple[Float32Array, BoolArray]:
        """The vectors of items by number, zeros where there is none, and whether there is one."""
        vectors_MD, found_M = self.delta.vectors_of(numbers_M)
        if self.main is not None:
            current_M = self.is_current(numbers_M)
            vectors_MD[current_M] = self.main.vectors_RD[self.row_of_N[numbers_M[current_M]]]
            found_M |= current_M
        return vectors_MD, found_M

    def is_current(self, numbers: Int64Array) -> BoolArray:
        """Whether the main segment has the vector of each; false for `NO_ITEM`. Any shape."""
        return np.asarray((self.row_of_N[numbers] != NO_ROW) & (numbers >= 0))

    def kept_part(self, view: FilterView) -> KeptPart | None:
        """What a filter keeps of the main segment; None where there is no main segment."""
        return None if self.main is None else self._kept_parts.find(view, self.main, self.row_of_N)

    def banned(self, exclude: Sequence[Collection[str]] | None) -> BannedPairs | None:
        """The exclusions of a search by item number; None where there are none."""
        if exclude is None or not any(exclude):
            return None
        numbers_Q = [self.numbers.find(list(ids)) for ids in exclude]
        return BannedPairs(numbers_Q, self.numbers.capacity)

    def expect(self, ids: Sequence[str], vectors_MD: Float32Array) -> Frozen:
        """Number items, each once, whose vectors `install` will bring, where there are none yet. Kept, not copied."""
        self._touched = set()
        return Frozen(self._assign(ids), None, np.empty(0, dtype=np.int64), vectors_MD)

    def freeze(self) -> Frozen:
        """As `frozen`. Changes go on, and what they touch is remembered for `install`."""
        self._touched = set()
        return self.frozen()

    def frozen(self) -> Frozen:
        """The items now."""
        delta_numbers, delta_MD = self.delta.numbers_R.copy(), self.delta.vectors_RD.copy()
        if self.main is None:
            return Frozen(delta_numbers, None, np.empty(0, dtype=np.int64), delta_MD)
        rows = np.flatnonzero(self.is_current(self.main.numbers_R))
        return Frozen(np.concatenate([self.main.numbers_R[rows], delta_numbers]), self.main, rows, delta_MD)

    def dissolve(self) -> None:
        """Have all items in the delta, and no main segment. Costs O(R·D)."""
        if self.main is not None:
            numbers_R = self.main.numbers_R[self.is_current(self.main.numbers_R)]
            self.delta.put(numbers_R, self.main.vectors_RD[self.row_of_N[numbers_R]])
            self.main, self.num_current = None, 0
            self.row_of_N[:] = NO_ROW

    def forget_frozen(self) -> None:
        """Nothing will be installed."""
        self._touched = None

    def install(self, main: MainSegment, row_of_N: Int32Array) -> None:
        """Put a new main segment in the place of both segments, as they were at `freeze`; what was touched since stays
        in the delta, or gone.

        Args:
            main: Of the items frozen.
            row_of_N: The row in it of each number, `NO_ROW` for others.
        """
        assert self._touched is not None, "freeze comes before install"
        touched = np.fromiter(self._touched, dtype=np.int64, count=len(self._touched))
        row_of_N = grown(row_of_N, self.numbers.capacity, NO_ROW)
        self.num_current = len(main.numbers_R) - int(np.count_nonzero(row_of_N[touched] != NO_ROW))
        row_of_N[touched] = NO_ROW
        vectors_MD, in_delta_M = self.delta.vectors_of(touched)
        delta = FlatSegment(vectors_MD.shape[1], self._num_threads)
        delta.put(touched[in_delta_M], vectors_MD[in_delta_M])
        self.main, self.row_of_N, self.delta = main, row_of_N, delta
        self._touched = None

    def _known(self, ids: Sequence[str]) -> Int64Array:
        """The numbers of those ids that have one, each once."""
        numbers_M = self.numbers.find(list(dict.fromkeys(ids)))
        return numbers_M[numbers_M >= 0]

    def _assign(self, ids: Sequence[str]) -> Int64Array:
        numbers_M, _ = self.numbers.assign(ids)
        self.attributes.grow(self.numbers.capacity)
        self.row_of_N = grown(self.row_of_N, self.numbers.capacity, NO_ROW)
        return numbers_M

    def _has_vector(self, numbers_M: Int64Array) -> BoolArray:
        held_M = self.delta.holds(numbers_M)
        return held_M if self.main is None else held_M | self.is_current(numbers_M)

    def _bury(self, numbers_M: Int64Array) -> None:
        """The main segment's vectors of these count no longer."""
        self.num_current -= int(np.count_nonzero(self.row_of_N[numbers_M] != NO_ROW))
        self.row_of_N[numbers_M] = NO_ROW
        if self._touched is not None:
            self._touched.update(numbers_M.tolist())

    def _release(self, numbers_M: Int64Array) -> None:
        """Give back the numbers of items of which nothing is left."""
        for number in numbers_M.tolist():
            self.numbers.release(number)


class BannedPairs:
    """Exclusions, to be asked of candidates of many queries at once.

    Args:
        numbers_Q: For each query the numbers excluded; negative ones are ignored.
        num_numbers: All numbers are below it.
    """

    def __init__(self, numbers_Q: Sequence[Int64Array], num_numbers: int) -> None:
        self._stride = num_numbers
        pairs = [query * num_numbers + numbers[numbers >= 0] for query, numbers in enumerate(numbers_Q)]
        self._pairs = np.sort(np.concatenate(pairs))

    def holds(self, queries: Int64Array, numbers_QF: Int64Array) -> BoolArray:
        """Whether each candidate (Q, F) is excluded for its query; `queries` are their numbers, (Q,)."""
        if not len(self._pairs):
            return np.zeros(numbers_QF.shape, dtype=np.bool_)
        wanted_QF = queries[:, None] * self._stride + numbers_QF
        places_QF = np.searchsorted(self._pairs, wanted_QF).clip(max=len(self._pairs) - 1)
        return np.asarray((self._pairs[places_QF] == wanted_QF) & (numbers_QF >= 0))
