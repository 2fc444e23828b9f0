"""One search over both segments, in three steps: plan (locked), fetch (not locked), answer (locked).

Shape suffixes: Q queries, F candidates, K answered, D dimensions, N item numbers, R rows of the main segment.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from index.attributes import FilterView
from index.contract import (
    BoolArray,
    Float32Array,
    Int32Array,
    Int64Array,
    ItemFilter,
    SearchResult,
    inner_products,
)
from index.flat import FlatSegment
from index.kept import KeptPart
from index.main_segment import MainSegment
from index.ordering import NO_SCORE, Found, best_of
from index.pool import in_threads
from index.segments import NO_ROW, BannedPairs, SegmentedItems

MOST_EXCLUSIONS_FETCHED: Final = 1024
"""Candidates fetched for exclusions beforehand; who excludes more of the best, is answered by a second look."""


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """What the fetching step needs of the items.

    Attributes:
        main: The main segment; None: the delta has everything.
        row_of_N: The main segment's row of each number. It may change meanwhile, but a row that it told stays right.
        kept_N: Which numbers the filter keeps; None: all.
        part: What the filter keeps of the main segment.
    """

    main: MainSegment | None
    row_of_N: Int32Array
    kept_N: BoolArray | None
    part: KeptPart | None


@dataclass(frozen=True, eq=False, slots=True)
class Fetched:
    """Candidates of the main segment and their scores, both (Q, F)."""

    numbers_QF: Int64Array
    scores_QF: Float32Array


class Search:
    """A search, its arguments checked.

    Args:
        queries_QD: C-contiguous float32.
        k: At least 1.
        wanted: The filter.
        exclude: For each query what is not to be answered.
        num_threads: FAISS may use so many.
    """

    def __init__(
        self,
        queries_QD: Float32Array,
        k: int,
        wanted: ItemFilter | None,
        exclude: Sequence[Collection[str]] | None,
        num_threads: int,
    ) -> None:
        self._queries_QD = queries_QD
        self._k = k
        self._wanted = wanted
        self._exclude = exclude
        self._num_threads = num_threads if len(queries_QD) > 1 else 1
        self._num_excluded = max(map(len, exclude or ()), default=0)

    def plan(self, items: SegmentedItems) -> Plan:
        """See what there is to search. O(N) at a filter's first search, and after a change of what it keeps."""
        view = self._view(items)
        if view is None:
            return Plan(items.main, items.row_of_N, None, None)
        return Plan(items.main, items.row_of_N, view.kept_N, items.kept_part(view))

    def fetch(self, plan: Plan) -> Fetched | FlatSegment | None:
        """Find candidates in the main segment; or all that the filter keeps of it, where that is little."""
        if plan.main is None or not len(self._queries_QD):
            return None
        share = 1.0
        if plan.part is not None:
            if (few := plan.part.segment(self._num_threads)) is not None:
                return few
            share = plan.part.share
        num = min(self._k + min(self._num_excluded, MOST_EXCLUSIONS_FETCHED), len(plan.main.numbers_R))
        return self._scored(plan.main, plan.row_of_N, slice(None), num, plan.kept_N, share)

    def answer(self, items: SegmentedItems, plan: Plan, fetched: Fetched | FlatSegment | None) -> Found:
        """The best k of both segments, as they are now. `items.main` is still that of the plan."""
        banned = items.banned(self._exclude)
        ids_N = items.numbers.ids_N

        def is_allowed(queries: Int64Array, numbers_QF: Int64Array) -> BoolArray:
            assert banned is not None, "asked only where something is excluded"
            return ~banned.holds(queries, numbers_QF)

        def is_usable(queries: Int64Array, numbers_QF: Int64Array) -> BoolArray:
            usable_QF = items.is_current(numbers_QF)
            if banned is not None:
                usable_QF &= is_allowed(queries, numbers_QF)
            return usable_QF if kept_N is None else usable_QF & kept_N[numbers_QF]

        # As it is now, since numbers may have come since the plan.
        view = self._view(items)
        kept_N = None if view is None else view.kept_N
        only_allowed = None if banned is None else is_allowed
        found = items.delta.search(self._queries_QD, self._k, ids_N, kept_N=kept_N, is_usable=only_allowed)
        if fetched is None or items.main is None:
            return found
        if isinstance(fetched, FlatSegment):
            of_main = fetched.search(self._queries_QD, self._k, ids_N, is_usable=is_usable)
        else:
            every = np.arange(len(self._queries_QD))
            fetched.scores_QF[~is_usable(every, fetched.numbers_QF)] = NO_SCORE
            of_main = best_of(fetched.numbers_QF, fetched.scores_QF, self._k, ids_N)
            of_main = self._completed(of_main, items, items.main, kept_N, banned)
        if not len(items.delta):
            return of_main
        numbers_QF = np.concatenate([found.numbers_QK, of_main.numbers_QK], axis=1)
        return best_of(numbers_QF, np.concatenate([found.scores_QK, of_main.scores_QK], axis=1), self._k, ids_N)

    def result(
        self, items: SegmentedItems, plan: Plan, fetched: Fetched | FlatSegment | None, version: int
    ) -> SearchResult:
        """The answer by ids."""
        found = self.answer(items, plan, fetched)
        counts_Q = found.counts_Q
        num_found = int(counts_Q.max()) if len(counts_Q) else min(self._k, len(items))
        ids = items.numbers.ids_N.take(found.numbers_QK[:, :num_found]).tolist()
        if (counts_Q < num_found).any():
            ids = [row[:count] for row, count in zip(ids, counts_Q.tolist(), strict=True)]
        scores_QK = found.scores_QK[:, :num_found]
        return SearchResult(ids, scores_QK if len(counts_Q) else np.empty((0, num_found), dtype=np.float32), version)

    def _view(self, items: SegmentedItems) -> FilterView | None:
        """What the filter keeps; None where that is everything."""
        view = None if self._wanted is None else items.attributes.view(self._wanted)
        return None if view is None or view.keeps_all else view

    def _scored(
        self,
        main: MainSegment,
        row_of_N: Int32Array,
        rows_Q: slice | Int64Array,
        num: int,
        kept_N: BoolArray | None,
        share: float,
    ) -> Fetched:
        """Candidates of some of the queries, with the contract's scores; what is no candidate has any score."""

        def fetch(queries_QD: Float32Array) -> Fetched:
            numbers_QF = main.candidates(queries_QD, num, kept_N, share)
            # Where there is no row any more, any will do; clipping spares numpy a check, and half of the time.
            vectors_QFD = np.take(main.vectors_RD, row_of_N[numbers_QF], axis=0, mode="clip")
            return Fetched(numbers_QF, inner_products(vectors_QFD, queries_QD[:, None, :]))

        parts = in_threads(fetch, self._queries_QD[rows_Q], self._num_threads)
        return Fetched(
            np.concatenate([part.numbers_QF for part in parts]), np.concatenate([part.scores_QF for part in parts])
        )

    def _completed(
        self,
        found: Found,
        items: SegmentedItems,
        main: MainSegment,
        kept_N: BoolArray | None,
        banned: BannedPairs | None,
    ) -> Found:
        """The same, but no query has fewer than k items while the main segment has more for it."""
        if (found.counts_Q >= min(self._k, items.num_current)).all():
            return found
        usable_N = items.row_of_N != NO_ROW
        if kept_N is not None:
            usable_N &= kept_N
        num_wanted = min(self._k, int(np.count_nonzero(usable_N)))
        completed = Found.nothing(len(self._queries_QD), num_wanted)
        completed.put(np.arange(len(self._queries_QD)), found)
        if main.structure.takes_selector:
            short_Q = np.flatnonzero(completed.counts_Q < num_wanted)
            completed.put(short_Q, self._looked_again(short_Q, items, main, usable_N, banned))
        for query in np.flatnonzero(completed.counts_Q < num_wanted).tolist():
            completed.put(np.array([query]), self._scanned(query, items, main, usable_N, banned))
        return completed

    def _looked_again(
        self,
        queries: Int64Array,
        items: SegmentedItems,
        main: MainSegment,
        usable_N: BoolArray,
        banned: BannedPairs | None,
    ) -> Found:
        """The best k for some of the queries, tombstones being passed over."""
        num, share = self._k + self._num_excluded, max(1, int(np.count_nonzero(usable_N))) / len(main.numbers_R)
        again = self._scored(main, items.row_of_N, queries, num, usable_N, share)
        allowed_QF = items.is_current(again.numbers_QF)
        if banned is not None:
            allowed_QF &= ~banned.holds(queries, again.numbers_QF)
        again.scores_QF[~allowed_QF] = NO_SCORE
        return best_of(again.numbers_QF, again.scores_QF, self._k, items.numbers.ids_N)

    def _scanned(
        self, query: int, items: SegmentedItems, main: MainSegment, usable_N: BoolArray, banned: BannedPairs | None
    ) -> Found:
        """The best k usable items of the main segment for one query, by a scan of all of it."""
        usable_R = usable_N[main.numbers_R]
        if banned is not None:
            usable_R &= ~banned.holds(np.array([query]), main.numbers_R[None])[0]
        rows = main.best_rows(self._queries_QD[query], self._k, usable_R)
        scores_1F = inner_products(main.vectors_RD[rows], self._queries_QD[query])[None]
        return best_of(main.numbers_R[rows][None], scores_1F, self._k, items.numbers.ids_N)
