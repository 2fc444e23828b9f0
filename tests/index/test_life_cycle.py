"""Filters, exclusions, contents and swaps, checked on every implementation, in main segment and delta."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from index import IndexArgumentError, ItemAttributes, ItemFilter, ItemIndex, LiveIndex, VectorRefusedError
from index.attribute_columns import as_columns, from_columns
from index.contract import IndexContents
from index.exact import ExactIndex
from tests.index.cases import CASES, DIM, names, prepare, settle, vectors

NUM_ITEMS = 400


@pytest.fixture(params=CASES)
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ItemIndex:
    return prepare(CASES[request.param], monkeypatch)


def told(number: int) -> ItemAttributes:
    """Every third item costs nothing that is known; every fifth is not available; one in a hundred is rare."""
    categories = {f"c{number % 7}", "all"} | ({"rare"} if number % 100 == 0 else set())
    return ItemAttributes(frozenset(categories), None if number % 3 == 0 else number / 10, number % 5 != 0)


def fill(*indexes: ItemIndex) -> None:
    """Most items in the main segment, some of those replaced or removed, and some in the delta."""
    for index in indexes:
        index.upsert(names(NUM_ITEMS), vectors(NUM_ITEMS))
        settle(index)
        index.upsert_attributes(names(NUM_ITEMS), [told(number) for number in range(NUM_ITEMS)])
        index.upsert(names(60, start=370), vectors(60, seed=1))
        index.upsert_attributes(names(10, start=400), [told(number) for number in range(10)])
        index.remove(names(50, start=100))


FILTERS = [
    ItemFilter(),
    ItemFilter(categories=frozenset({"rare"})),
    ItemFilter(categories=frozenset({"c1", "c2", "unheard of"})),
    ItemFilter(categories=frozenset({"unheard of"})),
    ItemFilter(categories=frozenset()),
    ItemFilter(available_only=True),
    ItemFilter(min_price=10.0),
    ItemFilter(max_price=10.0),
    ItemFilter(frozenset({"all"}), available_only=True, min_price=5.0, max_price=5.5),
]


def assert_like_the_oracle(index: ItemIndex, k: int, *, least: float = 0.9, **limits: object) -> None:
    """The same answers from an exact implementation; from others as many, all of them allowed, in order, and mostly the
    best."""
    oracle = ExactIndex(DIM, "r1")
    fill(index, oracle)
    queries = vectors(24, seed=9)
    seen, expected = index.search(queries, k, **limits), oracle.search(queries, k, **limits)  # type: ignore[arg-type]
    assert list(map(len, seen.ids)) == list(map(len, expected.ids))
    assert seen.scores_QK.shape == expected.scores_QK.shape
    everything = oracle.search(queries, len(oracle), **limits)  # type: ignore[arg-type]
    for query, ids in enumerate(seen.ids):
        score_of = dict(zip(everything.ids[query], everything.scores_QK[query].tolist(), strict=False))
        ordered = sorted((-score_of[item_id], item_id) for item_id in ids)
        assert [item_id for _, item_id in ordered] == ids
        assert seen.scores_QK[query].tolist()[: len(ids)] == [-negated for negated, _ in ordered]
    shared = sum(len(set(one) & set(other)) for one, other in zip(seen.ids, expected.ids, strict=True))
    assert shared >= least * sum(map(len, expected.ids))


@pytest.mark.parametrize("wanted", FILTERS)
@pytest.mark.parametrize("k", [10, 1000])
def test_a_filter_keeps_what_matches_and_nothing_else(index: ItemIndex, wanted: ItemFilter, k: int) -> None:
    assert_like_the_oracle(index, k, filter=wanted)


@pytest.mark.parametrize("num_excluded", [0, 3, 200, 360])
def test_exclusions_are_each_querys_own(index: ItemIndex, num_excluded: int) -> None:
    shuffled = np.random.default_rng(5).permutation(names(NUM_ITEMS + 100)).tolist()
    exclude = [shuffled[query : query + num_excluded * (query % 2)] for query in range(24)]
    assert_like_the_oracle(index, 50, exclude=exclude)


def test_filter_and_exclusions_together(index: ItemIndex) -> None:
    exclude = [set(names(300))] * 12 + [frozenset[str]()] * 12
    assert_like_the_oracle(index, 30, filter=ItemFilter(categories=frozenset({"c1", "c3"})), exclude=exclude)


def test_without_limits_tombstones_and_delta_do_not_show(index: ItemIndex) -> None:
    assert_like_the_oracle(index, 50)


def test_the_very_best_being_removed_leaves_k(index: ItemIndex) -> None:
    """Far more tombstones before the first answer than any over-fetch foresees."""
    base = vectors(1, seed=3)
    index.upsert(names(300), base * np.linspace(3, 2, 300, dtype=np.float32)[:, None])
    index.upsert(names(100, start=300), vectors(100, seed=4) * np.float32(0.1))
    settle(index)
    index.remove(names(295))
    found = index.search(base, k=20).ids[0]
    assert len(found) == 20
    assert found[0] == "i00295"
    is_graph = isinstance(index, LiveIndex) and index.status.kind == "hnsw"
    assert is_graph or found[:5] == names(5, start=295)


def test_excluding_the_very_best_leaves_k(index: ItemIndex) -> None:
    base = vectors(1, seed=3)
    index.upsert(names(400), base * np.linspace(3, 2, 400, dtype=np.float32)[:, None])
    settle(index)
    found = index.search(np.repeat(base, 2, axis=0), k=20, exclude=[names(380), ()]).ids
    assert found == [names(20, start=380), names(20)]


def test_filters_follow_changes_of_attributes(index: ItemIndex) -> None:
    fill(index)
    wanted, query = ItemFilter(categories=frozenset({"new"})), vectors(1, seed=2)
    assert index.search(query, k=5, filter=wanted).ids == [[]]
    in_main, in_delta = "i00050", "i00405"
    index.upsert_attributes([in_main, in_delta], [ItemAttributes(frozenset({"new"}))] * 2)
    assert sorted(index.search(query, k=5, filter=wanted).ids[0]) == [in_main, in_delta]
    index.upsert_attributes([in_main], [ItemAttributes(frozenset({"old"}))])
    assert index.search(query, k=5, filter=wanted).ids == [[in_delta]]
    assert index.remove_attributes([in_delta, "unknown"]) == 1
    assert index.search(query, k=5, filter=wanted).ids == [[]]


def test_attributes_may_come_before_the_vector_and_stay_after_it(index: ItemIndex) -> None:
    wanted, row = ItemFilter(categories=frozenset({"tea"})), vectors(1)
    index.upsert_attributes(["a"], [ItemAttributes(frozenset({"tea"}))])
    assert (len(index), index.search(row, k=1, filter=wanted).ids) == (0, [[]])
    index.upsert(["a", "b"], vectors(2))
    assert index.search(row, k=5, filter=wanted).ids == [["a"]]
    index.remove(["a"])
    assert index.search(row, k=5, filter=wanted).ids == [[]]
    index.upsert(["a"], row)
    assert index.search(row, k=5, filter=wanted).ids == [["a"]]


def test_a_new_item_has_nothing_of_one_that_went(index: ItemIndex) -> None:
    index.upsert(["old"], vectors(1))
    index.upsert_attributes(["old"], [ItemAttributes(frozenset({"tea"}), 1.0, available=False)])
    index.remove(["old"])
    index.remove_attributes(["old"])
    index.upsert(["new"], vectors(1))
    assert index.search(vectors(1), k=1, filter=ItemFilter(frozenset({"tea"}))).ids == [[]]
    assert index.search(vectors(1), k=1, filter=ItemFilter(available_only=True)).ids == [["new"]]


def test_version_grows_with_changes_of_attributes_too(index: ItemIndex) -> None:
    index.upsert_attributes(["a"], [ItemAttributes()])
    assert index.version == 1
    index.upsert_attributes([], [])
    assert index.remove_attributes(["b"]) == 0
    assert index.version == 1
    assert index.remove_attributes(["a"]) == 1
    assert index.version == 2


def test_contents_swapped_into_another_index_answer_alike(index: ItemIndex) -> None:
    fill(index)
    contents, version = index.contents(), index.version
    assert (len(contents.ids), contents.release, version) == (len(index), "r1", index.version)
    other = ExactIndex(DIM, "r1")
    other.upsert(["gone"], vectors(1))
    other.swap(contents)
    assert sorted(other.contents().ids) == sorted(contents.ids)
    assert from_columns(other.contents().attributes) == from_columns(contents.attributes)
    queries, everything = vectors(6, seed=8), len(index)
    assert index.search(queries, everything).ids == other.search(queries, everything).ids
    index.remove(names(NUM_ITEMS))
    index.swap(contents)
    assert index.version == version + 2
    for wanted in (None, *FILTERS):
        seen, expected = (one.search(queries, everything, filter=wanted) for one in (index, other))
        assert (seen.ids, seen.scores_QK.tobytes()) == (expected.ids, expected.scores_QK.tobytes())


def test_contents_are_a_copy(index: ItemIndex) -> None:
    fill(index)
    contents = index.contents()
    before = contents.vectors_ND.copy()
    index.upsert(names(NUM_ITEMS), vectors(NUM_ITEMS, seed=7))
    assert (contents.vectors_ND == before).all()
    contents.vectors_ND[:] = 1
    assert (index.vectors_of(["i00000"])[0] == vectors(1, seed=7)).all()


def test_nothing_is_left_of_what_was_swapped_out(index: ItemIndex) -> None:
    fill(index)
    index.swap(IndexContents("r1", [], np.empty((0, DIM), dtype=np.float32), as_columns({})))
    assert len(index) == 0
    assert index.search(vectors(1), k=5).ids == [[]]
    assert not index.contents().attributes.ids


def test_contents_that_do_not_fit_are_refused_whole(index: ItemIndex) -> None:
    index.upsert(["kept"], vectors(1))
    good = IndexContents("r1", ["a", "b"], vectors(2), as_columns({"a": ItemAttributes(frozenset({"tea"}))}))
    wrong_codes = replace(good.attributes, codes_NC=np.array([[7]], dtype=np.int32))
    for bad, error in [
        (replace(good, release="r2"), VectorRefusedError),
        (replace(good, vectors_ND=vectors(2) * np.nan), VectorRefusedError),
        (replace(good, vectors_ND=vectors(2, dim=DIM + 1)), VectorRefusedError),
        (replace(good, vectors_ND=vectors(3)), IndexArgumentError),
        (replace(good, ids=["a", "a"]), IndexArgumentError),
        (replace(good, ids=["a", ""]), IndexArgumentError),
        (replace(good, attributes=wrong_codes), IndexArgumentError),
    ]:
        with pytest.raises(error):
            index.swap(bad)
    assert (index.contents().ids, index.version) == (["kept"], 1)


def test_attributes_that_no_column_can_hold_are_refused(index: ItemIndex) -> None:
    for ids, attributes in [
        (["a"], []),
        ([""], [ItemAttributes()]),
        (["a"], [ItemAttributes(price=float("nan"))]),
        (["a"], [ItemAttributes(frozenset(map(str, range(65))))]),
    ]:
        with pytest.raises(IndexArgumentError):
            index.upsert_attributes(ids, attributes)
    with pytest.raises(IndexArgumentError, match="1 exclusions for 2 queries"):
        index.search(vectors(2), k=1, exclude=[()])
    assert index.version == 0


@pytest.mark.parametrize("batch", [1, 15, 16, 40])
def test_a_query_is_answered_alike_in_every_batch_and_after_compaction_too(index: ItemIndex, batch: int) -> None:
    fill(index)
    queries, exclude = vectors(80, seed=5), [names(query) for query in range(80)]
    wanted = ItemFilter(available_only=True)
    whole = index.search(queries, k=20, filter=wanted, exclude=exclude)
    for start in range(0, 80, batch):
        part = index.search(queries[start:][:batch], k=20, filter=wanted, exclude=exclude[start:][:batch])
        assert part.ids == whole.ids[start:][:batch]
        assert part.scores_QK.tobytes() == whole.scores_QK[start:][:batch].tobytes()


def test_compaction_shows_in_the_status_alone(index: ItemIndex) -> None:
    fill(index)
    version, contents, queries = index.version, index.contents(), vectors(5, seed=6)
    before = index.search(queries, len(index)).ids
    settle(index)
    assert (index.version, len(index)) == (version, len(contents.ids))
    assert index.search(queries, len(index)).ids == before
    if isinstance(index, LiveIndex) and index.status.kind is not None:
        assert (index.status.delta_items, index.status.tombstones) == (0, 0)
        index.remove(names(NUM_ITEMS + 30)[5:])
        settle(index)
        status = index.status
        assert (status.kind, status.delta_items) == (None, 5)
