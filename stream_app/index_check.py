"""How much of what exact search finds an index finds, and how long both take.

Shapes: Q queries, D dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from index import ItemIndex, build_index

NUM_QUERIES: Final = 200
"""Enough that a recall of .95 is told from .94; exact search over a million items takes some 50 ms each."""

RECALL_AT: Final = 50
MIN_RECALL: Final = 0.95


class IndexCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Of single searches for `recall_at` items each: the share of the best ones found, and the milliseconds taken."""

    items: int
    queries: int
    recall_at: int
    recall: float
    p50_ms: float
    p99_ms: float
    exact_p50_ms: float
    exact_p99_ms: float


def check_index(index: ItemIndex, *, seed: int = 0) -> IndexCheck:
    """Ask an index and an exact one with the same items; vectors of items, drawn at random, are the queries.

    Args:
        index: With at least one item; nobody else changes it meanwhile.
        seed: Of the draw.
    """
    contents = index.contents()
    exact = build_index("exact", index.dim, index.release)
    exact.upsert(contents.ids, contents.vectors_ND)
    rows = np.random.default_rng(seed).integers(0, len(contents.ids), NUM_QUERIES)
    queries_QD = contents.vectors_ND[rows]
    found, taken_ms = _answers(lambda query_D: index.search(query_D[None], RECALL_AT).ids[0], queries_QD)
    wanted, exact_ms = _answers(lambda query_D: exact.search(query_D[None], RECALL_AT).ids[0], queries_QD)
    shares = [len(set(ids) & set(best)) / len(best) for ids, best in zip(found, wanted, strict=True)]
    p50_ms, p99_ms = np.percentile(taken_ms, [50, 99]).tolist()
    exact_p50_ms, exact_p99_ms = np.percentile(exact_ms, [50, 99]).tolist()
    return IndexCheck(
        items=len(contents.ids),
        queries=NUM_QUERIES,
        recall_at=RECALL_AT,
        recall=float(np.mean(shares)),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        exact_p50_ms=exact_p50_ms,
        exact_p99_ms=exact_p99_ms,
    )


def _answers(
    search: Callable[[npt.NDArray[np.float32]], list[str]], queries_QD: npt.NDArray[np.float32]
) -> tuple[list[list[str]], list[float]]:
    """What each query finds, and the milliseconds that it took."""
    found: list[list[str]] = []
    taken_ms: list[float] = []
    for query_D in queries_QD:
        begun_s = time.perf_counter()
        found.append(search(query_D))
        taken_ms.append(1000 * (time.perf_counter() - begun_s))
    return found, taken_ms
