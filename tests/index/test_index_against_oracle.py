"""The fast index beside the exact one: the same operations must give the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import build_index
from index.contract import Float32Array, inner_products
from index.exact import ExactIndex
from index.live import LiveIndex
from tests.examples import examples

pytestmark = pytest.mark.slow

DIM = 4
IDS = [f"item-{n}" for n in range(40)]

small_values = st.sampled_from([-2.0, -1.0, -0.5, 0.1, 0.5, 1.0, 3.0])  # few values, so that ties abound
a_vector = st.lists(small_values, min_size=DIM, max_size=DIM)
an_upsert = st.tuples(st.just("upsert"), st.lists(st.tuples(st.sampled_from(IDS), a_vector), min_size=0, max_size=30))
a_removal = st.tuples(st.just("remove"), st.lists(st.sampled_from(IDS), max_size=15))
a_search = st.tuples(
    st.just("search"), st.tuples(st.lists(a_vector, max_size=4), st.integers(min_value=1, max_value=50))
)
operations = st.lists(st.one_of(an_upsert, a_removal, a_search), min_size=1, max_size=20)


def as_rows(rows: list[list[float]], dim: int = DIM) -> Float32Array:
    return np.array(rows, dtype=np.float32).reshape(len(rows), dim)


def fast_index(dim: int, num_threads: int = 1) -> LiveIndex:
    index = build_index("faiss", dim, "r1", num_threads=num_threads)
    assert isinstance(index, LiveIndex)
    return index


def assert_same_answers(fast: LiveIndex, oracle: ExactIndex, queries: Float32Array, k: int) -> None:
    seen, expected = fast.search(queries, k), oracle.search(queries, k)
    assert seen.ids == expected.ids
    assert (seen.scores_QK == expected.scores_QK).all()
    assert seen.version == expected.version


@given(operations)
@examples(150, derandomize=True)
def test_any_operations_give_the_same_answers(steps: list[tuple[str, object]]) -> None:
    fast, oracle = fast_index(DIM), ExactIndex(DIM, "r1")
    for verb, argument in steps:
        match verb, argument:
            case "upsert", list(pairs):
                ids, rows = [pair[0] for pair in pairs], as_rows([pair[1] for pair in pairs])
                fast.upsert(ids, rows)
                oracle.upsert(ids, rows)
            case "remove", list(ids):
                assert fast.remove(ids) == oracle.remove(ids)
            case "search", (list(rows), int(k)):
                assert_same_answers(fast, oracle, as_rows(rows), k)
        assert len(fast) == len(oracle)
        assert fast.version == oracle.version
    vectors, found = fast.vectors_of(IDS)
    expected_vectors, expected_found = oracle.vectors_of(IDS)
    assert (vectors == expected_vectors).all()
    assert (found == expected_found).all()
    for index in (fast, oracle):
        numbers = index.numbers_of([*IDS, "unheard of"])
        assert (numbers >= 0).tolist() == [*expected_found.tolist(), False]
        assert (index.vectors_at(numbers)[:-1] == expected_vectors).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e12])
@pytest.mark.parametrize("dim", [1, 7, 64, 200])
def test_random_vectors_of_any_length_give_the_same_answers(dim: int, scale: float) -> None:
    generator = np.random.default_rng(dim)
    rows = (generator.standard_normal((2000, dim)) * scale).astype(np.float32)
    ids = [f"{n}" for n in generator.permutation(2000)]
    fast, oracle = fast_index(dim), ExactIndex(dim, "r1")
    for index in (fast, oracle):
        index.upsert(ids, rows)
        index.remove(ids[100:700])
        index.upsert(ids[:50], rows[900:950])  # now 50 pairs of equal vectors
    queries = generator.standard_normal((30, dim)).astype(np.float32)
    assert_same_answers(fast, oracle, queries, k=50)
    assert_same_answers(fast, oracle, queries[:1], k=500)


def test_nearly_parallel_vectors_that_rounding_cannot_tell_apart() -> None:
    """All scores lie within a few units in the last place: FAISS's own order is mostly wrong here."""
    generator = np.random.default_rng(1)
    base = generator.standard_normal(64)
    rows = (base + 1e-7 * generator.standard_normal((3000, 64))).astype(np.float32)
    ids = [f"{n}" for n in range(3000)]
    fast, oracle = fast_index(64), ExactIndex(64, "r1")
    fast.upsert(ids, rows)
    oracle.upsert(ids, rows)
    queries = (base + 0.1 * generator.standard_normal((40, 64))).astype(np.float32)
    assert_same_answers(fast, oracle, queries, k=20)
    assert_same_answers(fast, oracle, queries[:1], k=20)


def test_large_batches_are_cut_and_still_answered_whole() -> None:
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((1500, 64)).astype(np.float32)
    fast, oracle = fast_index(64, num_threads=2), ExactIndex(64, "r1")
    fast.upsert([f"{n}" for n in range(1500)], rows)
    oracle.upsert([f"{n}" for n in range(1500)], rows)
    assert_same_answers(fast, oracle, generator.standard_normal((130, 64)).astype(np.float32), k=500)


def test_a_score_depends_on_its_row_alone() -> None:
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((500, 64)).astype(np.float32)
    queries = generator.standard_normal((5, 64)).astype(np.float32)
    together = inner_products(rows[None, :, :], queries[:, None, :])
    for q, query in enumerate(queries):
        for n in (0, 1, 255, 499):
            assert inner_products(rows[n : n + 1].copy(), query)[0] == together[q, n]


def test_a_score_is_the_inner_product() -> None:
    generator = np.random.default_rng(4)
    rows = generator.standard_normal((300, 64)).astype(np.float32)
    query = generator.standard_normal(64).astype(np.float32)
    expected = rows.astype(np.float64) @ query.astype(np.float64)
    largest = float(np.abs(inner_products(rows, query) - expected).max())
    assert largest < 1e-5, f"largest difference {largest}"


def test_both_kinds_are_built_by_name() -> None:
    assert isinstance(build_index("faiss", 4, "r1"), LiveIndex)
    assert isinstance(build_index("exact", 4, "r1"), ExactIndex)
