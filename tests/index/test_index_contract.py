"""What every index promises, checked on each implementation."""

from __future__ import annotations

import threading
from typing import get_args

import numpy as np
import pytest

from index import (
    IndexArgumentError,
    IndexKind,
    ItemIndex,
    VectorRefusedError,
    build_index,
)
from index.contract import Float32Array

DIM = 8
KINDS: tuple[IndexKind, ...] = get_args(IndexKind)


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest) -> ItemIndex:
    return build_index(request.param, DIM, "r1")


def vectors(num: int, seed: int = 0, dim: int = DIM) -> Float32Array:
    return np.random.default_rng(seed).standard_normal((num, dim)).astype(np.float32)


def names(num: int, start: int = 0) -> list[str]:
    return [f"i{n:05d}" for n in range(start, start + num)]


def unit(*places: int) -> Float32Array:
    rows = np.zeros((len(places), DIM), dtype=np.float32)
    rows[np.arange(len(places)), list(places)] = 1
    return rows


def test_implements_the_protocol(index: ItemIndex) -> None:
    assert isinstance(index, ItemIndex)
    assert (index.dim, index.release, index.version, len(index)) == (DIM, "r1", 0, 0)


def test_best_first_with_the_inner_products_as_scores(index: ItemIndex) -> None:
    index.upsert(["low", "high", "mid"], unit(0, 0, 0) * np.array([[1], [3], [2]], dtype=np.float32))
    result = index.search(unit(0) * 2, k=2)
    assert result.ids == [["high", "mid"]]
    assert result.scores_QK.dtype == np.float32
    assert result.scores_QK.tolist() == [[6.0, 4.0]]
    assert result.version == index.version == 1


def test_equal_scores_go_by_smaller_id_whatever_the_order_of_insertion(index: ItemIndex) -> None:
    ids = ["b", "é", "a", "10", "9"]
    index.upsert(ids, unit(0, 0, 0, 0, 0))
    assert index.search(unit(0), k=5).ids == [["10", "9", "a", "b", "é"]]
    assert index.search(unit(0), k=2).ids == [["10", "9"]]


def test_many_equal_scores_at_the_cut_still_go_by_smaller_id(index: ItemIndex) -> None:
    ids = names(900)
    shuffled = list(np.random.default_rng(3).permutation(ids))
    index.upsert(shuffled, np.repeat(unit(0), 900, axis=0))
    index.upsert(["best"], unit(0) * 2)
    assert index.search(unit(0), k=10).ids == [["best", *ids[:9]]]


def test_a_near_tie_is_decided_by_the_score_not_by_the_id(index: ItemIndex) -> None:
    nearly = np.float32(1) - np.float32(2.0**-24)
    index.upsert(["a", "z"], unit(0, 0) * np.array([[nearly], [1]], dtype=np.float32))
    assert index.search(unit(0), k=1).ids == [["z"]]


@pytest.mark.parametrize(("num_items", "k"), [(0, 5), (3, 5), (5, 5), (40, 5), (40, 1000)])
def test_answers_min_of_k_and_count_items_each_once(index: ItemIndex, num_items: int, k: int) -> None:
    index.upsert(names(num_items), vectors(num_items))
    result = index.search(vectors(3, seed=9), k)
    assert result.scores_QK.shape == (3, min(k, num_items))
    for found in result.ids:
        assert len(found) == len(set(found)) == min(k, num_items)
        assert set(found) <= set(names(num_items))


def test_no_queries_give_an_empty_answer(index: ItemIndex) -> None:
    index.upsert(names(4), vectors(4))
    result = index.search(np.empty((0, DIM), dtype=np.float32), k=3)
    assert result.ids == []
    assert result.scores_QK.shape == (0, 3)


@pytest.mark.parametrize("batch", [1, 2, 19, 20, 33, 64])
def test_a_query_is_answered_alike_in_every_batch(index: ItemIndex, batch: int) -> None:
    index.upsert(names(700), vectors(700))
    queries = vectors(64, seed=5)
    whole = index.search(queries, k=40)
    for start in range(0, 64, batch):
        part = index.search(queries[start : start + batch], k=40)
        assert part.ids == whole.ids[start : start + batch]
        assert part.scores_QK.tobytes() == whole.scores_QK[start : start + batch].tobytes()


def test_upsert_replaces_and_the_last_of_equal_ids_counts(index: ItemIndex) -> None:
    index.upsert(["a", "b"], unit(0, 1))
    index.upsert(["a", "c", "a"], unit(2, 3, 4))
    assert len(index) == 3
    found_vectors, found = index.vectors_of(["a", "b", "c", "none"])
    assert found.tolist() == [True, True, True, False]
    assert found_vectors[:3].tolist() == unit(4, 1, 3).tolist()
    assert not found_vectors[3].any()
    assert index.search(unit(4), k=1).ids == [["a"]]


def test_a_removed_item_is_gone_and_may_come_back(index: ItemIndex) -> None:
    index.upsert(names(6), unit(0, 1, 2, 3, 4, 5))
    assert index.remove(["i00001", "i00005", "unknown", "i00001"]) == 2
    assert len(index) == 4
    everything = index.search(unit(1), k=10)
    assert sorted(everything.ids[0]) == ["i00000", "i00002", "i00003", "i00004"]
    index.upsert(["i00001"], unit(7))
    assert index.search(unit(7), k=1).ids == [["i00001"]]


def test_removing_all_leaves_a_working_index(index: ItemIndex) -> None:
    index.upsert(names(5), vectors(5))
    assert index.remove(names(5)) == 5
    assert len(index) == 0
    assert index.search(vectors(2), k=3).ids == [[], []]
    assert index.vectors_of(["i00000"])[1].tolist() == [False]
    index.upsert(["x"], vectors(1))
    assert index.search(vectors(1), k=3).ids == [["x"]]


def test_version_grows_with_calls_that_change_something_only(index: ItemIndex) -> None:
    index.upsert(names(3), vectors(3))
    index.upsert(names(3), vectors(3, seed=1))
    index.remove(["i00002"])
    assert index.version == 3
    index.upsert([], np.empty((0, DIM), dtype=np.float32))
    index.remove(["i00002"])
    index.search(vectors(1), k=1)
    assert index.version == 3


def test_inputs_are_not_changed_nor_kept(index: ItemIndex) -> None:
    given, query = vectors(5), vectors(1, seed=2)
    given_before, query_before = given.copy(), query.copy()
    index.upsert(names(5), given)
    index.search(query, k=3)
    assert (given == given_before).all()
    assert (query == query_before).all()
    given[:] = 7
    looked_up, _ = index.vectors_of(names(5))
    assert (looked_up == given_before).all()
    looked_up[:] = 9
    assert (index.vectors_of(names(5))[0] == given_before).all()


BAD_VALUES = [
    (np.nan, "NaN or infinity"),
    (np.inf, "NaN or infinity"),
    (-np.inf, "NaN or infinity"),
    (0.0, "all zeros"),
    (1e30, "longer than"),
]


@pytest.mark.parametrize(("value", "reason"), BAD_VALUES)
def test_bad_vectors_refuse_the_whole_call(index: ItemIndex, value: float, reason: str) -> None:
    index.upsert(["kept"], unit(0))
    bad = vectors(4)
    bad[[1, 3]] = value
    with pytest.raises(VectorRefusedError, match=reason) as caught:
        index.upsert(["kept", "x", "y", "z"], bad)
    assert (caught.value.num_refused, caught.value.num_given) == (2, 4)
    assert "'x'" in str(caught.value)
    assert (len(index), index.version) == (1, 1)
    assert index.vectors_of(["kept"])[0].tolist() == unit(0).tolist()
    with pytest.raises(VectorRefusedError, match=reason):
        index.search(bad, k=1)


def test_a_float64_beyond_float32_is_refused_as_infinite(index: ItemIndex) -> None:
    with pytest.raises(VectorRefusedError, match="NaN or infinity"):
        index.upsert(["a"], np.full((1, DIM), 1e300))


@pytest.mark.parametrize("shape", [(2, DIM + 1), (2, DIM - 1), (DIM,), (1, 2, DIM)])
def test_vectors_of_another_dimension_are_refused(index: ItemIndex, shape: tuple[int, ...]) -> None:
    wrong = np.ones(shape, dtype=np.float32)
    with pytest.raises(VectorRefusedError, match="expected \\(N, 8\\)"):
        index.upsert(names(len(wrong)), wrong)
    with pytest.raises(VectorRefusedError, match="expected \\(N, 8\\)"):
        index.search(wrong, k=1)
    assert len(index) == 0


def test_vectors_of_another_release_never_meet(index: ItemIndex) -> None:
    index.upsert(["a"], unit(0), release="r1")
    with pytest.raises(VectorRefusedError, match=r"'r2'.*'r1'") as caught:
        index.upsert(["b", "c"], unit(0, 1), release="r2")
    assert caught.value.reasons == {"another release": 2}
    with pytest.raises(VectorRefusedError, match="'r2'"):
        index.search(unit(0), k=1, release="r2")
    assert index.search(unit(0), k=2, release="r1").ids == [["a"]]


def test_arguments_that_make_no_sense_are_refused(index: ItemIndex) -> None:
    with pytest.raises(IndexArgumentError, match="k=0"):
        index.search(unit(0), k=0)
    with pytest.raises(IndexArgumentError, match="1 ids for 2 vectors"):
        index.upsert(["a"], unit(0, 1))
    with pytest.raises(IndexArgumentError, match="empty item id"):
        index.upsert(["a", ""], unit(0, 1))
    assert (len(index), index.version) == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_needs_a_dimension_and_a_release(kind: IndexKind) -> None:
    with pytest.raises(IndexArgumentError):
        build_index(kind, 0, "r1")
    with pytest.raises(IndexArgumentError):
        build_index(kind, 8, "")


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(IndexArgumentError, match=r"'hnsw'.*use 'faiss' or 'exact'"):
        build_index("hnsw", 8, "r1")  # type: ignore[arg-type]


def test_searches_beside_changes_never_come_up_short(index: ItemIndex) -> None:
    """Two items at least are always in the index, so a search beside changes never comes up short."""
    index.upsert(["even-a", "even-b"], unit(0, 0))
    wrong: list[list[str]] = []

    def search_often() -> None:
        for _ in range(300):
            found = index.search(unit(0), k=2).ids[0]
            if len(found) != 2:
                wrong.append(found)

    searcher = threading.Thread(target=search_often)
    searcher.start()
    for turn in range(150):
        first, second = ("odd", "even") if turn % 2 == 0 else ("even", "odd")
        index.upsert([f"{first}-a", f"{first}-b", *names(40, start=40 * turn)], vectors(42, seed=turn))
        index.remove([f"{second}-a", f"{second}-b"])
    searcher.join(timeout=60)
    assert not searcher.is_alive()
    assert wrong == []
    assert len(index) == 2 + 150 * 40
