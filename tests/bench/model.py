"""How good the lists are on a log's last fifth, with a model trained on the first four, beside every baseline.

One log at a time, prequentially, as `sliceflow evaluate` does it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from encoders.train import use_threads
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.evaluation.results import CHIEF, EvaluationReport
from stream_app.evaluation.run import EvaluationOptions, evaluate_log
from stream_app.evaluation.text import text_of
from tests.bench.common import BenchResult, Figure, finish
from tests.bench.datasets import DATASETS, require, skipped_without_data

RATIO_TARGET: Final = 1.02
"""NDCG@10 of the lists over that of the best popularity: to be above it, by more than a rounding error."""

SHOWN: Final = ("HR@10", CHIEF, "MRR@10", "HR@20")


def result_of(data: str, report: EvaluationReport, details: Mapping[str, Any]) -> BenchResult:
    """The figures of an evaluation whose first method are the lists."""
    own = report.methods[0]
    rivals = [method for method in report.methods if method.name.startswith("popularity")]
    best = max(rivals, key=lambda method: method.measures[CHIEF].mean)
    assert best.behind_first is not None, "the lists come first"
    difference = best.behind_first.by_measure[CHIEF]
    figures = {
        "ndcg10_ratio_to_best_popularity": Figure(best.behind_first.ratio or 0.0, RATIO_TARGET, "higher"),
        "ndcg10_difference": Figure(difference.mean),
        "ndcg10_difference_standard_error": Figure(difference.standard_error),
        "targets": Figure(report.targets),
    }
    figures |= {name.lower().replace("@", ""): Figure(own.measures[name].mean) for name in SHOWN}
    methods = {
        method.name: {name: method.measures[name].mean for name in SHOWN}
        | {f"{CHIEF} standard error": method.measures[CHIEF].standard_error}
        for method in report.methods
    }
    return BenchResult(f"model-{data}", figures, {"best_popularity": best.name, "methods": methods, **details})


def run(data: str, limit: int | None, options: EvaluationOptions) -> int:
    """Train and judge on one log; the exit code.

    Raises:
        DataMissing: It is not there.
    """
    path = require(DATASETS[data])
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        report = evaluate_log(path, DATASETS[data].settings(Path(folder)), options, print, limit=limit)
    print(f"\n{text_of(report)}\n")
    details = {"limit": limit, "seed": options.seed, "budget_s": options.budget_s, "notes": report.notes}
    return finish(result_of(data, report, details | {"seconds": round(time.monotonic() - started_s, 1)}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(DATASETS), default="deskdrop")
    parser.add_argument("--limit", type=int, help="take the first so many events only")
    parser.add_argument("--budget-s", type=float, default=300.0, help="processor time of each training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given: Any = parser.parse_args(arguments)
    limit = DATASETS[given.data].limit if given.limit is None else given.limit
    use_threads(given.threads)
    with terminate_as_interrupt(), skipped_without_data("bench-model"):
        return run(given.data, limit, EvaluationOptions(budget_s=given.budget_s, seed=given.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
