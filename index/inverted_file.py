"""An inverted file: a query looks at the items of a few parts only, and at codes of them before their vectors.

Items lie in the part whose centre is nearest. (FAISS by itself would assign items by inner product, which draws them to
long centres: at a million items 16 parts then find 70% of the best 50, instead of 95%.) A code tells where an item
lies beside its centre, in 4 bits a value; the best by their codes are scored again by their vectors.

Two things grow with the effort: the parts looked into, and the candidates taken by their codes. At a million items 20
parts and 1.6 times as many candidates as wanted find .96 of the best 50.

Shape suffixes: R rows of the segment, N item numbers, D dimensions, Q queries, F candidates per query, P parts,
M rows given, B bytes of a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from index.contract import BoolArray, Float32Array, Int32Array, Int64Array, Partition
from index.faiss_options import list_options
from index.parts import PartFinder, deviations
from index.rough_scores import CODE_BITS, coded, rough_scores, train_codes
from index.structures import StructureKind

TRAINING_ROWS: Final = 1 << 16
"""From which the steps of the codes are learned."""
CODED_AT_ONCE: Final = 1 << 13
"""Rows: 2 MiB at 64 dimensions, which caches hold."""
EFFORT_PER_CODE: Final = 32
"""With so much effort twice as many candidates are taken by their codes as are wanted, with twice as much three
times."""
ONE_BY_ONE: Final = 11
"""FAISS's name for: queries one after the other, the best kept in a reservoir. A query's candidates then depend on
nothing else; left to itself FAISS decides by the number of queries."""

_EFFORTS: Final = (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048)


@dataclass(frozen=True, eq=False, slots=True)
class Filling:
    """What an inverted file takes longest to make, at the cost of a look at all vectors.

    Attributes:
        deviations_P: See `deviations`.
        lists: FAISS's lists of codes.
    """

    deviations_P: Float32Array
    lists: Any

    @classmethod
    def of(cls, numbers_R: Int64Array, vectors_RD: Float32Array, partition: Partition) -> Filling:
        """Make it; the arguments are those of `InvertedFile`."""
        return cls(deviations(vectors_RD, partition), _filled_lists(numbers_R, vectors_RD, partition))

    @classmethod
    def from_bytes(cls, deviations_P: Float32Array, data_B: npt.NDArray[np.uint8]) -> Filling:
        """Take it from `list_bytes`."""
        return cls(deviations_P, _set_up(faiss.deserialize_index(data_B)))

    def list_bytes(self) -> npt.NDArray[np.uint8]:
        """The lists as FAISS writes them, shape (B,)."""
        return np.asarray(faiss.serialize_index(self.lists))


class InvertedFile:
    """The codes of each part's items in a list of their own; the effort is the number of lists looked at.

    Args:
        numbers_R: The item number of each row.
        vectors_RD: C-contiguous float32. Kept, not copied.
        partition: Of these rows, every one with a part.
        filling: Made of the same.
    """

    kind: StructureKind = "ivf"
    takes_selector = True

    def __init__(self, numbers_R: Int64Array, vectors_RD: Float32Array, partition: Partition, filling: Filling) -> None:
        num_parts = len(partition.centres_PD)
        self.partition = partition
        self.filling = filling
        self.efforts = (*(step for step in _EFFORTS if step < num_parts), num_parts)
        self._parts = PartFinder(partition.centres_PD, filling.deviations_P)
        self._vectors_RD = vectors_RD
        self._row_of_N = _rows_of(numbers_R)

    def candidates(
        self, queries_QD: Float32Array, num: int, effort: int, kept_N: BoolArray | None, share: float
    ) -> Int64Array:
        """See `index.structures.Structure.candidates`."""
        faiss.omp_set_num_threads(1)
        num_parts = min(ceil(effort / share), len(self.partition.centres_PD))
        num_coded = min(num + num * effort // EFFORT_PER_CODE, len(self._vectors_RD))
        numbers_QF = self._by_codes(queries_QD, num_coded, num_parts, kept_N)
        if num_coded <= num:
            return numbers_QF
        scores_QF = rough_scores(queries_QD, self._vectors_RD, self._row_of_N[numbers_QF])
        best_QF = np.argpartition(-scores_QF, num - 1, axis=1)[:, :num]
        return np.take_along_axis(numbers_QF, best_QF, axis=1)

    def _by_codes(self, queries_QD: Float32Array, num: int, num_parts: int, kept_N: BoolArray | None) -> Int64Array:
        """The item numbers of the best `num` by their codes, (Q, F), -1 where the parts hold fewer."""
        parts_QP, centred_QP = self._parts.find(queries_QD, num_parts)
        numbers_QF = np.empty((len(queries_QD), num), dtype=np.int64)
        scores_QF = np.empty(numbers_QF.shape, dtype=np.float32)
        # FAISS's own wrapper takes no options here, and `nprobe` of the index itself would be everybody's.
        arrays: list[Any] = [queries_QD, parts_QP, centred_QP, scores_QF, numbers_QF]
        queries, parts, centred, scores, numbers = map(faiss.swig_ptr, arrays)
        options = list_options(num_parts, kept_N)
        self.filling.lists.search_preassigned_c(
            len(queries_QD), queries, num, parts, centred, scores, numbers, False, options
        )
        return numbers_QF


def _filled_lists(numbers_R: Int64Array, vectors_RD: Float32Array, partition: Partition) -> Any:
    """FAISS's lists of codes: plain ones, which it makes fast ones of."""
    num_parts, dim = partition.centres_PD.shape
    centres: Any = faiss.IndexFlatIP(dim)
    centres.add(partition.centres_PD)
    plain: Any = faiss.IndexIVFPQ(centres, dim, num_parts, dim, CODE_BITS, faiss.METRIC_INNER_PRODUCT)
    plain.by_residual = True
    sampled = slice(None, None, max(1, len(vectors_RD) // TRAINING_ROWS))
    levels_DC = train_codes(plain.pq, vectors_RD[sampled] - partition.centres_PD[partition.parts_N[sampled]])
    plain.is_trained = True
    order = np.argsort(partition.parts_N, kind="stable")
    for start in range(0, len(order), CODED_AT_ONCE):
        rows = order[start : start + CODED_AT_ONCE]
        parts_M = partition.parts_N[rows]
        _append(plain, parts_M, numbers_R[rows], coded(vectors_RD[rows] - partition.centres_PD[parts_M], levels_DC))
    lists: Any = faiss.IndexIVFPQFastScan(plain)
    # From here on the lists own the centres, as those do that FAISS has read.
    centres.this.disown()
    lists.own_fields = True
    return _set_up(lists)


def _set_up(lists: Any) -> Any:
    """Lists as they are searched; FAISS does not write this down."""
    lists.implem = ONE_BY_ONE
    return lists


def _append(plain: Any, parts_M: Int32Array, numbers_M: Int64Array, codes_MB: npt.NDArray[np.uint8]) -> None:
    """Put rows in the order of their parts behind what the lists hold."""
    starts = np.flatnonzero(np.diff(parts_M, prepend=-1))
    for start, end in pairwise([*starts.tolist(), len(parts_M)]):
        numbers, codes = faiss.swig_ptr(numbers_M[start:end]), faiss.swig_ptr(codes_MB[start:end])
        plain.invlists.add_entries(int(parts_M[start]), end - start, numbers, codes)
    plain.ntotal += len(parts_M)


def _rows_of(numbers_R: Int64Array) -> Int64Array:
    """The row of each item number, and -1 for number -1, by which the last place is meant."""
    row_of_N = np.full(int(numbers_R.max()) + 2, -1, dtype=np.int64)
    row_of_N[numbers_R] = np.arange(len(numbers_R))
    return row_of_N
