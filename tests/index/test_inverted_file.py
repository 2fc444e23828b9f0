"""The inverted file's fast paths beside slow ones: codes, rough scores, and the parts looked into."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from index.contract import Float32Array, Int64Array, Partition, inner_products
from index.inverted_file import Filling, InvertedFile
from index.main_segment import RECALL_AT, _exact_scores
from index.parts import REACH, PartFinder, deviations, new_partition
from index.rough_scores import CODE_BITS, coded, rough_scores, train_codes
from tests.index.cases import vectors

NUM_ITEMS = 3000
NUM_WANTED = 20


@pytest.mark.parametrize("dim", [1, 5, 8, 64])
def test_codes_are_those_that_faiss_would_choose(dim: int) -> None:
    given_MD = vectors(500, seed=1, dim=dim)
    quantizer: Any = faiss.ProductQuantizer(dim, dim, CODE_BITS)
    levels_DC = train_codes(quantizer, given_MD)
    assert (np.diff(levels_DC, axis=1) >= 0).all()
    assert np.array_equal(coded(given_MD, levels_DC), quantizer.compute_codes(given_MD))


def test_codes_of_fewer_rows_than_levels() -> None:
    given_MD = vectors(3, seed=2)
    quantizer: Any = faiss.ProductQuantizer(8, 8, CODE_BITS)
    told_MD = quantizer.decode(coded(given_MD, train_codes(quantizer, given_MD)))
    assert np.allclose(told_MD, given_MD, atol=1e-6)


def test_rough_scores_are_the_contracts_within_rounding() -> None:
    queries_QD, vectors_RD = vectors(7, seed=3), vectors(50, seed=4)
    rows_QF = np.random.default_rng(5).integers(-1, 50, (7, 11))
    exact_QF = inner_products(vectors_RD[rows_QF], queries_QD[:, None, :])
    found_QF = rough_scores(queries_QD, vectors_RD, rows_QF)
    assert np.allclose(found_QF[rows_QF >= 0], exact_QF[rows_QF >= 0], atol=1e-5)
    assert np.isneginf(found_QF[rows_QF < 0]).all()
    assert (rows_QF < 0).any()


@pytest.mark.parametrize("few_parts", [10**6, 1])
def test_parts_are_those_that_promise_most(few_parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.parts.FEW_PARTS", few_parts)
    partition, _ = _partitioned()
    deviations_P = np.random.default_rng(1).random(len(partition.centres_PD)).astype(np.float32)
    queries_QD = vectors(100, seed=6)
    found_QF, centred_QF = PartFinder(partition.centres_PD, deviations_P).find(queries_QD, 12)
    products_QP = queries_QD @ partition.centres_PD.T
    promises_QP = products_QP + REACH * np.linalg.norm(queries_QD, axis=1)[:, None] * deviations_P
    best_QF = np.argsort(-promises_QP, axis=1)[:, :12]
    shared = [len(np.intersect1d(found, best)) for found, best in zip(found_QF, best_QF, strict=True)]
    assert np.mean(shared) >= (12 if few_parts > 1 else 11.5)
    assert np.allclose(centred_QF, np.take_along_axis(products_QP, found_QF, axis=1), atol=1e-4)


def test_deviations_are_those_of_a_loop() -> None:
    partition, items_ND = _partitioned()
    for part, told in enumerate(deviations(items_ND, partition).tolist()):
        apart_MD = items_ND[partition.parts_N == part] - partition.centres_PD[part]
        assert told == pytest.approx(np.sqrt((apart_MD**2).mean()) if len(apart_MD) else 0, abs=1e-5)


@pytest.mark.parametrize("few_parts", [10**6, 1])
@pytest.mark.parametrize("effort", [1, 8, 64])
def test_a_querys_candidates_do_not_depend_on_its_company(
    few_parts: int, effort: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.parts.FEW_PARTS", few_parts)
    lists, _ = _built()
    queries_QD = vectors(100, seed=7)
    together = _sets(lists.candidates(queries_QD, NUM_WANTED, effort, None, 1.0))
    alone = [_sets(lists.candidates(query_D[None], NUM_WANTED, effort, None, 1.0))[0] for query_D in queries_QD]
    assert together == alone


def test_more_effort_finds_more_and_in_the_end_nearly_all() -> None:
    lists, items_ND = _built()
    queries_QD = vectors(100, seed=8)
    best_QF = np.argsort(-(queries_QD @ items_ND.T), axis=1)[:, :NUM_WANTED]
    recalls = []
    for effort in lists.efforts:
        found = _sets(lists.candidates(queries_QD, NUM_WANTED, effort, None, 1.0))
        recalls.append(np.mean([len(own & set(best)) for own, best in zip(found, best_QF.tolist(), strict=True)]))
    assert np.diff(recalls).min() >= -0.1
    assert recalls[0] < recalls[-1]
    assert recalls[-1] == NUM_WANTED


def test_what_is_not_kept_is_passed_over() -> None:
    lists, items_ND = _built()
    queries_QD = vectors(50, seed=9)
    kept_N = np.random.default_rng(10).random(NUM_ITEMS) < 0.1
    numbers_QF = lists.candidates(queries_QD, NUM_WANTED, 20, kept_N, 0.1)
    assert kept_N[numbers_QF[numbers_QF >= 0]].all()
    kept = np.flatnonzero(kept_N)
    best_QF = kept[np.argsort(-(queries_QD @ items_ND[kept].T), axis=1)[:, :NUM_WANTED]]
    shared = [len(np.intersect1d(found, best)) for found, best in zip(numbers_QF, best_QF, strict=True)]
    assert np.mean(shared) > 0.9 * NUM_WANTED


@pytest.mark.parametrize("num_items", [7, 200, 1000])
def test_exact_scores_are_those_of_all_rows_in_order(num_items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.main_segment.ROWS_AT_ONCE", 64)
    queries_SD, vectors_RD = vectors(9, seed=12), vectors(num_items, seed=13)
    every_SR = np.stack([inner_products(vectors_RD, query_D) for query_D in queries_SD])
    assert np.array_equal(_exact_scores(vectors_RD, queries_SD), -np.sort(-every_SR, axis=1)[:, :RECALL_AT])


def _partitioned() -> tuple[Partition, Float32Array]:
    items_ND = vectors(NUM_ITEMS, seed=11)
    return new_partition(items_ND, 1), items_ND


def _built() -> tuple[InvertedFile, Float32Array]:
    partition, items_ND = _partitioned()
    numbers_R = np.arange(NUM_ITEMS)
    return InvertedFile(numbers_R, items_ND, partition, Filling.of(numbers_R, items_ND, partition)), items_ND


def _sets(numbers_QF: Int64Array) -> list[set[int]]:
    return [set(numbers) - {-1} for numbers in numbers_QF.tolist()]
