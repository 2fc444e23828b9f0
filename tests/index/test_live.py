"""Compaction beside searches and changes, refusals, and what is built when."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
import pytest

from index import ItemAttributes, ItemFilter, LiveIndex, LiveOptions, SwapRefusedError
from index.contract import Float32Array, Int64Array
from index.exact import ExactIndex
from index.inverted_file import InvertedFile
from index.main_segment import RecallGoal
from index.pool import in_threads
from index.sizes import ALWAYS_FLAT, LEAST_DELTA, SizeRule
from index.structures import FlatStructure, StructureKind
from tests.index.cases import DIM, live, names, vectors

KINDS: tuple[StructureKind, ...] = ("flat", "ivf", "hnsw")


@contextmanager
def repeated(*works: Callable[[int], None]) -> Iterator[None]:
    """Each work again and again on a thread of its own, told its turn, until the block ends. What one raises, the block
    raises."""
    stop, errors = threading.Event(), list[BaseException]()

    def run(work: Callable[[int], None]) -> None:
        turn = 0
        try:
            while not stop.is_set():
                work(turn)
                turn += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads)


class Churn:
    """Items that come and go beside steady ones, on one thread, and searches that look for them, on others.

    A removal counts from its return on.
    """

    def __init__(self, index: LiveIndex) -> None:
        self.index = index
        self.steady = names(50)
        self.gone: set[str] = set()
        self.num_searches = 0
        index.upsert(self.steady, vectors(50, seed=1))

    def search(self, turn: int) -> None:
        """Every steady item is found, and no removed one, with a filter every other time."""
        acknowledged = frozenset(self.gone)
        wanted = ItemFilter(available_only=True) if turn % 2 else None
        for ids in self.index.search(vectors(3, seed=turn), 200, filter=wanted).ids:
            assert acknowledged.isdisjoint(ids)
            assert len(ids) == len(set(ids))
            assert set(self.steady) <= set(ids)
        self.num_searches += 1

    def change(self, turn: int) -> None:
        """Twenty items come, are told of, and go; some steady ones get other vectors."""
        fresh = names(20, start=1000 + 20 * turn)
        self.index.upsert(fresh, vectors(20, seed=turn) * np.float32(3))
        moved = self.steady[turn % 50 :][:5]
        self.index.upsert(moved, vectors(len(moved), seed=turn))
        self.index.upsert_attributes(fresh, [ItemAttributes(available=turn % 3 > 0)] * 20)
        assert self.index.remove(fresh) == 20
        self.gone.update(fresh)
        self.index.remove_attributes(fresh)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_removed_items_never_come_back_beside_everything_else(kind: StructureKind) -> None:
    """Searches, upserts, removals, changed attributes and compactions at once."""
    index = live(kind)
    churn = Churn(index)
    with repeated(churn.search, churn.search, churn.change):
        for _ in range(25):
            index.compact()
    assert index.status.generation == 25
    assert churn.num_searches
    assert churn.gone
    assert len(index) == 50
    assert index.vectors_of(churn.steady)[1].all()


def test_what_changes_while_a_main_segment_is_built_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    index, oracle = live("flat"), ExactIndex(DIM, "r1")
    for one in (index, oracle):
        one.upsert(names(300), vectors(300))
    build = FlatStructure.__init__

    def change_first(self: FlatStructure, numbers_R: Int64Array, vectors_RD: Float32Array, *, on_gpu: bool) -> None:
        for one in (index, oracle):
            one.upsert(names(20, start=290), vectors(20, seed=1))
            one.remove(names(20))
            one.upsert(["came and went"], vectors(1))
            one.remove(["came and went"])
            one.remove(["i00100"])
            one.upsert(["i00100"], vectors(1, seed=2))
        build(self, numbers_R, vectors_RD, on_gpu=on_gpu)

    monkeypatch.setattr(FlatStructure, "__init__", change_first)
    index.compact()
    monkeypatch.undo()
    status = index.status
    assert (status.main_items, status.delta_items, status.tombstones) == (300 - 20 - 10 - 1, 21, 31)
    for _ in range(2):
        assert index.search(vectors(9, seed=4), 400).ids == oracle.search(vectors(9, seed=4), 400).ids
        index.compact()
    assert index.status.delta_items == 0


def make_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have inverted files find one item for each query."""
    find = InvertedFile.candidates

    def one_only(self: InvertedFile, queries_QD: Float32Array, num: int, *others: object) -> Int64Array:
        return find(self, queries_QD, 1, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(InvertedFile, "candidates", one_only)


def test_a_segment_that_misses_too_much_is_refused_and_the_old_one_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    make_blind(monkeypatch)
    index = live("ivf", least=0.5)
    index.upsert(names(500), vectors(500))
    before, contents = index.search(vectors(4, seed=1), 20), index.contents()
    with pytest.raises(SwapRefusedError, match=r"finds 0\.0\d\d of what exact search finds, expected 0\.500") as caught:
        index.compact()
    assert caught.value.recall < 0.5
    assert index.status.last_refusal == str(caught.value)
    assert index.status.kind is None
    with pytest.raises(SwapRefusedError):
        index.swap(contents)
    index.upsert(["later"], vectors(1, seed=2) * np.float32(0.001))
    index.remove(["later"])
    assert index.search(vectors(4, seed=1), 20).ids == before.ids


def test_after_a_refusal_a_good_segment_clears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    index = live("ivf", least=0.5)
    index.upsert(names(500), vectors(500))
    make_blind(monkeypatch)
    with pytest.raises(SwapRefusedError):
        index.compact()
    monkeypatch.undo()
    index.compact()
    assert (index.status.kind, index.status.last_refusal) == ("ivf", "")
    assert index.status.recall >= 0.5


def test_a_compaction_of_its_own_comes_when_it_is_due(caplog: pytest.LogCaptureFixture) -> None:
    sizes = SizeRule(flat=100, kind="ivf")
    index = LiveIndex(DIM, "r1", LiveOptions(sizes=sizes, goal=RecallGoal(0.9, 0.0)))
    index.upsert(names(100), vectors(100))
    assert index.wait(60)
    assert index.status.kind is None
    index.upsert(names(200, start=100), vectors(200, seed=1))
    assert index.wait(60)
    status = index.status
    assert (status.kind, status.main_items) == ("ivf", 300)
    index.remove(names(100))
    assert index.wait(60)
    assert (index.status.main_items, index.status.tombstones, index.status.generation) == (200, 0, 2)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_refusal_on_its_own_thread_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_blind(monkeypatch)
    index = LiveIndex(DIM, "r1", LiveOptions(sizes=SizeRule(flat=100, kind="ivf")))
    index.upsert(names(150), vectors(150))
    assert index.wait(60)
    assert "Refused a new main segment of 150 items" in caplog.text
    index.upsert(["one more"], vectors(1))
    assert index.wait(60)
    assert caplog.text.count("Refused a new") == 1


def test_when_a_rebuild_is_due() -> None:
    rule = SizeRule(flat=1000)
    assert not rule.is_due(0, 0, 1000, 0)
    assert rule.is_due(0, 0, 1001, 0)
    assert not rule.is_due(0, 0, 1001, 1)
    assert rule.is_due(0, 0, 2001, 1)
    assert not rule.is_due(10_000, 2000, LEAST_DELTA, 0)
    assert rule.is_due(10_000, 0, LEAST_DELTA + 1, 0)
    assert rule.is_due(10_000, 2001, 0, 0)
    assert not rule.is_due(1_000_000, 0, 10_000, 0)
    assert rule.is_due(1_000_000, 0, 10_001, 0)
    assert rule.is_due(1_000_000, 0, 1_000_000, 1000)
    assert not ALWAYS_FLAT.is_due(0, 0, 10**9, 0)


def test_the_structure_goes_by_size_and_by_what_there_is() -> None:
    rule = SizeRule(flat=10, hnsw=100)
    assert [rule.kind_for(num, 0) for num in (0, 10, 11, 100, 101)] == [None, None, "hnsw", "hnsw", "ivf"]
    assert [rule.kind_for(num, 1) for num in (10, 11)] == [None, "gpu"]
    assert SizeRule(flat=10, kind="ivf").kind_for(11, 1) == "ivf"


@pytest.mark.parametrize("num_queries", [0, 1, 15, 16, 17, 33, 600])
def test_batches_are_cut_and_put_together_in_order(num_queries: int) -> None:
    queries = vectors(num_queries)
    for num_threads in (1, 2, 5):
        pieces = in_threads(lambda piece: piece.copy(), queries, num_threads)
        assert (np.concatenate(pieces) == queries).all()


def test_several_threads_answer_as_one_does() -> None:
    answers = []
    for num_threads in (1, 3):
        options = LiveOptions(num_threads, sizes=SizeRule(flat=8, kind="ivf"), compacts_itself=False)
        index = LiveIndex(DIM, "r1", options)
        index.upsert(names(2000), vectors(2000))
        index.compact()
        result = index.search(vectors(700, seed=1), 30)
        answers.append((result.ids, result.scores_QK.tobytes()))
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_recall_reaches_the_goal_at_a_size_where_parts_matter() -> None:
    options = LiveOptions(sizes=SizeRule(flat=1000, kind="ivf"), goal=RecallGoal(0.95, 0.95), compacts_itself=False)
    index, oracle = LiveIndex(16, "r1", options), ExactIndex(16, "r1")
    rows = vectors(20_000, dim=16)
    for one in (index, oracle):
        one.upsert(names(20_000), rows)
    index.search(vectors(256, seed=1, dim=16), 1)
    index.compact()
    assert index.status.effort < 500
    queries = vectors(30, seed=2, dim=16)
    seen, expected = index.search(queries, 50), oracle.search(queries, 50)
    recall = sum(len(set(one) & set(other)) for one, other in zip(seen.ids, expected.ids, strict=True)) / (30 * 50)
    assert recall >= 0.92, f"recall {recall}"


@pytest.mark.gpu
@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="FAISS finds no GPU")
def test_gpu_answers_as_the_oracle_does() -> None:
    index, oracle = live("gpu"), ExactIndex(DIM, "r1")
    for one in (index, oracle):
        one.upsert(names(3000), vectors(3000))
    index.compact()
    assert index.status.kind == "gpu"
    for one in (index, oracle):
        one.remove(names(1000))
        one.upsert(names(50, start=2990), vectors(50, seed=1))
    queries = vectors(40, seed=2)
    for k in (1, 50, 3000):
        assert index.search(queries, k).ids == oracle.search(queries, k).ids


@pytest.mark.gpu
@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="FAISS finds no GPU")
def test_gpu_is_searched_from_several_threads() -> None:
    index = live("gpu")
    index.upsert(names(3000), vectors(3000))
    index.compact()
    expected = index.search(vectors(8, seed=1), 20).ids

    def search(_: int) -> None:
        assert index.search(vectors(8, seed=1), 20).ids == expected

    with repeated(search, search, search):
        for _ in range(5):
            index.compact()


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_what_changes_during_a_swap_is_changed_in_the_new_contents(
    kind: StructureKind | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change at every moment of the build: before, within and after it, by whoever is beside it."""
    rows = vectors(400)
    index = live(kind) if kind else LiveIndex(DIM, "r1", LiveOptions(sizes=ALWAYS_FLAT))
    index.upsert(names(300), rows[:300])
    contents = index.contents()
    index.upsert(["before"], rows[300:301])
    built = LiveIndex._built

    def disturbed(self: LiveIndex, *arguments: Any) -> Any:
        own = rows[301:302].copy()
        self.upsert(["during"], own)
        own[:] = 0
        self.remove([names(300)[0]])
        items = built(self, *arguments)
        self.upsert([names(300)[1]], rows[302:303])
        self.upsert_attributes(["during"], [ItemAttributes(price=3.0)])
        assert self.remove(["before"]) == 1
        assert self.remove_attributes(["unheard-of"]) == 0
        return items

    monkeypatch.setattr(LiveIndex, "_built", disturbed)
    index.swap(contents)
    monkeypatch.undo()
    index.upsert(["after"], rows[303:304])
    expected = dict(zip(names(300), rows[:300], strict=True)) | {names(300)[1]: rows[302]}
    del expected[names(300)[0]]
    expected |= {"during": rows[301], "after": rows[303]}
    held = index.contents()
    assert {item: row.tobytes() for item, row in zip(held.ids, held.vectors_ND, strict=True)} == {
        item: row.tobytes() for item, row in expected.items()
    }
    cheap = index.search(rows[301:302], 5, filter=ItemFilter(max_price=4.0))
    assert cheap.ids == [["during"]]
    assert names(300)[0] not in index.search(rows[:1], 300).ids[0]


def test_after_a_refused_swap_changes_are_taken_down_no_more() -> None:
    index, other = live("ivf", least=1.01), LiveIndex(DIM, "r1", LiveOptions(sizes=ALWAYS_FLAT))
    index.upsert(names(40), vectors(40))
    other.upsert(names(100), vectors(100))
    with pytest.raises(SwapRefusedError):
        index.swap(other.contents())
    index.upsert(["later"], vectors(1))
    assert (len(index), index._journal) == (41, None)
