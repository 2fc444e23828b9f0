"""The figures of the measurement are those of the evaluation, against the best popularity."""

from __future__ import annotations

import pytest

from stream_app.evaluation.judging import OURS, Answers, Findings, Target
from stream_app.evaluation.results import EvaluationReport, report_of
from tests.bench.model import result_of


def made_report(ranks: dict[str, list[float]]) -> EvaluationReport:
    """A report of these ranks, each of another user."""
    num = len(next(iter(ranks.values())))
    users = [f"u{number}" for number in range(num)]
    findings = Findings(
        "prequential",
        targets=[Target(user, "p", "click", None) for user in users],
        lists=list(range(num)),
        users=users,
        num_candidates=[100] * num,
        known=[True] * num,
        answers={name: Answers(ranks=found, num_ranked=[100] * num) for name, found in ranks.items()},
        num_items=100,
    )
    return report_of(findings, {}, {}, num_resamples=20)


def test_the_ratio_is_to_the_best_popularity() -> None:
    ranks = {
        OURS: [1.0, 1.0, 50.0],
        "popularity, half-life 1h": [50.0, 50.0, 50.0],
        "popularity, half-life 1d": [1.0, 50.0, 50.0],
        "last-item transitions": [1.0, 1.0, 1.0],
    }
    result = result_of("made", made_report(ranks), {"seconds": 1})
    assert result.details["best_popularity"] == "popularity, half-life 1d"
    ratio = result.figures["ndcg10_ratio_to_best_popularity"]
    assert (ratio.value, ratio.reached) == (2.0, True)
    assert result.figures["hr10"].value == pytest.approx(2 / 3)
    assert result.figures["ndcg10_difference"].value == pytest.approx(1 / 3)
    assert result.details["methods"]["last-item transitions"]["NDCG@10"] == 1.0
