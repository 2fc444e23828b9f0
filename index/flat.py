"""A segment that is exact and changes in place: FAISS finds candidates, the contract's own score decides between them.

Shape suffixes: R rows, N item numbers, D dimensions, Q queries, A of them asked, F candidates fetched per query, K
answered, M numbers asked for.

How it stays exact. FAISS adds up inner products in an order that depends on the batch and the processor, and
cuts ties anywhere. So more candidates than wanted are fetched, scored again by `inner_products`, and the
answer is taken only if the K-th best is so far above FAISS's last candidate that rounding cannot have hidden
a better one. Else more are fetched. Cost of a search: one FAISS scan O(R·D) per round, mostly one round; many
items with the very same vector at the K-th place cost more rounds, log4(R/K) at most.

How it removes. The last row moves into the hole and the tail is cut off, so there are no tombstones to filter
and nothing to compact. Rows are private and may move; numbers are what the outside sees.

Not safe for changes beside anything else; several searches at once are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from index.checks import norms
from index.contract import BoolArray, Float32Array, Int32Array, Int64Array, inner_products
from index.faiss_options import scan_options
from index.numbers import grown
from index.ordering import NO_ITEM, NO_SCORE, Found, best_of

EXTRA_CANDIDATES = 16
"""Fetched beyond k in the first round: enough where no ties are, and cheap beside the scan."""

WIDEN = 4
"""Factor between rounds. A scan costs about the same for any number fetched, so few rounds beat small
ones."""

SCORED_AT_ONCE = 1 << 21
"""Floats gathered at once when scoring again (8 MiB): bounds memory for batches of 512 queries."""

NO_ROW = -1

Usable = Callable[[Int64Array, Int64Array], BoolArray]
"""Which candidates may be answered, bool (Q, F), of the numbers of the queries, shape (Q,), and item numbers (Q, F)."""


@dataclass(frozen=True, eq=False, slots=True)
class _Scan:
    """What is the same for all rounds of a search; see `FlatSegment.search`."""

    num_found: int
    ids_N: npt.NDArray[np.object_]
    options: Any
    is_usable: Usable | None


class FlatSegment:
    """Vectors by item number over a flat FAISS index on the CPU: exact answers, vectors held once.

    Args:
        dim: Dimensions of every vector.
        num_threads: Threads FAISS may use for a batch of queries. A single query uses one.
    """

    def __init__(self, dim: int, num_threads: int) -> None:
        self._dim = dim
        self._num_threads = num_threads
        self._flat: Any = faiss.IndexFlatIP(dim)
        self._numbers: Int64Array = np.empty(0, dtype=np.int64)
        self._num_rows = 0
        self._row_of_N: Int32Array | None = None
        """The row of each number, `NO_ROW` for those that are not here. None until asked for: a segment that is only
        searched needs none, and its numbers may be few of many."""
        self._max_norm = 0.0

    def __len__(self) -> int:
        return self._num_rows

    def holds(self, numbers_M: Int64Array) -> BoolArray:
        """Whether each item is here."""
        return self._rows_of(numbers_M) >= 0

    @property
    def numbers_R(self) -> Int64Array:
        """The item number of each row; holds until the next change."""
        return self._numbers[: self._num_rows]

    @property
    def vectors_RD(self) -> Float32Array:
        """FAISS's own memory as an array, writable. Holds until the next change: never keep it."""
        if self._num_rows == 0:
            return np.empty((0, self._dim), dtype=np.float32)
        flat: Float32Array = faiss.rev_swig_ptr(self._flat.get_xb(), self._num_rows * self._dim)
        return flat.reshape(self._num_rows, self._dim)

    def put(self, numbers_M: Int64Array, vectors_MD: Float32Array) -> None:
        """Insert vectors, or replace them, each number once. Costs O(M·D), whatever the size of the segment."""
        if not len(numbers_M):
            return
        rows_M = self._rows_of(numbers_M)
        is_new_M = rows_M < 0
        if not is_new_M.all():
            self.vectors_RD[rows_M[~is_new_M]] = vectors_MD[~is_new_M]
        if is_new_M.any():
            self._append(numbers_M[is_new_M], vectors_MD[is_new_M])
        self._max_norm = max(self._max_norm, float(norms(vectors_MD).max()))

    def remove(self, numbers_M: Int64Array) -> None:
        """Remove items; those that are not here are ignored. Costs O(R) per call, O(D) per item."""
        num_before, vectors_RD = self._num_rows, self.vectors_RD
        for number in np.unique(numbers_M[self.holds(numbers_M)]).tolist():
            self._take_out(number, self._row_map(0), vectors_RD)
        if self._num_rows < num_before:
            self._flat.remove_ids(faiss.IDSelectorRange(self._num_rows, num_before))

    def vectors_of(self, numbers_M: Int64Array) -> tuple[Float32Array, BoolArray]:
        """Copies of vectors, shape (M, D), zeros where the item is not here; and whether each is, shape (M,)."""
        rows_M = self._rows_of(numbers_M)
        found_M = rows_M >= 0
        if found_M.all():
            return self.vectors_RD.take(rows_M, axis=0), found_M
        vectors_MD = np.zeros((len(numbers_M), self._dim), dtype=np.float32)
        vectors_MD[found_M] = self.vectors_RD[rows_M[found_M]]
        return vectors_MD, found_M

    def search(
        self,
        queries_QD: Float32Array,
        k: int,
        ids_N: npt.NDArray[np.object_],
        *,
        kept_N: BoolArray | None = None,
        is_usable: Usable | None = None,
    ) -> Found:
        """The best k for each query, of those that are kept and usable.

        Args:
            queries_QD: Queries, checked.
            k: At least 1.
            ids_N: The id of each item number, which decides between equal scores.
            kept_N: Which item numbers may be answered at all; FAISS passes over the others.
            is_usable: Which of the candidates may be answered to their query; asked after FAISS. None: all.
        """
        kept_R = None if kept_N is None else kept_N[self.numbers_R]
        num_kept = len(self) if kept_R is None else int(np.count_nonzero(kept_R))
        options = scan_options(kept_R)
        num_found = min(k, num_kept)
        if not num_found or not len(queries_QD):
            return Found.nothing(len(queries_QD), num_found)
        faiss.omp_set_num_threads(self._num_threads)  # OpenMP keeps it per calling thread
        every_Q = np.arange(len(queries_QD))
        num_fetched = min(num_found + EXTRA_CANDIDATES, num_kept)
        scan = _Scan(num_found, ids_N, options, is_usable)
        found, is_decided_Q = self._round(queries_QD, every_Q, num_fetched, scan)
        open_Q = every_Q[~is_decided_Q]
        while len(open_Q) and num_fetched < num_kept:
            num_fetched = min(num_fetched * WIDEN, num_kept)
            again, is_decided_Q = self._round(queries_QD, open_Q, num_fetched, scan)
            found.put(open_Q, again)
            open_Q = open_Q[~is_decided_Q]
        return found

    def _round(
        self, queries_QD: Float32Array, asked_A: Int64Array, num_fetched: int, scan: _Scan
    ) -> tuple[Found, BoolArray]:
        """The best for some of the queries by number, of so many candidates each, and whether there can be no better
        ones."""
        size = max(1, SCORED_AT_ONCE // (num_fetched * self._dim))
        parts = [asked_A[start : start + size] for start in range(0, len(asked_A), size)]
        made = [self._best(queries_QD.take(part, axis=0), part, num_fetched, scan) for part in parts]
        if len(made) == 1:
            return made[0]
        numbers_AK = np.concatenate([found.numbers_QK for found, _ in made])
        scores_AK = np.concatenate([found.scores_QK for found, _ in made])
        return Found(numbers_AK, scores_AK), np.concatenate([is_decided_A for _, is_decided_A in made])

    def _best(
        self, queries_AD: Float32Array, asked_A: Int64Array, num_fetched: int, scan: _Scan
    ) -> tuple[Found, BoolArray]:
        """`_round` for a few."""
        rough_AF, rows_AF = self._flat.search(queries_AD, num_fetched, params=scan.options)
        scores_AF = inner_products(self.vectors_RD.take(rows_AF, axis=0), queries_AD[:, None, :])
        numbers_AF = self._numbers.take(rows_AF)
        if scan.is_usable is not None:
            scores_AF[~scan.is_usable(asked_A, numbers_AF)] = NO_SCORE
        found = best_of(numbers_AF, scores_AF, scan.num_found, scan.ids_N)
        # Below it others may lie that are not among the candidates.
        floor_A = rough_AF[:, -1] + self._rounding(queries_AD)
        return found, found.scores_QK[:, -1] > floor_A

    def _rows_of(self, numbers_M: Int64Array) -> Int32Array:
        """Rows of items, `NO_ROW` for those that are not here; negative numbers are nobody's."""
        if not self._num_rows:
            return np.full(len(numbers_M), NO_ROW, dtype=np.int32)
        row_of_N = self._row_map(0)
        rows_M = np.take(row_of_N, numbers_M, mode="clip")
        rows_M[(numbers_M < 0) | (numbers_M >= len(row_of_N))] = NO_ROW
        return rows_M

    def _row_map(self, num_numbers: int) -> Int32Array:
        """`_row_of_N`, with a place for each number below `num_numbers` and of those that are here."""
        if self._row_of_N is None:
            num_numbers = max(num_numbers, int(self.numbers_R.max(initial=-1)) + 1)
            self._row_of_N = np.full(num_numbers, NO_ROW, dtype=np.int32)
            self._row_of_N[self.numbers_R] = np.arange(self._num_rows)
        elif num_numbers > len(self._row_of_N):
            self._row_of_N = grown(self._row_of_N, max(num_numbers, 2 * len(self._row_of_N)), NO_ROW)
        return self._row_of_N

    def _append(self, numbers_M: Int64Array, vectors_MD: Float32Array) -> None:
        first, end = self._num_rows, self._num_rows + len(numbers_M)
        self._flat.add(np.ascontiguousarray(vectors_MD))
        if end > len(self._numbers):
            self._numbers = grown(self._numbers, max(end, 2 * first), NO_ITEM)
        self._numbers[first:end] = numbers_M
        if self._row_of_N is not None:
            self._row_map(int(numbers_M.max()) + 1)[numbers_M] = np.arange(first, end)
        self._num_rows = end

    def _take_out(self, number: int, row_of_N: Int32Array, vectors_RD: Float32Array) -> None:
        """Forget an item: the last row moves into the hole."""
        hole, last_row = int(row_of_N[number]), self._num_rows - 1
        row_of_N[number] = NO_ROW
        self._num_rows = last_row
        if hole != last_row:
            last_number = int(self._numbers[last_row])
            vectors_RD[hole] = vectors_RD[last_row]
            self._numbers[hole] = last_number
            row_of_N[last_number] = hole

    def _rounding(self, queries_QD: Float32Array) -> Float32Array:
        """The most by which FAISS's and our inner products of one pair can differ, shape (Q,).

        Each strays from the true value by at most D·2⁻²⁴·|x|·|q| to first order (Higham, Accuracy and
        Stability of Numerical Algorithms, section 3.1), whatever the order of the sum; doubled once for the
        two sides, and once more for the higher orders. The constant covers products too small for normal
        float32.
        """
        relative = 4 * self._dim * 2.0**-24
        tiny = 4 * self._dim * float(np.finfo(np.float32).tiny)
        return np.asarray(relative * self._max_norm * norms(queries_QD) + tiny, dtype=np.float32)
