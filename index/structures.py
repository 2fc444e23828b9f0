"""What finds candidates in a main segment: a flat scan, an inverted file, a graph, or the GPU.

None of them decides anything: candidates are scored again by the contract's own score. Each is immutable once built,
and each query's candidates are the same whatever other queries share the call.

**Inverted file.** Items lie in the part whose centre is nearest; a query looks into the parts whose centres have the
greatest inner products with it. (FAISS by itself would assign items by inner product too, which draws them to long
centres: at a million items 16 parts then find 70% of the best 50, instead of 97%.) Vectors are kept in 8 bits a
value, which is enough to find candidates.

**Threads.** FAISS's CPU indexes may be searched from several threads at once. The GPU's may not: it has a lock.

Shape suffixes: R rows of the segment, N item numbers, D dimensions, Q queries, F candidates per query, P parts.
"""

from __future__ import annotations

import threading
from typing import Any, Final, Literal, Protocol

import faiss
import numpy as np

from index.checks import norms
from index.contract import BoolArray, Float32Array, Int32Array, Int64Array, Partition
from index.faiss_options import graph_options, list_options, scan_options
from index.ordering import NO_ITEM

StructureKind = Literal["flat", "ivf", "hnsw", "gpu"]

COARSE_QUERIES: Final = 16
"""Queries compared with the centres at once. From 20 on FAISS takes a matrix product, whose sums depend on the
batch."""

ROWS_PER_PART: Final = 250
"""Rows of a part at a million items (4,096 parts); it grows with the square root of the rows."""
TRAINED_AT: Final = 1_000_000
TRAINING_ROWS_PER_PART: Final = 32
TRAINING_ROUNDS: Final = 8
"""Of k-means. More of either made no difference to recall."""

GRAPH_NEIGHBOURS: Final = 16
GRAPH_BUILD_EFFORT: Final = 80

GPU_MAX_CANDIDATES: Final = 2048
"""FAISS's kernels select no more than that."""


class Structure(Protocol):
    """Finds candidates among the items it was built from, whether they are still current or not."""

    @property
    def kind(self) -> StructureKind:
        """Which one."""
        ...

    @property
    def efforts(self) -> tuple[int, ...]:
        """What `effort` may be, rising: more finds more, and takes longer."""
        ...

    @property
    def takes_selector(self) -> bool:
        """Whether it can pass over items that are not kept."""
        ...

    def candidates(self, queries_QD: Float32Array, num: int, effort: int, kept_N: BoolArray | None) -> Int64Array:
        """Item numbers of candidates, found by the calling thread alone: (Q, F) with F up to `num`; `NO_ITEM` where
        there are fewer.

        Args:
            queries_QD: Queries, checked.
            num: Candidates wanted, at least 1.
            effort: From `efforts`, or more.
            kept_N: Which item numbers may be answered; only where `takes_selector`.
        """
        ...


class FlatStructure:
    """Every vector, on the CPU or the GPU.

    Args:
        numbers_R: The item number of each row.
        vectors_RD: Copied.
        on_gpu: Whether the first GPU does it.
    """

    efforts = (1,)

    def __init__(self, numbers_R: Int64Array, vectors_RD: Float32Array, *, on_gpu: bool) -> None:
        self._numbers_R = numbers_R
        self._on_gpu = on_gpu
        self._lock = threading.Lock()
        if on_gpu:
            self._resources = faiss.StandardGpuResources()
            self._index: Any = faiss.GpuIndexFlatIP(self._resources, vectors_RD.shape[1])
        else:
            self._index = faiss.IndexFlatIP(vectors_RD.shape[1])
        self._index.add(vectors_RD)

    @property
    def kind(self) -> StructureKind:
        """See `Structure`."""
        return "gpu" if self._on_gpu else "flat"

    @property
    def takes_selector(self) -> bool:
        """See `Structure`."""
        return not self._on_gpu

    def candidates(self, queries_QD: Float32Array, num: int, effort: int, kept_N: BoolArray | None) -> Int64Array:
        """See `Structure.candidates`."""
        if self._on_gpu:
            with self._lock:
                _, rows_QF = self._index.search(queries_QD, min(num, len(self._numbers_R), GPU_MAX_CANDIDATES))
        else:
            faiss.omp_set_num_threads(1)
            options = scan_options(None if kept_N is None else kept_N[self._numbers_R])
            _, rows_QF = self._index.search(queries_QD, min(num, len(self._numbers_R)), params=options)
        return _numbers_of(rows_QF, self._numbers_R)


class GraphStructure:
    """A graph of near neighbours (HNSW; Malkov and Yashunin, arXiv:1603.09320).

    A graph of inner products has items that no path leads to: short ones are nobody's neighbour, and recall stays below
    0.8 with any effort. So one more dimension makes all vectors equally long, and then the nearest is the one of
    greatest inner product (Bachrach and others, RecSys 2014, section 3): ``|q - x|² = |q|² + M² - 2 q·x`` for queries
    with 0 in it.

    Args:
        numbers_R: The item number of each row.
        vectors_RD: Copied.
        num_threads: To build it with.
    """

    kind: StructureKind = "hnsw"
    takes_selector = True
    efforts = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)

    def __init__(self, numbers_R: Int64Array, vectors_RD: Float32Array, num_threads: int) -> None:
        faiss.omp_set_num_threads(num_threads)
        self._numbers_R = numbers_R
        self._index: Any = faiss.IndexHNSWFlat(vectors_RD.shape[1] + 1, GRAPH_NEIGHBOURS)
        self._index.hnsw.efConstruction = GRAPH_BUILD_EFFORT
        lengths_R = norms(vectors_RD)
        missing_R = np.sqrt(np.maximum(lengths_R.max() ** 2 - lengths_R**2, 0))
        self._index.add(np.concatenate([vectors_RD, missing_R[:, None]], axis=1))

    def candidates(self, queries_QD: Float32Array, num: int, effort: int, kept_N: BoolArray | None) -> Int64Array:
        """See `Structure.candidates`."""
        faiss.omp_set_num_threads(1)
        options = graph_options(max(num, effort), None if kept_N is None else kept_N[self._numbers_R])
        longer_QD = np.pad(queries_QD, ((0, 0), (0, 1)))
        _, rows_QF = self._index.search(longer_QD, min(num, len(self._numbers_R)), params=options)
        return _numbers_of(rows_QF, self._numbers_R)


class InvertedFile:
    """The items of each part in a list of their own, in 8 bits a value.

    Args:
        numbers_R: The item number of each row.
        vectors_RD: Copied, rounded.
        partition: Of these rows, every one with a part.
        num_threads: To build it with.
    """

    kind: StructureKind = "ivf"
    takes_selector = True

    def __init__(self, numbers_R: Int64Array, vectors_RD: Float32Array, partition: Partition, num_threads: int) -> None:
        faiss.omp_set_num_threads(num_threads)
        num_parts, dim = partition.centres_PD.shape
        self.partition = partition
        self.efforts = (*(step for step in _PART_STEPS if step < num_parts), num_parts)
        self._centres: Any = faiss.IndexFlatIP(dim)
        self._centres.add(partition.centres_PD)
        self._index: Any = faiss.IndexIVFScalarQuantizer(
            self._centres, dim, num_parts, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
        )
        self._index.train(_sampled(vectors_RD, num_parts * TRAINING_ROWS_PER_PART))
        parts_R = partition.parts_N.astype(np.int64)
        rows = (vectors_RD, numbers_R, parts_R)
        self._index.add_core(len(numbers_R), *(faiss.swig_ptr(np.ascontiguousarray(column)) for column in rows))

    def candidates(self, queries_QD: Float32Array, num: int, effort: int, kept_N: BoolArray | None) -> Int64Array:
        """See `Structure.candidates`."""
        faiss.omp_set_num_threads(1)
        num_parts = min(effort, self.efforts[-1])
        nearest = [
            self._centres.search(queries_QD[start : start + COARSE_QUERIES], num_parts)
            for start in range(0, len(queries_QD), COARSE_QUERIES)
        ]
        scores_QP, parts_QP = (np.concatenate(column) for column in zip(*nearest, strict=True))
        numbers_QF = np.empty((len(queries_QD), min(num, int(self._index.ntotal))), dtype=np.int64)
        rough_QF = np.empty(numbers_QF.shape, dtype=np.float32)
        # FAISS's own wrapper takes no options here, and `nprobe` of the index itself would be everybody's.
        queries, parts, scores, rough, numbers = map(
            faiss.swig_ptr, (queries_QD, parts_QP, scores_QP, rough_QF, numbers_QF)
        )
        options = list_options(num_parts, kept_N)
        self._index.search_preassigned_c(
            len(queries_QD), queries, numbers_QF.shape[1], parts, scores, rough, numbers, False, options
        )
        return numbers_QF


_PART_STEPS: Final = (1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048)


def new_partition(vectors_RD: Float32Array, num_threads: int) -> Partition:
    """Divide rows into parts by k-means. Costs O(R·P·D): half a minute of one core at a million rows of 64."""
    faiss.omp_set_num_threads(num_threads)
    means: Any = faiss.Kmeans(
        vectors_RD.shape[1],
        num_parts_for(len(vectors_RD)),
        niter=TRAINING_ROUNDS,
        seed=1,
        max_points_per_centroid=TRAINING_ROWS_PER_PART,
        min_points_per_centroid=1,
    )
    means.train(vectors_RD)
    centres_PD = np.asarray(means.centroids, dtype=np.float32)
    return Partition(centres_PD, parts_of(vectors_RD, centres_PD, num_threads))


def parts_of(vectors_MD: Float32Array, centres_PD: Float32Array, num_threads: int) -> Int32Array:
    """The part whose centre is nearest to each vector, int32, shape (M,)."""
    faiss.omp_set_num_threads(num_threads)
    centres: Any = faiss.IndexFlatL2(centres_PD.shape[1])
    centres.add(centres_PD)
    _, parts_M1 = centres.search(vectors_MD, 1)
    return np.asarray(parts_M1[:, 0], dtype=np.int32)


def num_parts_for(num_rows: int) -> int:
    """Parts for so many rows: as many as there are rows in a part, about, times a constant.

    >>> [num_parts_for(rows) for rows in (1, 100_000, 1_000_000)]
    [1, 1264, 4000]
    """
    return min(num_rows, max(1, int(TRAINED_AT / ROWS_PER_PART * (num_rows / TRAINED_AT) ** 0.5)))


def _sampled(vectors_RD: Float32Array, num: int) -> Float32Array:
    """At most so many rows, evenly spread."""
    return np.ascontiguousarray(vectors_RD[:: max(1, len(vectors_RD) // num)])


def _numbers_of(rows_QF: Int64Array, numbers_R: Int64Array) -> Int64Array:
    """Item numbers of rows; FAISS's -1 stays."""
    return np.where(rows_QF < 0, NO_ITEM, numbers_R[rows_QF])
