"""This project's index, with one structure for its main segment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from index import LiveIndex, LiveOptions
from index.main_segment import RecallGoal
from index.sizes import ALWAYS_FLAT, SizeRule
from index.structures import StructureKind
from tests.bench.index.points import Built, K, Rows, Search, Vectors

GOALS: Final = (0.8, 0.9, 0.955, 0.965, 0.985)


def build(kind: str, items_ND: Vectors, asked_SD: Vectors, num_threads: int) -> Built:
    """An index of the kind `flat` (exact), `ivf` or `hnsw`; the efforts are recalls to be reached."""
    index = filled(kind, items_ND, asked_SD, num_threads, GOALS[0])
    return Built(_efforts(index, kind, num_threads), rows_of)


def filled(kind: str, items_ND: Vectors, asked_SD: Vectors, num_threads: int, goal: float) -> LiveIndex:
    """An index of all items, named by their row, which was asked some queries before its main segment was built."""
    index = LiveIndex(items_ND.shape[1], "bench", options(kind, num_threads, goal))
    index.upsert([str(row) for row in range(len(items_ND))], items_ND)
    for start in range(0, len(asked_SD), 8):
        index.search(asked_SD[start : start + 8], 1)
    index.compact()
    return index


def options(kind: str, num_threads: int, goal: float) -> LiveOptions:
    """Options with which nothing but `compact` rebuilds, and nothing is refused."""
    sizes = ALWAYS_FLAT if kind == "flat" else SizeRule(flat=1000, kind=_structure(kind))
    return LiveOptions(num_threads, num_threads, sizes, RecallGoal(goal, 0.0), compacts_itself=False)


def rows_of(result: Any) -> Rows:
    """The rows of a search's result."""
    return np.array([list(map(int, ids)) for ids in result.ids], dtype=np.int64)


def _structure(kind: str) -> StructureKind:
    known: dict[str, StructureKind] = {"ivf": "ivf", "hnsw": "hnsw", "gpu": "gpu"}
    return known[kind]


def _search(index: LiveIndex) -> Search:
    return lambda queries_QD: index.search(queries_QD, K)


def _efforts(index: LiveIndex, kind: str, num_threads: int) -> Iterator[tuple[str, Search]]:
    if kind == "flat":
        yield "exact", _search(index)
        return
    contents = index.contents()
    for goal in GOALS:
        tuned = LiveIndex(index.dim, index.release, options(kind, num_threads, goal))
        tuned.swap(contents)
        yield f"goal {goal}", _search(tuned)
