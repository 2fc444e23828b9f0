"""The parts of the measurement of new items: who is watched, when an item counts as found, and the figures."""

from __future__ import annotations

import numpy as np
import pytest

from index import build_index
from tests.bench.items import PROBED_ONE_IN, K, Shown, Watcher, new_items, new_vectors, probes, result_of, rows_of
from tests.support import wait_until

DIM = 8
TRAINED_ND = np.random.default_rng(0).standard_normal((3 * K, DIM)).astype(np.float32)
IDS = [f"i{number}" for number in range(len(TRAINED_ND))]


def test_an_item_counts_as_found_once_a_search_gives_it() -> None:
    index = build_index("faiss", DIM, "r1")
    index.upsert(IDS, TRAINED_ND)
    vectors = new_vectors(3, TRAINED_ND, np.random.default_rng(1))
    watcher = Watcher(index)
    with watcher.asking():
        for item_id, vector_D in vectors.items():
            watcher.expect(item_id, vector_D)
        index.upsert(["vector-1"], vectors["vector-1"][None])
        wait_until(lambda: watcher.num_waiting == 2, what="the one item to be found")
        index.upsert(["vector-0", "vector-2"], np.stack([vectors["vector-0"], vectors["vector-2"]]))
        wait_until(lambda: watcher.num_waiting == 0, what="all items to be found")
    assert next(iter(watcher.found_ms)) == "vector-1" and watcher.found_ms.keys() == vectors.keys()


def test_nothing_is_watched_that_its_own_vector_would_not_find() -> None:
    index = build_index("faiss", DIM, "r1")
    index.upsert(IDS, TRAINED_ND)
    vectors = {f"v{number}": TRAINED_ND[number] * 100 for number in range(2 * PROBED_ONE_IN)}
    # Their directions are others' too, and those are longer.
    short = {f"short{number}": TRAINED_ND[0] * 0.001 for number in range(PROBED_ONE_IN)}
    assert probes(index, short | vectors) == ["v0", f"v{PROBED_ONE_IN}"]
    assert len(index) == len(IDS)


def test_items_are_made_of_the_words_of_titles() -> None:
    items = new_items(4, ["Iron Man", "Man of Steel"], np.random.default_rng(0))
    assert len({item.item_id for item in items}) == 4
    assert {word for item in items for word in (item.title or "").split()} <= {"Iron", "Man", "of", "Steel"}


def test_the_figures_by_hand() -> None:
    found = {"items": Shown([10.0, 20.0, 30.0], 0, 1.5), "item-vectors": Shown([1.0], 2, 0.0)}
    result = result_of(found, 500, 7)
    assert result.figures["items: p50_ms"].value == 20.0
    assert result.figures["items: p99_ms"].reached and result.figures["items: p99_ms"].value == pytest.approx(29.8)
    assert result.figures["item-vectors: missed"].reached is False and not result.is_sound
    assert rows_of(found)[0] == ["items -> search", "20.0", "29.0", "29.8", "30.0"]
