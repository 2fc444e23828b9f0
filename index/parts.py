"""The division of many items into parts of near ones, and which parts a query should look into.

Shape suffixes: N items, M items given, D dimensions, L dimensions of the longer vectors, P parts, Q queries, F parts
found for a query.
"""

from __future__ import annotations

from typing import Any, Final

import faiss
import numpy as np

from index.contract import Float32Array, Int32Array, Int64Array, Partition
from index.rough_scores import CODE_BITS, rough_scores, train_codes

ROWS_PER_PART: Final = 250
"""Rows of a part at a million items (4,000 parts); it grows with the square root of the rows."""
TRAINED_AT: Final = 1_000_000
TRAINING_ROWS_PER_PART: Final = 32
TRAINING_ROUNDS: Final = 8
"""Of k-means. More of either made no difference to recall."""

REACH: Final = 4.0
"""Deviations from its centre at which a part's best item is thought to lie, towards the query. At a million items 3 to
5 find as much in 16 parts as 0, the order of the centres themselves, in 20."""

FEW_PARTS: Final = 1500
"""So many are all compared with a query; of more, rounded ones first (4,000: 14 instead of 30 µs)."""
ROUGH_PARTS: Final = 2
EXTRA_PARTS: Final = 16
"""Parts taken by rounded centres: so many times those wanted, and so many more."""
QUERIES_AT_ONCE: Final = 16
"""Queries compared with all centres at once. From 20 on FAISS takes a matrix product, whose sums depend on the
batch."""

ROWS_AT_ONCE: Final = 1 << 16
"""Rows whose distances are computed at once (16 MiB at 64 dimensions)."""


def new_partition(vectors_ND: Float32Array, num_threads: int) -> Partition:
    """Divide items into parts by k-means. Costs O(N·P·D): half a minute of one core at a million items of 64."""
    faiss.omp_set_num_threads(num_threads)
    means: Any = faiss.Kmeans(
        vectors_ND.shape[1],
        num_parts_for(len(vectors_ND)),
        niter=TRAINING_ROUNDS,
        seed=1,
        max_points_per_centroid=TRAINING_ROWS_PER_PART,
        min_points_per_centroid=1,
    )
    means.train(vectors_ND)
    centres_PD = np.asarray(means.centroids, dtype=np.float32)
    return Partition(centres_PD, parts_of(vectors_ND, centres_PD, num_threads))


def parts_of(vectors_MD: Float32Array, centres_PD: Float32Array, num_threads: int) -> Int32Array:
    """The part whose centre is nearest to each vector, int32, shape (M,)."""
    faiss.omp_set_num_threads(num_threads)
    centres: Any = faiss.IndexFlatL2(centres_PD.shape[1])
    centres.add(centres_PD)
    _, parts_M1 = centres.search(vectors_MD, 1)
    return np.asarray(parts_M1[:, 0], dtype=np.int32)


def num_parts_for(num_items: int) -> int:
    """Parts for so many items: as many as there are items in a part, about, times a constant.

    >>> [num_parts_for(items) for items in (1, 100_000, 1_000_000)]
    [1, 1264, 4000]
    """
    return min(num_items, max(1, int(TRAINED_AT / ROWS_PER_PART * (num_items / TRAINED_AT) ** 0.5)))


def deviations(vectors_ND: Float32Array, partition: Partition) -> Float32Array:
    """How far the items of each part lie from its centre in one direction, on average, float32, shape (P,)."""
    num_parts, dim = partition.centres_PD.shape
    squares_P = np.zeros(num_parts)
    for start in range(0, len(vectors_ND), ROWS_AT_ONCE):
        parts_M = partition.parts_N[start : start + ROWS_AT_ONCE]
        apart_MD = vectors_ND[start : start + ROWS_AT_ONCE] - partition.centres_PD[parts_M]
        squares_P += np.bincount(parts_M, np.einsum("md,md->m", apart_MD, apart_MD), num_parts)
    counts_P = np.bincount(partition.parts_N, minlength=num_parts)
    return np.asarray(np.sqrt(squares_P / np.maximum(counts_P, 1) / dim), dtype=np.float32)


class PartFinder:
    """Finds the parts in which a query's best items are likely to lie.

    A part promises ``q · c + REACH · |q| · deviation``: the inner product of a longer query and a longer centre. Each
    query's parts are the same whatever other queries share the call.

    Args:
        centres_PD: Of the parts.
        deviations_P: Of their items in one direction.
    """

    def __init__(self, centres_PD: Float32Array, deviations_P: Float32Array) -> None:
        self._reaches_P = REACH * deviations_P
        self._longer_PL = np.ascontiguousarray(np.column_stack([centres_PD, self._reaches_P]), dtype=np.float32)
        num_parts, longer_dim = self._longer_PL.shape
        self._is_rough = num_parts > FEW_PARTS
        if self._is_rough:
            self._centres: Any = faiss.IndexPQFastScan(longer_dim, longer_dim, CODE_BITS, faiss.METRIC_INNER_PRODUCT)
            train_codes(self._centres.pq, self._longer_PL)
            self._centres.is_trained = True
        else:
            self._centres = faiss.IndexFlatIP(longer_dim)
        self._centres.add(self._longer_PL)

    def find(self, queries_QD: Float32Array, num: int) -> tuple[Int64Array, Float32Array]:
        """The `num` most promising parts, best first, and the queries' inner products with their centres; both (Q, F).

        FAISS is to use one thread.
        """
        lengths_Q1 = np.sqrt(np.einsum("qd,qd->q", queries_QD, queries_QD))[:, None]
        longer_QL = np.concatenate([queries_QD, lengths_Q1], axis=1)
        parts_QF, promises_QF = self._by_rounded(longer_QL, num) if self._is_rough else self._by_all(longer_QL, num)
        return parts_QF, promises_QF - lengths_Q1 * self._reaches_P[parts_QF]

    def _by_all(self, longer_QL: Float32Array, num: int) -> tuple[Int64Array, Float32Array]:
        pieces = [longer_QL[start : start + QUERIES_AT_ONCE] for start in range(0, len(longer_QL), QUERIES_AT_ONCE)]
        promises_QF, parts_QF = zip(*(self._centres.search(piece, num) for piece in pieces), strict=True)
        return np.concatenate(parts_QF), np.concatenate(promises_QF)

    def _by_rounded(self, longer_QL: Float32Array, num: int) -> tuple[Int64Array, Float32Array]:
        num_rough = min(ROUGH_PARTS * num + EXTRA_PARTS, len(self._longer_PL))
        _, rough_QF = self._centres.search(longer_QL, num_rough)
        promises_QF = rough_scores(longer_QL, self._longer_PL, rough_QF)
        order_QF = np.argsort(-promises_QF, axis=1, kind="stable")[:, :num]
        return np.take_along_axis(rough_QF, order_QF, axis=1), np.take_along_axis(promises_QF, order_QF, axis=1)
