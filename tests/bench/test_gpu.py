"""The bench of the GPU: what it checks, what it says without a card, and that it needs no broker's packages."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.bench import gpu
from tests.bench.card import searched_by_torch
from tests.bench.common import ROOT
from tests.bench.gpu import (
    CPU_ALONE,
    DIMS,
    NUM_CHECKED,
    Found,
    K,
    Sizes,
    cpu_result,
    encoded_on_card,
    is_exact,
    random_inputs,
    random_model,
    random_vectors,
    rate,
    result_of,
    searched,
    searches_on_card,
)

SMALL = Sizes(64, 1024, 3000, 128)
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_without_a_card_it_says_so_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    told = capsys.readouterr()
    assert "finds no CUDA device" in told.err
    assert "--cpu" in told.err
    assert told.out == ""


@pytest.mark.slow
def test_it_needs_no_package_of_a_broker() -> None:
    script = (
        "import sys, tests.bench.gpu\n"
        "print(sorted({'stream_app', 'aiokafka', 'faust', 'msgspec'} & {name.split('.')[0] for name in sys.modules}))"
    )
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_cpus_side_is_checked() -> None:
    result = cpu_result(SMALL)
    assert result.is_sound
    assert result.figures["has_card"].value is False
    assert result.figures["slices_per_s_2_cores"].value > 0
    assert CPU_ALONE.items < gpu.WITH_CARD.items


def test_what_is_not_the_best_is_not_exact() -> None:
    items_ND, queries_QD = random_vectors(500, 0), random_vectors(NUM_CHECKED, 1)
    best_QK = np.argsort(-(queries_QD @ items_ND.T), axis=1)[:, : K + 1]
    assert is_exact(best_QK[:, :K], queries_QD, items_ND)
    assert is_exact(best_QK[:, K - 1 :: -1], queries_QD, items_ND)
    assert not is_exact(best_QK[:, 1:], queries_QD, items_ND)
    twice_QK = best_QK[:, :K].copy()
    twice_QK[3, 1] = twice_QK[3, 0]
    assert not is_exact(twice_QK, queries_QD, items_ND)
    wrong = searched("wrong", lambda some_QD: best_QK[: len(some_QD), 1:], items_ND, queries_QD)
    assert wrong.check == "NOT exact"


def test_a_first_run_does_not_count() -> None:
    runs: list[int] = []
    assert rate(lambda: runs.append(1), 10, least_s=0.0) > 0
    assert len(runs) == 2


def test_inputs_are_full_and_those_of_the_model() -> None:
    inputs = random_inputs(8)
    assert [tuple(part.shape) for part in inputs[:4]] == [(8, 16), (8, 16), (8, 16), (8,)]
    assert inputs[3].tolist() == [DIMS.slice_events] * 8
    assert all(part.min() >= 1 for part in inputs[:7])
    first, second = random_model(), random_model()
    assert torch.equal(first.items.weight, second.items.weight)


def test_figures_are_of_the_fastest_way_and_the_first_search() -> None:
    encoded = [Found("fp32, plain", 10.0, ""), Found("fp32, CUDA graph", 30.0, ""), Found("bf16, plain", 80.0, "")]
    searches = [Found("index, gpu", 5.0, "exact"), Found("torch", 9.0, "NOT exact")]
    result = result_of(2.0, encoded, searches, {"card": {}})
    assert result.figures["slices_per_s_over_2_cores"].value == 40.0
    assert result.figures["slices_per_s_fp32"].value == 30.0
    assert result.figures["queries_per_s"].value == 5.0
    assert not result.is_sound


@pytest.mark.gpu
@needs_card
def test_all_ways_on_the_card_agree_with_the_oracle() -> None:
    found, _ = encoded_on_card(random_model(), SMALL)
    differences = {one.name: float(one.check.split()[1].rstrip(",")) for one in found}
    assert {"fp32, plain", "fp32, CUDA graph", "bf16, plain"} <= set(differences)
    assert all(difference < (1e-3 if "fp32" in name else 0.5) for name, difference in differences.items())


@pytest.mark.gpu
@needs_card
def test_searches_on_the_card_are_exact() -> None:
    assert {one.check for one in searches_on_card(SMALL)} == {"exact"}
    items_ND = random_vectors(300, 0)
    rows_QK = searched_by_torch(items_ND, 5)(random_vectors(7, 1))
    assert rows_QK.shape == (7, 5)
