"""How good the lists and the model are on real logs, every model trained there and then, beside every baseline.

Each part is a process of its own with one thread, two at a time; the budget of a training is processor time, so that
other work on the machine changes little. What is done is saved part by part: a run that is broken off has its figures.

    make bench-quality               all logs, three seeds where one sequence each is held out (an hour)
    QUICK=1 make bench-quality       Deskdrop and one seed, with short trainings (minutes)
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from encoders.item_features import ItemContent
from encoders.train import use_threads
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.evaluation.results import CHIEF, EvaluationReport
from stream_app.evaluation.run import EvaluationOptions, evaluate_log, evaluate_sequences
from stream_app.evaluation.text import text_of
from tests.bench.common import RESULTS, BenchResult, Figure, finish
from tests.bench.datasets import DATA
from tests.bench.trainings import (
    LEAVE_ONE_OUT,
    SEQUENCES,
    in_processes,
    is_quick,
    log_of,
    sequence_settings,
    that_are_there,
)

CATALOGUES: Final = {"movietweetings": DATA / "movietweetings" / "items.ndjson.gz"}
"""Logs that come with titles and genres of their items: the lists with them are to be better than without."""

RATIO_TARGETS: Final[Mapping[str, float]] = {
    "deskdrop": 1.06,
    "globo": 1.05,
    "yoochoose": 1.08,
    "movietweetings": 1.05,
    LEAVE_ONE_OUT: 1.05,
}
"""NDCG@10 of the lists over that of the best other method; in `ml1m_sequences` of the model over that of SASRec."""


@dataclass(frozen=True)
class Part:
    """One evaluation: of a log, with what is known of its items or without, or of the sequences with a seed."""

    data: str
    seed: int
    budget_s: float
    has_items: bool = False

    @property
    def figure(self) -> str:
        """Names its figures."""
        return f"{self.data}_items" if self.has_items else self.data

    @property
    def name(self) -> str:
        """Names its result."""
        return f"{self.figure}-{self.seed}"


def parts_of(names: Sequence[str], *, is_quick: bool, budget_s: float | None) -> list[Part]:
    """What to do, the longest first."""
    budget_s = budget_s or (60.0 if is_quick else 300.0)
    num_seeds = 1 if is_quick else 3
    parts = [Part(LEAVE_ONE_OUT, seed, budget_s) for seed in range(num_seeds) if LEAVE_ONE_OUT in names]
    parts += [Part(name, 0, budget_s) for name in names if name != LEAVE_ONE_OUT]
    return parts + [Part(name, 0, budget_s, has_items=True) for name in names if name in CATALOGUES]


def run_part(part: Part) -> EvaluationReport:
    """Train and judge; in a process of its own."""
    use_threads(1)
    contents = catalogue(CATALOGUES[part.data]) if part.has_items else None
    options = EvaluationOptions(budget_s=part.budget_s, seed=part.seed, contents=contents)

    def report(line: str) -> None:
        print(f"{part.name}: {line}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        if part.data == LEAVE_ONE_OUT:
            return evaluate_sequences(SEQUENCES, sequence_settings(Path(folder)), options, report)
        return evaluate_log(*log_of(part.data, Path(folder)), options, report)


def catalogue(path: Path) -> dict[str, ItemContent]:
    """Titles and genres of the items, by id."""
    rows = map(json.loads, gzip.decompress(path.read_bytes()).decode("utf-8").splitlines())
    return {row["item"]: ItemContent(title=row["title"], tags=tuple(row["genres"])) for row in rows}


def figures_of(reports: Mapping[Part, EvaluationReport]) -> dict[str, Figure]:
    """NDCG@10 and its ratio to the best other method, by log; of several seeds the mean, with lowest and highest."""
    figures: dict[str, Figure] = {}
    means: dict[str, float] = {}
    for name in dict.fromkeys(part.figure for part in reports):
        found = [report for part, report in reports.items() if part.figure == name]
        ours = [report.methods[0].measures[CHIEF].mean for report in found]
        others = [best.measures[CHIEF].mean for report in found if (best := report.best_other()) is not None]
        ratios = [own / other for own, other in zip(ours, others, strict=True)]
        means[name] = statistics.mean(ours)
        figures[f"{name}_ndcg10"] = Figure(means[name], spread=_spread(ours))
        figures[f"{name}_ratio_to_best"] = Figure(
            statistics.mean(ratios), RATIO_TARGETS.get(name), "higher", _spread(ratios)
        )
    for data in CATALOGUES:
        if {data, f"{data}_items"} <= means.keys():
            ratio = means[f"{data}_items"] / means[data]
            figures[f"{data}_items_over_without"] = Figure(ratio, 1.0, "higher")
    return figures


def _spread(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if len(values) > 1 else None


def save(part: Part, report: EvaluationReport, folder: Path) -> None:
    """Keep the whole report of a part."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"quality-{part.name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))


def run(parts: Sequence[Part], num_processes: int) -> int:
    """Do all parts; the exit code."""
    reports: dict[Part, EvaluationReport] = {}
    for part, report in in_processes(run_part, parts, num_processes):
        reports[part] = report
        save(part, report, RESULTS)
        print(f"\n{part.name}\n{text_of(report)}", flush=True)
    ordered = {part: reports[part] for part in parts}
    details: dict[str, Any] = {
        "parts": [{"data": part.figure, "seed": part.seed, "budget_s": part.budget_s} for part in parts]
    }
    return finish(BenchResult("quality", figures_of(ordered), details))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    known = ["deskdrop", LEAVE_ONE_OUT] if is_quick() else [*RATIO_TARGETS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=sorted(RATIO_TARGETS), default=known)
    parser.add_argument("--budget-s", type=float, help="processor time of each training")
    parser.add_argument("--processes", type=int, default=2)
    options: Any = parser.parse_args(arguments)
    there = that_are_there("bench-quality", options.data)
    if not there:
        return 0
    with terminate_as_interrupt():
        return run(parts_of(there, is_quick=is_quick(), budget_s=options.budget_s), options.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
