"""The figures of an evaluation, as they stand in its JSON: means with intervals, paired differences, segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from stream_app.evaluation.judging import Answers, Findings
from stream_app.stages.metrics import ALL_METRICS, Interval, interval_of, measures, user_bootstrap

FORMAT: Final = 1
"""Version of the JSON."""

CHIEF: Final = "NDCG@10"
"""The measure that methods are compared by."""

COMPARED: Final = (CHIEF, "HR@10")
"""Measures of paired differences and segments."""


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """The first method less this one, target by target: by measure, with an interval over resampled users."""

    by_measure: dict[str, Interval]
    ratio: float | None


class MethodResult(msgspec.Struct, frozen=True, kw_only=True):
    """One method.

    Args:
        name: Its name.
        measures: By name (`metrics.ALL_METRICS`), means over lists.
        coverage: Share of all items that were among the first ten of any list; None where lists were not kept.
        novelty_bits: Mean self-information of the first ten.
        popularity_percentile: Mean popularity percentile of the first ten; 0.5 without bias.
        mean_users: Mean number of users who had touched the first ten (average recommendation popularity).
        behind_first: What the first method is ahead of this one; None for the first itself.
    """

    name: str
    measures: dict[str, Interval]
    coverage: float | None
    novelty_bits: float | None
    popularity_percentile: float | None
    mean_users: float | None
    behind_first: Differences | None


class SegmentResult(msgspec.Struct, frozen=True, kw_only=True):
    """One segment: its size, and measures by method."""

    name: str
    targets: int
    share: float
    measures: dict[str, dict[str, float]]


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation. `notes` are facts for people, by name; methods in the order judged, the first is compared."""

    format: int
    protocol: str
    targets: int
    lists: int
    users: int
    items: int
    methods: list[MethodResult]
    segments: list[SegmentResult]
    notes: dict[str, str]

    def best_other(self) -> MethodResult | None:
        """The best method by NDCG@10 but the first; None where it stands alone."""
        return max(self.methods[1:], key=lambda method: method.measures[CHIEF].mean, default=None)

    def compared(self) -> list[str]:
        """Names of the first method and of the best other one, where there is one."""
        best = self.best_other()
        return [self.methods[0].name, *([best.name] if best is not None else [])]


def report_of(
    findings: Findings,
    segments: Mapping[str, npt.NDArray[np.bool_]],
    notes: Mapping[str, str],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> EvaluationReport:
    """All figures of an evaluation that has at least one target.

    Args:
        findings: The answers.
        segments: Which targets are in each.
        notes: Facts to tell beside.
        num_resamples: Of users.
        seed: Of the resampling.
    """
    values = {name: measures(findings.judged(name)) for name in findings.answers}
    resampled = {
        name: user_bootstrap(values_LM, findings.users, num_resamples=num_resamples, seed=seed)
        for name, values_LM in values.items()
    }
    first = next(iter(values))
    methods = []
    for name, values_LM in values.items():
        behind = None
        if name != first:
            behind = _differences(values[first], values_LM, resampled[first] - resampled[name])
        intervals = _intervals(values_LM.mean(axis=0), resampled[name], ALL_METRICS)
        methods.append(_method(name, findings.answers[name], intervals, behind, findings.num_items))
    return EvaluationReport(
        format=FORMAT,
        protocol=findings.protocol,
        targets=len(findings.targets),
        lists=len(findings.users),
        users=len(set(findings.users)),
        items=findings.num_items,
        methods=methods,
        segments=[_segment(findings, name, chosen_T) for name, chosen_T in segments.items()],
        notes=dict(notes),
    )


def _intervals(
    means_M: npt.NDArray[np.float64], resampled_RM: npt.NDArray[np.float64], names: Sequence[str]
) -> dict[str, Interval]:
    return {
        name: interval_of(float(means_M[column]), resampled_RM[:, column])
        for column, name in enumerate(ALL_METRICS)
        if name in names
    }


def _differences(
    first_LM: npt.NDArray[np.float64], other_LM: npt.NDArray[np.float64], resampled_RM: npt.NDArray[np.float64]
) -> Differences:
    column = ALL_METRICS.index(CHIEF)
    own, other = float(first_LM[:, column].mean()), float(other_LM[:, column].mean())
    return Differences(
        by_measure=_intervals((first_LM - other_LM).mean(axis=0), resampled_RM, COMPARED),
        ratio=own / other if other else None,
    )


def _method(
    name: str, answers: Answers, intervals: dict[str, Interval], behind: Differences | None, num_items: int
) -> MethodResult:
    return MethodResult(
        name=name,
        measures=intervals,
        coverage=len(answers.shown) / num_items if answers.shown else None,
        novelty_bits=_mean(answers.novelty),
        popularity_percentile=_mean(answers.mean_percentile),
        mean_users=_mean(answers.mean_users),
        behind_first=behind,
    )


def _mean(values: Sequence[float]) -> float | None:
    """The mean of what is a number; None where nothing is."""
    numbers = np.array(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.mean()) if len(numbers) else None


def _segment(findings: Findings, name: str, chosen_T: npt.NDArray[np.bool_]) -> SegmentResult:
    by_method = {}
    for method in findings.answers:
        means_M = measures(findings.judged(method).only(chosen_T)).mean(axis=0)
        by_method[method] = {measure: float(means_M[ALL_METRICS.index(measure)]) for measure in COMPARED}
    num = int(chosen_T.sum())
    return SegmentResult(name=name, targets=num, share=num / len(chosen_T), measures=by_method)
