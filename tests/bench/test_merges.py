"""The table of merges: differences are taken target by target, to the model without a memory of the same seed."""

from __future__ import annotations

import numpy as np

from encoders.contract import MergeKind
from tests.bench.merges import MERGES, Part, figures_of, rows_of

GAINS: dict[tuple[MergeKind, int], list[float]] = {
    ("none", 0): [1.0, 0.0],
    ("none", 1): [0.0, 0.0],
    ("decayed", 0): [1.0, 0.5],
    ("decayed", 1): [0.5, 0.0],
    ("gate", 0): [0.0, 0.0],
    ("gate", 1): [0.0, 0.0],
    ("tokens", 0): [1.0, 0.0],
    ("tokens", 1): [0.0, 0.0],
}
FOUND = {Part("deskdrop", merge, seed, 60.0): np.array(gains) for (merge, seed), gains in GAINS.items()}


def test_differences_are_to_the_same_seed_without_a_memory() -> None:
    rows = {row[0]: row[1:] for row in rows_of(FOUND)}
    assert list(rows) == [f"deskdrop, {merge}" for merge in MERGES]
    assert rows["deskdrop, none"] == ["2", "0.2500", "0.0000 .. 0.5000", "+0.0000", "0.0000", "+0.0000 .. +0.0000"]
    # Each seed gains .25, each target as well: nothing of that differs between the targets.
    assert rows["deskdrop, decayed"] == ["2", "0.5000", "0.2500 .. 0.7500", "+0.2500", "0.0000", "+0.2500 .. +0.2500"]
    # Seed 0 loses .5, seed 1 nothing; the first target loses .5 on average, the second nothing: .25 / sqrt(2).
    assert rows["deskdrop, gate"] == ["2", "0.0000", "0.0000 .. 0.0000", "-0.2500", "0.1768", "-0.5000 .. +0.0000"]


def test_figures_are_means_over_the_seeds() -> None:
    figure = figures_of(FOUND)["deskdrop_decayed_ndcg10"]
    assert (figure.value, figure.spread) == (0.5, (0.25, 0.75))
