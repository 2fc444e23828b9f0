"""The fast index: FAISS finds candidates, the contract's own score decides between them.

Shape suffixes: N items, D dimensions, Q queries, F candidates fetched per query, K answered, M ids asked for.

How it stays exact. FAISS adds up inner products in an order that depends on the batch and the processor, and
cuts ties anywhere. So more candidates than wanted are fetched, scored again by `inner_products`, and the
answer is taken only if the K-th best is so far above FAISS's last candidate that rounding cannot have hidden
a better one. Else more are fetched. Cost of a search: one FAISS scan O(N·D) per round, mostly one round; many
items with the very same vector at the K-th place cost more rounds, log4(N/K) at most.

How it removes. The last row moves into the hole and the tail is cut off, so there are no tombstones to filter
and nothing to compact. Rows are private and may move; ids are what the outside sees.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from index.checks import check_items, check_k, check_queries, check_shape_of_index, norms
from index.contract import BoolArray, Float32Array, SearchResult, inner_products

Int64Array = npt.NDArray[np.int64]

EXTRA_CANDIDATES = 16
"""Fetched beyond k in the first round: enough where no ties are, and cheap beside the scan."""

WIDEN = 4
"""Factor between rounds. A scan costs about the same for any number fetched, so few rounds beat small
ones."""

SCORED_AT_ONCE = 1 << 21
"""Floats gathered at once when scoring again (8 MiB): bounds memory for batches of 512 queries."""


class FaissFlatIndex:
    """`ItemIndex` over a flat FAISS index on the CPU: exact answers, vectors held once.

    One lock guards every read and write: FAISS moves its memory when it grows, and is not safe for writes
    beside anything else.

    Args:
        dim: Dimensions of every vector.
        release: The release whose vectors this index holds.
        num_threads: Threads FAISS may use for a batch of queries. A single query uses one.
    """

    def __init__(self, dim: int, release: str, *, num_threads: int = 1) -> None:
        check_shape_of_index(dim, release)
        self._dim = dim
        self._release = release
        self._num_threads = max(1, num_threads)
        self._version = 0
        self._flat: Any = faiss.IndexFlatIP(dim)
        self._ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._max_norm = 0.0
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Dimensions of every vector."""
        return self._dim

    @property
    def release(self) -> str:
        """The release that all vectors here were made by."""
        return self._release

    @property
    def version(self) -> int:
        """Number of change batches applied so far."""
        return self._version

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, queries_QD: Float32Array, k: int, *, release: str | None = None) -> SearchResult:
        """See `ItemIndex.search`."""
        check_k(k)
        queries = check_queries(queries_QD, dim=self._dim, release=self._release, given_release=release)
        with self._lock:
            # OpenMP keeps the number of threads per calling thread, so it is set where it is used.
            faiss.omp_set_num_threads(self._num_threads)
            return self._search(queries, min(k, len(self._ids)))

    def upsert(self, ids: Sequence[str], vectors_ND: Float32Array, *, release: str | None = None) -> None:
        """See `ItemIndex.upsert`. Costs O(N·D) for the N vectors given, whatever the size of the index."""
        vectors = check_items(ids, vectors_ND, dim=self._dim, release=self._release, given_release=release)
        if not ids:
            return
        position_of = {item_id: position for position, item_id in enumerate(ids)}  # the last one counts
        with self._lock:
            known = [item_id for item_id in position_of if item_id in self._row_of]
            added = [item_id for item_id in position_of if item_id not in self._row_of]
            if known:
                rows = [self._row_of[item_id] for item_id in known]
                self._rows_ND()[rows] = vectors[[position_of[item_id] for item_id in known]]
            if added:
                self._flat.add(vectors[[position_of[item_id] for item_id in added]])
                self._row_of.update((item_id, row) for row, item_id in enumerate(added, start=len(self._ids)))
                self._ids.extend(added)
            self._max_norm = max(self._max_norm, float(norms(vectors).max()))
            self._version += 1

    def remove(self, ids: Sequence[str]) -> int:
        """See `ItemIndex.remove`. Costs O(len(self)) per call, O(D) per item."""
        with self._lock:
            num_before = len(self._ids)
            rows_ND = self._rows_ND()
            for item_id in ids:
                hole = self._row_of.pop(item_id, None)
                if hole is not None:
                    self._fill(hole, rows_ND)
            num_removed = num_before - len(self._ids)
            if num_removed:
                self._flat.remove_ids(faiss.IDSelectorRange(len(self._ids), num_before))
                self._version += 1
            return num_removed

    def vectors_of(self, ids: Sequence[str]) -> tuple[Float32Array, BoolArray]:
        """See `ItemIndex.vectors_of`. Costs O(M·D)."""
        vectors_MD = np.zeros((len(ids), self._dim), dtype=np.float32)
        with self._lock:
            rows_M = np.array([self._row_of.get(item_id, -1) for item_id in ids], dtype=np.int64)
            found_M = rows_M >= 0
            vectors_MD[found_M] = self._rows_ND()[rows_M[found_M]]
        return vectors_MD, found_M

    def _rows_ND(self) -> Float32Array:
        """FAISS's own memory as an array, writable. Holds until the next add or remove: never keep it."""
        num_rows = int(self._flat.ntotal)
        if num_rows == 0:
            return np.empty((0, self._dim), dtype=np.float32)
        flat: Float32Array = faiss.rev_swig_ptr(self._flat.get_xb(), num_rows * self._dim)
        return flat.reshape(num_rows, self._dim)

    def _fill(self, hole: int, rows_ND: Float32Array) -> None:
        """Move the last row into the hole, and forget the last row."""
        last_id = self._ids.pop()
        last_row = len(self._ids)
        if hole != last_row:
            rows_ND[hole] = rows_ND[last_row]
            self._ids[hole] = last_id
            self._row_of[last_id] = hole

    def _search(self, queries_QD: Float32Array, num_found: int) -> SearchResult:
        num_queries, num_items = len(queries_QD), len(self._ids)
        ids: list[list[str]] = [[] for _ in range(num_queries)]
        scores_QK = np.empty((num_queries, num_found), dtype=np.float32)
        if num_found == 0:
            return SearchResult(ids, scores_QK, self._version)
        open_Q = np.arange(num_queries)
        num_fetched = num_found + EXTRA_CANDIDATES
        while len(open_Q):
            num_fetched = min(num_fetched, num_items)
            chunk = max(1, SCORED_AT_ONCE // (num_fetched * self._dim))
            still_open = []
            for start in range(0, len(open_Q), chunk):
                asked = open_Q[start : start + chunk]
                still_open.append(self._answer(asked, queries_QD[asked], num_fetched, ids, scores_QK))
            open_Q = np.concatenate(still_open)
            num_fetched *= WIDEN
        return SearchResult(ids, scores_QK, self._version)

    def _answer(
        self,
        asked: Int64Array,
        queries_QD: Float32Array,
        num_fetched: int,
        ids: list[list[str]],
        scores_QK: Float32Array,
    ) -> Int64Array:
        """Fill in the answers of the queries numbered `asked`; return the numbers of those left undecided."""
        num_found = scores_QK.shape[1]
        rough_QF, rows_QF = self._flat.search(queries_QD, num_fetched)
        exact_QF = inner_products(self._rows_ND()[rows_QF], queries_QD[:, None, :])
        order_QF = np.argsort(-exact_QF, axis=1, kind="stable")
        rows_QF = np.take_along_axis(rows_QF, order_QF, axis=1)
        exact_QF = np.take_along_axis(exact_QF, order_QF, axis=1)
        decided_Q = np.ones(len(asked), dtype=np.bool_)
        if num_fetched < len(self._ids):
            decided_Q = exact_QF[:, num_found - 1] > rough_QF[:, -1] + self._rounding(queries_QD)
        tied_Q = (exact_QF[:, 1:] == exact_QF[:, :-1]).any(axis=1)
        scores_QK[asked] = exact_QF[:, :num_found]  # those left undecided are written over by a later round
        for q in np.flatnonzero(decided_Q):
            found = [self._ids[row] for row in rows_QF[q].tolist()]
            if tied_Q[q]:
                found = _by_score_then_id(found, exact_QF[q])
            ids[asked[q]] = found[:num_found]
        return asked[~decided_Q]

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


def _by_score_then_id(ids: list[str], scores_F: Float32Array) -> list[str]:
    """The ids, best score first, equal scores by smaller id."""
    paired = sorted(zip((-scores_F).tolist(), ids, strict=True))
    return [item_id for _, item_id in paired]
