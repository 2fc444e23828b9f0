"""Any order of changes, compactions, swaps and snapshots, beside a dictionary that knows what must be there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from index import ItemAttributes, ItemFilter, LiveIndex
from index.contract import NO_ATTRIBUTES, Float32Array, inner_products
from index.snapshot import load, save
from index.structures import FlatStructure
from tests.examples import examples
from tests.index.cases import CASES, DIM, names

pytestmark = pytest.mark.slow

IDS = names(40)
few_values = st.sampled_from([-2.0, -0.5, 0.1, 0.5, 1.0, 3.0])  # so that ties abound
a_vector = st.lists(few_values, min_size=DIM, max_size=DIM)
some_ids = st.lists(st.sampled_from(IDS), max_size=25)
a_category = st.sampled_from(["tea", "cup", "pot"])
told = st.builds(
    ItemAttributes,
    st.frozensets(a_category, max_size=2),
    st.none() | st.sampled_from([1.0, 2.0, 3.0]),
    st.booleans(),
)
wanted = st.none() | st.builds(
    ItemFilter,
    st.none() | st.frozensets(a_category, max_size=2),
    st.booleans(),
    st.none() | st.just(2.0),
    st.none() | st.just(2.5),
)


class LifeCycle(RuleBasedStateMachine):
    """One index of any kind, and what it should hold."""

    vectors: dict[str, Float32Array]
    attributes: dict[str, ItemAttributes]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sliceflow-index-"))
        self.vectors, self.attributes, self.saved = {}, {}, False

    @initialize(name=st.sampled_from(["main-flat", "main-ivf", "main-hnsw"]))
    def begin(self, name: str) -> None:
        self.name = name
        index = CASES[name].build()
        assert isinstance(index, LiveIndex)
        self.index = index

    @rule(pairs=st.lists(st.tuples(st.sampled_from(IDS), a_vector), max_size=25))
    def upsert(self, pairs: list[tuple[str, list[float]]]) -> None:
        rows = np.array([row for _, row in pairs], dtype=np.float32).reshape(len(pairs), DIM)
        self.index.upsert([item_id for item_id, _ in pairs], rows)
        self.vectors |= {item_id: row for (item_id, _), row in zip(pairs, rows, strict=True)}

    @rule(ids=some_ids)
    def remove(self, ids: list[str]) -> None:
        assert self.index.remove(ids) == len(self.vectors.keys() & set(ids))
        self.vectors = {item_id: row for item_id, row in self.vectors.items() if item_id not in ids}

    @rule(ids=some_ids, data=st.data())
    def tell(self, ids: list[str], data: st.DataObject) -> None:
        attributes = [data.draw(told) for _ in ids]
        self.index.upsert_attributes(ids, attributes)
        self.attributes |= dict(zip(ids, attributes, strict=True))

    @rule(ids=some_ids)
    def forget(self, ids: list[str]) -> None:
        assert self.index.remove_attributes(ids) == len(self.attributes.keys() & set(ids))
        self.attributes = {item_id: one for item_id, one in self.attributes.items() if item_id not in ids}

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def swap(self) -> None:
        self.index.swap(self.index.contents())

    @rule()
    def save(self) -> None:
        save(self.index, self.folder, {}, keep=1)
        self.saved_state, self.saved = (dict(self.vectors), dict(self.attributes)), True

    @precondition(lambda self: self.saved)
    @rule()
    def load(self) -> None:
        load(self.index, self.folder)
        self.vectors, self.attributes = dict(self.saved_state[0]), dict(self.saved_state[1])

    @rule(row=a_vector, k=st.integers(1, 50), only=wanted, exclude=st.lists(some_ids, min_size=2, max_size=2))
    def search(self, row: list[float], k: int, only: ItemFilter | None, exclude: list[list[str]]) -> None:
        query = np.array(row, dtype=np.float32)
        result = self.index.search(np.stack([query, -query]), k, filter=only, exclude=exclude)
        for sign, ids, scores, without in zip((1, -1), result.ids, result.scores_QK, exclude, strict=True):
            allowed = {
                item_id: float(inner_products(vector[None], query * np.float32(sign))[0])
                for item_id, vector in self.vectors.items()
                if item_id not in without
                and (only is None or only.matches(self.attributes.get(item_id, NO_ATTRIBUTES)))
            }
            assert len(ids) == min(k, len(allowed))
            assert scores.tolist()[: len(ids)] == [allowed[item_id] for item_id in ids]
            best = sorted((-score, item_id) for item_id, score in allowed.items())
            assert sorted((-allowed[item_id], item_id) for item_id in ids) == [(-allowed[one], one) for one in ids]
            if self.name == "main-flat":
                assert scores.tolist()[: len(ids)] == [-negated for negated, _ in best[: len(ids)]]

    @invariant()
    def holds_what_it_should(self) -> None:
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.vectors)
        looked_up, found = self.index.vectors_of(IDS)
        assert found.tolist() == [item_id in self.vectors for item_id in IDS]
        for item_id, row in zip(IDS, looked_up, strict=True):
            assert (row == self.vectors.get(item_id, np.zeros(DIM))).all()
        numbers = self.index.numbers_of(IDS)
        assert ((numbers >= 0) == found).all()
        assert (self.index.vectors_at(numbers) == looked_up).all()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


many = examples(120, stateful_step_count=30, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
def test_any_order_of_operations() -> None:
    run_state_machine_as_test(LifeCycle, settings=many)


@pytest.mark.slow
def test_any_order_of_operations_without_selectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the GPU: what is not to be answered is fetched, and dropped; so small an over-fetch that it falls short."""
    monkeypatch.setattr(FlatStructure, "takes_selector", False)
    monkeypatch.setattr("index.main_segment.EXTRA_CANDIDATES", 1)
    monkeypatch.setattr("index.kept.FEW", 3)
    run_state_machine_as_test(LifeCycle, settings=many)
