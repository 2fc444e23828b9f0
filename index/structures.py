"""What finds candidates in a main segment: a flat scan, a graph, the GPU, or an inverted file (`index.inverted_file`).

None of them decides anything: candidates are scored again by the contract's own score. Each is immutable once built,
and each query's candidates are the same whatever other queries share the call.

**Threads.** FAISS's CPU indexes may be searched from several threads at once. The GPU's may not: it has a lock.

Shape suffixes: R rows of the segment, N item numbers, D dimensions, Q queries, F candidates per query.
"""

from __future__ import annotations

import threading
from math import ceil
from typing import Any, Final, Literal, Protocol

import faiss
import numpy as np

from index.checks import norms
from index.contract import BoolArray, Float32Array, Int64Array
from index.faiss_options import graph_options, scan_options
from index.ordering import NO_ITEM

StructureKind = Literal["flat", "ivf", "hnsw", "gpu"]

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

    def candidates(
        self, queries_QD: Float32Array, num: int, effort: int, kept_N: BoolArray | None, share: float
    ) -> Int64Array:
        """Item numbers of candidates, found by the calling thread alone: (Q, F) with F up to `num`; `NO_ITEM` where
        there are fewer.

        Args:
            queries_QD: Queries, checked.
            num: Candidates wanted, at least 1.
            effort: From `efforts`.
            kept_N: Which item numbers may be answered; only where `takes_selector`.
            share: How many of the rows those are, 0 to 1: the fewer, the further apart they lie.
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

    def candidates(
        self, queries_QD: Float32Array, num: int, effort: int, kept_N: BoolArray | None, share: float
    ) -> Int64Array:
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

    def candidates(
        self, queries_QD: Float32Array, num: int, effort: int, kept_N: BoolArray | None, share: float
    ) -> Int64Array:
        """See `Structure.candidates`."""
        faiss.omp_set_num_threads(1)
        options = graph_options(max(num, ceil(effort / share)), None if kept_N is None else kept_N[self._numbers_R])
        longer_QD = np.pad(queries_QD, ((0, 0), (0, 1)))
        _, rows_QF = self._index.search(longer_QD, min(num, len(self._numbers_R)), params=options)
        return _numbers_of(rows_QF, self._numbers_R)


def _numbers_of(rows_QF: Int64Array, numbers_R: Int64Array) -> Int64Array:
    """Item numbers of rows; FAISS's -1 stays."""
    return np.where(rows_QF < 0, NO_ITEM, numbers_R[rows_QF])
