"""The main segment: the bulk of the items, as it was when it was built. It does not change.

How hard a search has to look is not guessed: at building, searches of sampled queries are compared with exact ones, and
the least effort that finds enough is taken.

Shape suffixes: R rows, N item numbers, D dimensions, Q queries, S sampled queries, F candidates per query, M
rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np

from index.contract import BoolArray, Float32Array, Int64Array, Partition, inner_products
from index.errors import SwapRefusedError
from index.inverted_file import Filling, InvertedFile
from index.ordering import NO_ITEM, NO_SCORE
from index.parts import new_partition, parts_of
from index.structures import FlatStructure, GraphStructure, Structure, StructureKind

RECALL_AT: Final = 50
"""Items of each sampled query that are compared."""
NUM_SAMPLED: Final = 128
"""Sampled queries: the recall they give is within 0.01 of that of all, mostly. Exact answers for them are the longest
part of loading a snapshot of a million."""
ROWS_AT_ONCE: Final = 1 << 16
"""Rows whose scores for all sampled queries are computed at once (32 MiB)."""
EXTRA_CANDIDATES: Final = 16
"""Fetched beyond what is wanted: makes up for the rounding of what structures keep, and for a few tombstones."""


@dataclass(frozen=True, slots=True)
class RecallGoal:
    """How much of what exact search finds a main segment should find, and has to; the latter or it is refused."""

    wanted: float = 0.965
    least: float = 0.95


@dataclass(frozen=True, eq=False, slots=True)
class MainSegment:
    """A structure with the vectors it was built from.

    Attributes:
        numbers_R: The item number of each row.
        vectors_RD: Float32. Not changed by anybody.
        structure: Finds candidates.
        effort: What it is asked with.
        recall: Share of the best `RECALL_AT` that it finds, over sampled queries.
    """

    numbers_R: Int64Array
    vectors_RD: Float32Array
    structure: Structure
    effort: int
    recall: float

    @property
    def partition(self) -> Partition | None:
        """The partition of the rows, where there is one."""
        return self.structure.partition if isinstance(self.structure, InvertedFile) else None

    def candidates(self, queries_QD: Float32Array, num: int, kept_N: BoolArray | None, share: float) -> Int64Array:
        """Item numbers, (Q, F); `NO_ITEM` fills up.

        Args:
            queries_QD: Queries, checked.
            num: Items wanted of each.
            kept_N: Which may be answered; passed over by structures that cannot look at it.
            share: How many of the rows those are: the fewer, the further apart they lie.
        """
        if not self.structure.takes_selector:
            return self.structure.candidates(queries_QD, int(num / share) + EXTRA_CANDIDATES, 1, None, 1.0)
        return self.structure.candidates(queries_QD, num + EXTRA_CANDIDATES, self.effort, kept_N, share)

    def best_rows(self, query_D: Float32Array, num: int, usable_R: BoolArray) -> Int64Array:
        """The rows of greatest inner product by a scan of all, to within rounding, in no order. Costs O(R·D)."""
        rough_R = np.where(usable_R, self.vectors_RD @ query_D, NO_SCORE)
        num = min(num + EXTRA_CANDIDATES, int(np.count_nonzero(usable_R)))
        return np.argpartition(-rough_R, num - 1)[:num] if num else np.empty(0, dtype=np.int64)


def build_main(
    kind: StructureKind,
    numbers_R: Int64Array,
    vectors_RD: Float32Array,
    queries_SD: Float32Array,
    *,
    goal: RecallGoal,
    num_threads: int,
    partition: Partition | None = None,
) -> MainSegment:
    """Build a main segment, and find the effort it needs.

    Args:
        kind: Of the structure.
        numbers_R: The item number of each row; at least one.
        vectors_RD: Kept, not copied.
        queries_SD: Sampled queries to judge it by.
        goal: The recall wanted.
        num_threads: To build with.
        partition: An earlier one to go on with (for `ivf`); rows without a part get one.

    Raises:
        SwapRefusedError: It finds less than the goal's least with any effort.
    """
    structure = _structure(kind, numbers_R, vectors_RD, num_threads, partition)
    exact_SK = _exact_scores(vectors_RD, queries_SD)
    recall, effort = 0.0, structure.efforts[-1]
    order = np.argsort(numbers_R)
    for effort in structure.efforts:
        found_SF = structure.candidates(queries_SD, RECALL_AT + EXTRA_CANDIDATES, effort, None, 1.0)
        rows_SF = order[np.searchsorted(numbers_R, found_SF, sorter=order).clip(max=len(order) - 1)]
        recall = _recall(vectors_RD, queries_SD, rows_SF, found_SF != NO_ITEM, exact_SK)
        if recall >= goal.wanted:
            break
    if recall < goal.least:
        raise SwapRefusedError(recall, goal.least, len(numbers_R))
    return MainSegment(numbers_R, vectors_RD, structure, effort, recall)


def _structure(
    kind: StructureKind,
    numbers_R: Int64Array,
    vectors_RD: Float32Array,
    num_threads: int,
    partition: Partition | None,
) -> Structure:
    match kind:
        case "flat" | "gpu":
            return FlatStructure(numbers_R, vectors_RD, on_gpu=kind == "gpu")
        case "hnsw":
            return GraphStructure(numbers_R, vectors_RD, num_threads)
        case "ivf":
            parts = _completed(partition, vectors_RD, num_threads)
            return InvertedFile(numbers_R, vectors_RD, parts, Filling.of(numbers_R, vectors_RD, parts))
    assert_never(kind)


def _completed(partition: Partition | None, vectors_RD: Float32Array, num_threads: int) -> Partition:
    """A part for every row, by the centres there are."""
    if partition is None:
        return new_partition(vectors_RD, num_threads)
    parts_R = partition.parts_N.copy()
    missing = np.flatnonzero(parts_R < 0)
    parts_R[missing] = parts_of(vectors_RD[missing], partition.centres_PD, num_threads)
    return Partition(partition.centres_PD, parts_R)


def _exact_scores(vectors_RD: Float32Array, queries_SD: Float32Array) -> Float32Array:
    """The best scores of each sampled query, (S, K), best first.

    A matrix product chooses the rows of each block that are as good as the last one so far, to within rounding, which
    does not matter here. (FAISS's exact search takes four times as long.)
    """
    num = min(RECALL_AT, len(vectors_RD))
    best_SK = np.full((len(queries_SD), num), NO_SCORE, dtype=np.float32)
    for start in range(0, len(vectors_RD), ROWS_AT_ONCE):
        block_MD = vectors_RD[start : start + ROWS_AT_ONCE]
        rough_SM = queries_SD @ block_MD.T
        good = np.flatnonzero((rough_SM >= best_SK[:, -1:]).any(axis=0))
        if not len(good):
            continue
        num_taken = min(num, len(good))
        taken_SK = good[np.argpartition(-rough_SM[:, good], num_taken - 1, axis=1)[:, :num_taken]]
        scores_SK = inner_products(block_MD[taken_SK], queries_SD[:, None, :])
        best_SK = -np.sort(-np.concatenate([best_SK, scores_SK], axis=1), axis=1)[:, :num]
    return best_SK


def _recall(
    vectors_RD: Float32Array,
    queries_SD: Float32Array,
    rows_SF: Int64Array,
    found_SF: BoolArray,
    exact_SK: Float32Array,
) -> float:
    """Share of the places of the exact answers that are filled with items as good; equal scores count, whatever the
    id."""
    scores_SF = np.where(found_SF, inner_products(vectors_RD[rows_SF], queries_SD[:, None, :]), NO_SCORE)
    num_wanted = exact_SK.shape[1]
    as_good_S = np.count_nonzero(scores_SF >= exact_SK[:, -1:], axis=1)
    return float(np.minimum(as_good_S, num_wanted).mean() / num_wanted)
