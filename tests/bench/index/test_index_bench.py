"""The index bench's own parts, on few vectors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench.common import ROOT
from tests.bench.index import ours, plain_faiss
from tests.bench.index.__main__ import (
    CONTENDERS,
    NUM_ASKED,
    PEERS_PYTHON,
    curve_of,
    figures_of,
    put_arrays,
    rate_at,
    rows_of,
)
from tests.bench.index.data import TrainedVectors, grown, random_vectors, widened
from tests.bench.index.plot import draw
from tests.bench.index.points import K, curve, equally_long, recall, with_zero

pytestmark = pytest.mark.slow

DIM = 8


@pytest.fixture(scope="module")
def trained() -> TrainedVectors:
    generator = np.random.default_rng(0)
    return TrainedVectors(random_vectors(200, DIM, generator), random_vectors(400, DIM, generator))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained: TrainedVectors) -> Path:
    path = tmp_path_factory.mktemp("arrays")
    put_arrays(path, trained, "tower", 1500, 60)
    return path


def test_grown_items_are_new_near_old_ones_and_the_same_for_the_same_seed(trained: TrainedVectors) -> None:
    items = grown(trained.items_TD, 3000, np.random.default_rng(1))
    assert items.shape == (3000, DIM)
    assert items.dtype == np.float32
    assert (items == grown(trained.items_TD, 3000, np.random.default_rng(1))).all()
    assert len(np.unique(items, axis=0)) == 3000
    distances = np.linalg.norm(items[:, None] - trained.items_TD[None], axis=2).min(axis=1)
    apart = np.linalg.norm(random_vectors(3000, DIM, np.random.default_rng(2))[:, None] - trained.items_TD, axis=2)
    assert 0 < np.median(distances) < np.median(apart.min(axis=1))
    lengths, trained_lengths = (np.linalg.norm(some, axis=1) for some in (items, trained.items_TD))
    assert 0.7 < np.median(lengths) / np.median(trained_lengths) < 1.3


def test_widened_vectors_have_twice_the_dimensions(trained: TrainedVectors) -> None:
    wide = widened(trained)
    assert wide.items_TD.shape == (200, 2 * DIM)
    assert (wide.items_TD[:, :DIM] == trained.items_TD).all()
    assert (wide.users_QD[:, DIM:] == trained.users_QD).all()


def test_the_nearest_of_equally_long_vectors_has_the_greatest_product(trained: TrainedVectors) -> None:
    items, queries = trained.items_TD, trained.users_QD[:20]
    longer, asked = equally_long(items), with_zero(queries)
    assert np.ptp(np.linalg.norm(longer, axis=1)) < 1e-5
    nearest = np.linalg.norm(longer[None] - asked[:, None], axis=2).argmin(axis=1)
    assert (nearest == (queries @ items.T).argmax(axis=1)).all()


def test_recall_counts_shared_rows() -> None:
    assert recall(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [4, 5]])) == 0.75


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
@pytest.mark.parametrize("module", [ours, plain_faiss])
def test_every_kind_gives_a_curve(module: object, kind: str, folder: Path) -> None:
    build = module.build  # type: ignore[attr-defined]
    measured = curve(lambda items, asked, threads: build(kind, items, asked, threads), folder, 1)
    recalls = [point.recall for point in measured.points]
    assert recalls[-1] > 0.9
    assert recalls[-1] == max(recalls)
    assert kind != "flat" or recalls == [1.0]
    assert all(point.queries_per_s > 0 and point.single_p99_ms >= point.single_p50_ms for point in measured.points)


def test_what_was_asked_before_is_not_asked_again(folder: Path) -> None:
    asked, queries = np.load(folder / "asked.npy"), np.load(folder / "queries.npy")
    assert (len(asked), len(queries)) == (NUM_ASKED, 60)
    assert not {row.tobytes() for row in asked} & {row.tobytes() for row in queries}
    assert np.load(folder / "truth.npy").shape == (60, K)


def test_the_rate_at_a_recall_lies_between_points() -> None:
    line = {"points": [{"recall": 0.96, "r": 10.0}, {"recall": 0.8, "r": 50.0}, {"recall": 0.9, "r": 30.0}]}
    assert rate_at(line, 0.93, "r") == pytest.approx(20.0)
    assert rate_at(line, 0.5, "r") == 50.0
    assert rate_at(line, 0.97, "r") is None
    assert rate_at({"points": []}, 0.5, "r") is None


def point(recall: float, rate: float) -> dict[str, object]:
    return {
        "effort": "1",
        "recall": recall,
        "queries_per_s": rate,
        "queries_per_cpu_s": rate,
        "single_p50_ms": 1.0,
        "single_p99_ms": 2.0,
    }


def test_targets_stand_at_a_million_of_the_towers_vectors_alone(tmp_path: Path) -> None:
    def cell(own: float) -> dict[str, Any]:
        made: dict[str, Any] = {"build_s": 1.0, "memory_mb": 2.0}
        curves = {
            "ours ivf": made | {"points": [point(0.96, own)]},
            "hnswlib": made | {"points": [point(0.96, 10_000.0)]},
        }
        return {"curves": curves, "life": {}}

    cells = {"tower, 1,000,000 items, d=64": cell(20_000.0), "random, 1,000,000 items, d=64": cell(5_000.0)}
    figures = figures_of(cells)
    assert figures["tower, 1,000,000 items, d=64: queries_per_s"].reached is True
    assert figures["tower, 1,000,000 items, d=64: per_cpu_s_by_hnswlib"].value == 2.0
    assert figures["random, 1,000,000 items, d=64: per_cpu_s_by_hnswlib"].reached is None
    assert rows_of(cells["tower, 1,000,000 items, d=64"]["curves"])[0][:4] == ["ours ivf", "1", "0.960", "20,000"]
    draw({name: one["curves"] for name, one in cells.items()}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_life_of_few_items_has_no_errors(tmp_path: Path, trained: TrainedVectors) -> None:
    put_arrays(tmp_path, trained, "tower", 8000, 60)
    command = [sys.executable, "-m", "tests.bench.index.life", str(tmp_path), "1"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=250)
    life = {name: value for line in done.stdout.splitlines() for name, value in json.loads(line).items()}
    assert life["swap_errors"] == life["swap_changes_lost"] == life["removed_returned"] == 0
    assert life["removal_swaps"] > 0
    assert life["filter_recall"] == 1.0
    assert min(life.values()) >= 0


@pytest.mark.slow
@pytest.mark.skipif(not PEERS_PYTHON.exists(), reason="the peers are not installed (make index-peers)")
@pytest.mark.parametrize("contender", [one for one in CONTENDERS if one.is_peer], ids=lambda one: one.name)
def test_peers_give_curves(contender: object, folder: Path) -> None:
    measured = curve_of(contender, folder, 1)  # type: ignore[arg-type]
    assert measured["points"][-1]["recall"] > 0.5
