"""What the index does beside answering: filters, changes, a swap under load, snapshots; and what memory it has.

``python -m tests.bench.index.life FOLDER THREADS``, figures as lines of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from index import ItemAttributes, ItemFilter, LiveIndex
from index.snapshot import load, save
from tests.bench.index.ours import filled, options
from tests.bench.index.points import K, Rows, Vectors, recall, resident_mb

GOAL: Final = 0.965
KEPT_SHARE: Final = 0.01
CHANGED_AT_ONCE: Final = 20
NUM_CHANGED: Final = 4000
NUM_SINGLES: Final = 1000
NUM_BESIDE_SWAPS: Final = 20_000
REMOVED_AT_ONCE: Final = 20
ASKED_AT_ONCE: Final = 230
"""Queries of users in one batch, beside those for what was removed."""
LONGER: Final = np.float32(100)
"""An item so many times as long as a query of its direction is the best answer to it."""
RARE: Final = ItemFilter(categories=frozenset({"rare"}))


def life(folder: Path, num_threads: int) -> Iterator[dict[str, float]]:
    """All figures of one folder's items, as they come. The items' names are their rows."""
    items_ND, queries_QD = np.load(folder / "items.npy"), np.load(folder / "queries.npy")
    before_mb = resident_mb()
    index = filled("ivf", items_ND, np.load(folder / "asked.npy"), num_threads, GOAL)
    yield {"memory_mb": resident_mb() - before_mb}
    yield of_filter(index, items_ND, queries_QD)
    yield of_changes(index, items_ND, queries_QD)
    yield of_swap(index, queries_QD)
    yield of_removals(index, items_ND, queries_QD)
    yield of_snapshot(index, num_threads)


def of_filter(index: LiveIndex, items_ND: Vectors, queries_QD: Vectors) -> dict[str, float]:
    """Recall and cost with a filter that keeps 1% of the items, at random."""
    rare = np.random.default_rng(3).random(len(items_ND)) < KEPT_SHARE
    told = [ItemAttributes(frozenset({"rare" if is_rare else "usual"})) for is_rare in rare.tolist()]
    index.upsert_attributes(list(map(str, range(len(items_ND)))), told)
    kept = np.flatnonzero(rare)
    asked_QD = queries_QD[:200]
    truth_QK = kept[np.argsort(-(asked_QD @ items_ND[kept].T), axis=1)[:, :K]]
    found = index.search(asked_QD, K, filter=RARE).ids
    batch, single = (_ratio(index, queries_QD, size) for size in (len(queries_QD), 1))
    rows_QK: Rows = np.array([list(map(int, ids)) for ids in found], dtype=np.int64)
    return {"filter_recall": recall(rows_QK, truth_QK), "filter_cost_batch": batch, "filter_cost_single": single}


def of_changes(index: LiveIndex, items_ND: Vectors, queries_QD: Vectors) -> dict[str, float]:
    """Changes a second, `CHANGED_AT_ONCE` in one call; the time until a search shows one; and searches with all of
    them."""
    ids = list(map(str, range(NUM_CHANGED)))
    pieces = [slice(start, start + CHANGED_AT_ONCE) for start in range(0, NUM_CHANGED, CHANGED_AT_ONCE)]

    def upsert() -> None:
        for piece in pieces:
            index.upsert(ids[piece], items_ND[piece])

    upsert_s = _seconds(upsert)
    searched_ms = _single_ms(index, queries_QD)
    shown_ms = []
    for query_D in queries_QD[:100]:
        started_s = time.perf_counter()
        index.upsert(["shown"], LONGER * query_D[None])
        assert index.search(query_D[None], 1).ids == [["shown"]]
        shown_ms.append(1000 * (time.perf_counter() - started_s))
    index.remove(["shown"])
    remove_s = _seconds(lambda: [index.remove(ids[piece]) for piece in pieces])
    return {
        "upserts_per_s": NUM_CHANGED / upsert_s,
        "removals_per_s": NUM_CHANGED / remove_s,
        "shown_p99_ms": float(np.percentile(shown_ms, 99)),
        "single_p99_ms_with_delta": float(np.percentile(searched_ms, 99)),
    }


def of_swap(index: LiveIndex, queries_QD: Vectors) -> dict[str, float]:
    """Single queries before and during a compaction, with a removal and a new item before each: errors, removed items
    answered, and changes that are lost when it is done.
    """
    before_ms = _single_ms(index, queries_QD)
    compaction = threading.Thread(target=index.compact)
    during_ms, num_returned, num_short, turn = [], 0, 0, NUM_CHANGED
    generation, started_s = index.status.generation, time.perf_counter()
    compaction.start()
    while compaction.is_alive():
        gone = str(turn)
        index.remove([gone])
        query_QD = queries_QD[turn % len(queries_QD)][None]
        index.upsert([f"new-{turn}"], query_QD)
        asked_s = time.perf_counter()
        found = index.search(query_QD, K).ids[0]
        during_ms.append(1000 * (time.perf_counter() - asked_s))
        num_returned += gone in found
        num_short += len(found) < K
        turn += 1
    assert index.status.generation == generation + 1, index.status
    turns = range(NUM_CHANGED, turn)
    num_back = int(index.vectors_of([str(number) for number in turns])[1].sum())
    num_kept = int(index.vectors_of([f"new-{number}" for number in turns])[1].sum())
    before, during = (float(np.percentile(taken, 99)) for taken in (before_ms, during_ms))
    return {
        "swap_s": time.perf_counter() - started_s,
        "swap_searches": len(during_ms),
        "swap_errors": num_returned + num_short,
        "swap_changes_lost": num_back + len(turns) - num_kept,
        "swap_p99_ms_before": before,
        "swap_p99_ms_during": during,
        "swap_p99_ratio": during / before,
    }


def of_removals(
    index: LiveIndex, items_ND: Vectors, queries_QD: Vectors, num_wanted: int = NUM_BESIDE_SWAPS
) -> dict[str, float]:
    """Searches while main segments are built and swapped without a pause: answers with an item that was removed before.
    Those removed are asked for by their own vectors, and given back after each batch.
    """
    is_done, generation = threading.Event(), index.status.generation

    def compact_on_and_on() -> None:
        while not is_done.is_set():
            index.compact()

    compaction = threading.Thread(target=compact_on_and_on)
    compaction.start()
    generator, num_searches, num_returned = np.random.default_rng(4), 0, 0
    while num_searches < num_wanted:
        rows = generator.choice(len(items_ND), REMOVED_AT_ONCE, replace=False)
        gone = list(map(str, rows.tolist()))
        index.remove(gone)
        asked_QD = np.concatenate([items_ND[rows], queries_QD[generator.choice(len(queries_QD), ASKED_AT_ONCE)]])
        answers = index.search(asked_QD, K).ids
        num_returned += sum(not set(gone).isdisjoint(ids) for ids in answers)
        num_searches += len(answers)
        index.upsert(gone, items_ND[rows])
    is_done.set()
    compaction.join()
    return {
        "removal_searches": num_searches,
        "removal_swaps": index.status.generation - generation,
        "removed_returned": num_returned,
    }


def of_snapshot(index: LiveIndex, num_threads: int) -> dict[str, float]:
    """Seconds to write one, and to load it into an empty index; wall and processor."""
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        write_s = _seconds(lambda: save(index, Path(folder), {}))
        other = LiveIndex(index.dim, index.release, options("ivf", num_threads, GOAL))
        cpu_s = time.process_time()
        load_s = _seconds(lambda: load(other, Path(folder)))
        cpu_s = time.process_time() - cpu_s
    assert len(other) == len(index)
    return {"snapshot_write_s": write_s, "snapshot_load_s": load_s, "snapshot_load_cpu_s": cpu_s}


def _ratio(index: LiveIndex, queries_QD: Vectors, size: int) -> float:
    """Processor time with the filter by that without, queries coming so many at a time; the middle of all."""
    pieces = [queries_QD[start : start + size] for start in range(0, len(queries_QD), size)][:200]
    costs = []
    for wanted in (RARE, None):
        taken = []
        for piece in [*pieces, *pieces, *pieces]:
            started_s = time.process_time()
            index.search(piece, K, filter=wanted)
            taken.append(time.process_time() - started_s)
        costs.append(float(np.median(taken)))
    return costs[0] / costs[1]


def _single_ms(index: LiveIndex, queries_QD: Vectors) -> list[float]:
    rows = np.arange(NUM_SINGLES) % len(queries_QD)
    return [1000 * _seconds(partial(index.search, queries_QD[row : row + 1], K)) for row in rows.tolist()]


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


if __name__ == "__main__":
    for figures in life(Path(sys.argv[1]), int(sys.argv[2])):
        print(json.dumps(figures), flush=True)
