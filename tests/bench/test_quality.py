"""The figures of the lists' quality: means over seeds, and a log with its catalogue beside the same log without."""

from __future__ import annotations

import pytest

from stream_app.evaluation.judging import OURS
from tests.bench.quality import Part, figures_of, parts_of
from tests.bench.test_model import made_report
from tests.bench.trainings import LEAVE_ONE_OUT

BEST = "popularity, half-life 1h"


def test_a_log_with_a_catalogue_is_judged_twice() -> None:
    parts = parts_of(["movietweetings", LEAVE_ONE_OUT], is_quick=False, budget_s=1.0)
    names = [f"{LEAVE_ONE_OUT}-{seed}" for seed in range(3)]
    assert [part.name for part in parts] == [*names, "movietweetings-0", "movietweetings_items-0"]


def test_ratios_are_taken_seed_by_seed_and_with_items_to_without() -> None:
    first, second = (
        made_report({OURS: [1.0, 1.0], BEST: [1.0, 50.0]}),
        made_report({OURS: [1.0, 50.0], BEST: [1.0, 50.0]}),
    )
    seeds = figures_of({Part("deskdrop", 0, 1.0): first, Part("deskdrop", 1, 1.0): second})
    assert seeds["deskdrop_ndcg10"].value == pytest.approx(0.75)
    assert (seeds["deskdrop_ratio_to_best"].value, seeds["deskdrop_ratio_to_best"].spread) == (1.5, (1.0, 2.0))
    items = figures_of({Part("movietweetings", 0, 1.0): second, Part("movietweetings", 0, 1.0, has_items=True): first})
    assert (items["movietweetings_items_over_without"].value, items["movietweetings_items_over_without"].reached) == (
        2.0,
        True,
    )
