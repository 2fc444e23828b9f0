"""Recall and speed of one index at several efforts. Needs nothing but numpy, so that the peers' environment can run it.

Shapes: N items, D dimensions, Q queries, K answered.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

K: Final = 50
NUM_SINGLES: Final = 500
"""Queries asked one at a time."""
NUM_ROUNDS: Final = 3
"""Of the whole batch; the fastest counts, since other work on the machine only ever slows one down."""

Search = Callable[[Vectors], Any]
"""Answers queries, (Q, D), in a form of its own."""


@dataclass(frozen=True)
class Built:
    """An index that is ready.

    Args:
        efforts: What may be asked of it, rising, with the search for each; made when it is come to.
        rows_of: The answers of a search as item rows, (Q, K).
    """

    efforts: Iterator[tuple[str, Search]]
    rows_of: Callable[[Any], Rows]


@dataclass(frozen=True)
class Point:
    """One effort: recall@K, queries a second and a processor second in a batch, and single queries in ms."""

    effort: str
    recall: float
    queries_per_s: float
    queries_per_cpu_s: float
    single_p50_ms: float
    single_p99_ms: float
    single_cpu_ms: float


@dataclass(frozen=True)
class Curve:
    """All efforts of one index, seconds of wall and processor to build it, and MB it took beyond the vectors given."""

    build_s: float
    build_cpu_s: float
    memory_mb: float
    points: list[Point]

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def curve(build: Callable[[Vectors, Vectors, int], Built], folder: Path, num_threads: int) -> Curve:
    """Build an index of a folder's ``items.npy``, and ask it ``queries.npy``, whose answers are ``truth.npy``.

    ``asked.npy`` are queries that came before.
    """
    items_ND, queries_QD = np.load(folder / "items.npy"), np.load(folder / "queries.npy")
    truth_QK = np.load(folder / "truth.npy")
    before_mb, started_s, cpu_s = resident_mb(), time.perf_counter(), time.process_time()
    built = build(items_ND, np.load(folder / "asked.npy"), num_threads)
    build_s, build_cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    memory_mb, points = resident_mb() - before_mb, []
    for effort, search in built.efforts:
        points.append(_point(effort, search, built.rows_of, queries_QD, truth_QK))
        print(f"  {points[-1]}", file=sys.stderr, flush=True)
    return Curve(build_s, build_cpu_s, memory_mb, points)


def equally_long(items_ND: Vectors) -> Vectors:
    """The items with one more dimension, in which the nearest to a query is the one of greatest inner product."""
    squares_N = (items_ND.astype(np.float64) ** 2).sum(axis=1)
    return np.column_stack([items_ND, np.sqrt(squares_N.max() - squares_N)]).astype(np.float32)


def with_zero(queries_QD: Vectors) -> Vectors:
    """Queries in the dimensions of `equally_long`."""
    return np.pad(queries_QD, ((0, 0), (0, 1)))


def recall(rows_QK: Rows, truth_QK: Rows) -> float:
    """Share of the true answers that are among those given."""
    shared = [len(np.intersect1d(seen, true)) for seen, true in zip(rows_QK, truth_QK, strict=True)]
    return float(np.mean(shared) / truth_QK.shape[1])


def _point(effort: str, search: Search, rows_of: Callable[[Any], Rows], queries_QD: Vectors, truth_QK: Rows) -> Point:
    search(queries_QD[:16])
    rounds = [_timed(search, queries_QD) for _ in range(NUM_ROUNDS)]
    singles = [_timed(search, queries_QD[row : row + 1]) for row in np.arange(NUM_SINGLES) % len(queries_QD)]
    walls_ms = [1000 * wall_s for wall_s, _, _ in singles]
    return Point(
        effort,
        recall(rows_of(rounds[0][2]), truth_QK),
        len(queries_QD) / min(wall_s for wall_s, _, _ in rounds),
        len(queries_QD) / min(cpu_s for _, cpu_s, _ in rounds),
        float(np.percentile(walls_ms, 50)),
        float(np.percentile(walls_ms, 99)),
        1000 * float(np.median([cpu_s for _, cpu_s, _ in singles])),
    )


def _timed(search: Search, queries_QD: Vectors) -> tuple[float, float, Any]:
    started_s, cpu_s = time.perf_counter(), time.process_time()
    found = search(queries_QD)
    return time.perf_counter() - started_s, time.process_time() - cpu_s, found


def resident_mb() -> float:
    """What this process has resident now (Linux), what nobody uses being given back first."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / 2**20
