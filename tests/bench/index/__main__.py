"""The item index beside plain FAISS, hnswlib and usearch: recall@50 against queries a second, and its life cycle.

Vectors are those of the example's trained item tower, grown (`tests.bench.index.data`), and random ones beside. Every
contender runs in a process of its own, one after the other. Queries a processor second hardly depend on what else the
machine does; queries a second do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import faiss
import numpy as np

from stream_app.cli._signals import terminate_as_interrupt
from tests.bench.common import RESULTS, ROOT, BenchResult, Better, Figure, finish, machine, table
from tests.bench.index.data import Spread, TrainedVectors, grown, random_vectors, trained_vectors, widened
from tests.bench.index.plot import draw
from tests.bench.index.points import K

PEERS_PYTHON: Final = ROOT / "build" / "index-peers" / "bin" / "python"
SIZES: Final = (20_000, 100_000, 1_000_000)
LARGEST: Final = max(SIZES)
NUM_ASKED: Final = 256
"""Queries that our index has seen before it builds its main segment."""
RECALL: Final = 0.95
COLUMNS: Final = ("contender", "effort", "recall", "q/s", "q/cpu s", "p50 ms", "p99 ms", "build s", "MB")


@dataclass(frozen=True)
class Contender:
    """A module that builds an index of some kind.

    Args:
        most_items: It is left out where there are more.
        is_peer: It needs the peers' environment.
    """

    name: str
    module: str
    kind: str
    most_items: int = LARGEST
    is_peer: bool = False


_GRAPHS: Final = "tests.bench.index.peers.graphs"
CONTENDERS: Final = (
    Contender("ours ivf", "tests.bench.index.ours", "ivf"),
    Contender("ours hnsw", "tests.bench.index.ours", "hnsw", 100_000),
    Contender("ours flat", "tests.bench.index.ours", "flat", 100_000),
    Contender("FAISS ivf", "tests.bench.index.plain_faiss", "ivf"),
    Contender("FAISS hnsw", "tests.bench.index.plain_faiss", "hnsw"),
    Contender("FAISS flat", "tests.bench.index.plain_faiss", "flat"),
    Contender("hnswlib", _GRAPHS, "hnswlib", is_peer=True),
    Contender("hnswlib ip", _GRAPHS, "hnswlib-ip", 100_000, is_peer=True),
    Contender("usearch", _GRAPHS, "usearch", is_peer=True),
)
"""Ours first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(prog="index", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--spreads", nargs="+", choices=get_args(Spread), default=list(get_args(Spread)))
    parser.add_argument("--contenders", nargs="+", choices=[one.name for one in CONTENDERS])
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-life", action="store_true", help="leave out filters, changes, swap and snapshots")
    parser.add_argument("--json", type=Path, default=RESULTS / "index.json", help="the plot goes beside it")
    given: Any = parser.parse_args(arguments)
    dims = (64, 128) if os.environ.get("LARGE") == "1" else (64,)
    if not PEERS_PYTHON.exists():
        print(f"hnswlib and usearch are LEFT OUT: {PEERS_PYTHON.relative_to(ROOT)} is not there (make index-peers)")
    with terminate_as_interrupt():
        trained = trained_vectors()
        cells: dict[str, dict[str, Any]] = {}
        details = {"threads": given.threads, "queries": given.queries, "gpus": faiss.get_num_gpus(), "cells": cells}
        path: Path = given.json
        for dim in dims:
            for spread in given.spreads:
                for size in sorted(given.sizes):
                    cell = cells[f"{spread}, {size:,} items, d={dim}"] = {"curves": {}, "life": {}}
                    for _ in measured(trained, spread, size, dim, given, cell):
                        save_so_far(BenchResult(path.stem, figures_of(cells), details), path)
        draw({name: cell["curves"] for name, cell in cells.items()}, path.with_suffix(".png"))
        return finish(BenchResult(path.stem, figures_of(cells), details), path.parent)
    return 0


def save_so_far(result: BenchResult, path: Path) -> None:
    """Keep what is measured already: a bench that takes an hour may be broken off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result.plain(machine()) | {"is_whole": False}, indent=2) + "\n", "utf-8")


def measured(
    trained: TrainedVectors, spread: Spread, size: int, dim: int, given: Any, cell: dict[str, Any]
) -> Iterator[None]:
    """Put everything for one set of items into `cell`; comes back after each figure."""
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as name:
        folder = Path(name)
        put_arrays(
            folder, trained if dim == trained.items_TD.shape[1] else widened(trained), spread, size, given.queries
        )
        chosen = [
            one
            for one in CONTENDERS
            if size <= one.most_items
            and (not given.contenders or one.name in given.contenders)
            and (PEERS_PYTHON.exists() or not one.is_peer)
        ]
        curves = cell["curves"]
        for one in chosen:
            curves[one.name] = curve_of(one, folder, given.threads)
            yield
        print(f"\n{spread}, {size:,} items, d={dim}\n{table(COLUMNS, rows_of(curves))}", flush=True)
        if spread == "tower" and not given.no_life:
            for figures in _run(Path(sys.executable), ["tests.bench.index.life", str(folder), str(given.threads)]):
                cell["life"] |= figures
                print(
                    table(["figure", "value"], [[what, f"{value:,.4g}"] for what, value in figures.items()]), flush=True
                )
                yield


def put_arrays(folder: Path, trained: TrainedVectors, spread: Spread, size: int, num_queries: int) -> None:
    """Write items, queries, their true answers, and queries asked before."""
    generator = np.random.default_rng(size)
    dim, num_all = trained.items_TD.shape[1], num_queries + NUM_ASKED
    if spread == "tower":
        items_ND = grown(trained.items_TD, size, generator)
        queries_QD = trained.users_QD[generator.permutation(len(trained.users_QD))[:num_all]]
    else:
        items_ND, queries_QD = random_vectors(size, dim, generator), random_vectors(num_all, dim, generator)
    found: Any = faiss.knn(queries_QD[NUM_ASKED:], items_ND, K, metric=faiss.METRIC_INNER_PRODUCT)
    arrays = {"items": items_ND, "asked": queries_QD[:NUM_ASKED], "queries": queries_QD[NUM_ASKED:], "truth": found[1]}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def curve_of(contender: Contender, folder: Path, num_threads: int) -> dict[str, Any]:
    """What its worker measures."""
    print(f"{contender.name}:", file=sys.stderr, flush=True)
    python = PEERS_PYTHON if contender.is_peer else Path(sys.executable)
    command = ["tests.bench.index.worker", contender.module, contender.kind, str(folder), str(num_threads)]
    (told,) = _run(python, command)
    return told


def rows_of(curves: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Lines of the table."""
    return [
        [
            name,
            point["effort"],
            f"{point['recall']:.3f}",
            f"{point['queries_per_s']:,.0f}",
            f"{point['queries_per_cpu_s']:,.0f}",
            f"{point['single_p50_ms']:.2f}",
            f"{point['single_p99_ms']:.2f}",
            f"{curve['build_s']:.1f}",
            f"{curve['memory_mb']:,.0f}",
        ]
        for name, curve in curves.items()
        for point in curve["points"]
    ]


def rate_at(curve: Mapping[str, Any], recall: float, rate: str) -> float | None:
    """The rate at a recall, on the line between the two measured points beside it; None where it is not reached.

    >>> rate_at({"points": [{"recall": 0.9, "r": 30.0}, {"recall": 1.0, "r": 10.0}]}, 0.95, "r")
    20.0
    """
    points = sorted((point["recall"], point[rate]) for point in curve["points"])
    if not points or points[-1][0] < recall:
        return None
    if points[0][0] >= recall:
        return float(points[0][1])
    return float(np.interp(recall, [point[0] for point in points], [point[1] for point in points]))


def figures_of(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    """Speed at the wanted recall in every cell, beside hnswlib; targets are for the tower's vectors, most of them for a
    million."""
    figures: dict[str, Figure] = {}
    for name, cell in cells.items():
        own, peer = (cell["curves"].get(who) for who in ("ours ivf", "hnswlib"))
        is_target = name.startswith(f"tower, {LARGEST:,} items, d=64")
        if own and (rate := rate_at(own, RECALL, "queries_per_s")) is not None:
            figures[f"{name}: queries_per_s"] = Figure(rate, 15_000.0 if is_target else None, "higher")
            if peer and (other := rate_at(peer, RECALL, "queries_per_cpu_s")) is not None:
                ratio = (rate_at(own, RECALL, "queries_per_cpu_s") or 0.0) / other
                figures[f"{name}: per_cpu_s_by_hnswlib"] = Figure(ratio, 1.0 if is_target else None, "higher")
            p99_ms = rate_at(own, RECALL, "single_p99_ms")
            figures[f"{name}: single_p99_ms"] = Figure(p99_ms or 0.0, 5.0 if is_target else None)
        if life := cell["life"]:
            figures |= _figures_of_life(name, life, is_target)
    return figures


def _figures_of_life(name: str, life: Mapping[str, float], is_target: bool) -> dict[str, Figure]:
    """Those that are measured already."""

    def figure(what: str, target: float | None = None, better: Better = "lower") -> dict[str, Figure]:
        return {f"{name}: {what}": Figure(life[what], target, better)} if what in life else {}

    return {
        **figure("filter_recall", RECALL, "higher"),
        **figure("filter_cost_batch", 5.0),
        **figure("filter_cost_single", 5.0),
        **figure("swap_errors", 0, "same"),
        **figure("swap_changes_lost", 0, "same"),
        **figure("removed_returned", 0, "same"),
        **figure("swap_p99_ratio", 3.0 if is_target else None),
        **figure("snapshot_load_s", 10.0 if is_target else None),
        **figure("upserts_per_s", better="higher"),
        **figure("removals_per_s", better="higher"),
        **figure("shown_p99_ms"),
        **figure("memory_mb"),
    }


def _run(python: Path, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run a module; what it prints, line by line.

    Raises:
        CalledProcessError: It failed.
    """
    command = [str(python), "-m", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


if __name__ == "__main__":
    sys.exit(main())
