"""What the carried memory brings: the model with each merge on each log, several seeds, one budget for every training.

Each log is split in time. The model alone is trained on what is before the split (the last tenth of that says when to
stop) and judged on what follows: NDCG@10 over all items of the vocabulary that are new to the user. Sequences without
times are judged by leave-one-out. Differences are to the model without a memory, with the same seed and targets.

    make bench-merges                    all logs, three seeds (two hours on 2 cores)
    QUICK=1 make bench-merges            Deskdrop, one seed
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from encoders.contract import Float64Array, MergeKind
from encoders.train import use_threads
from encoders.training_config import TrainConfig
from encoders.validation import validation_ranks
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.evaluation.leave_one_out import hold_out, own_ranks, read_sequences
from stream_app.event_log import read_events
from stream_app.settings import Settings
from stream_app.training import split_time_ms, train_encoder
from tests.bench.common import BenchResult, Figure, finish, table
from tests.bench.compression import gains_of
from tests.bench.datasets import DATASETS
from tests.bench.trainings import (
    LEAVE_ONE_OUT,
    SEQUENCES,
    in_processes,
    is_quick,
    log_of,
    plan_from,
    sequence_settings,
    that_are_there,
)

NO_MEMORY: Final[MergeKind] = "none"
MERGES: Final[tuple[MergeKind, ...]] = (NO_MEMORY, "decayed", "gate", "tokens")
JUDGED_SHARE: Final = 0.2
VALIDATION_SHARE: Final = 0.1
MAX_TARGETS: Final = 10_000


@dataclass(frozen=True)
class Part:
    """One training."""

    data: str
    merge: MergeKind
    seed: int
    budget_s: float


def gains_of_part(part: Part) -> Float64Array:
    """Train and judge, in a process of its own; (T,) gain of each target, the same targets for every merge and seed."""
    use_threads(1)
    config = TrainConfig(merge=part.merge, seed=part.seed, time_budget_s=part.budget_s, max_epochs=1000)
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        if part.data == LEAVE_ONE_OUT:
            held = hold_out(read_sequences(SEQUENCES, "item"))
            ranks = own_ranks(held, sequence_settings(Path(folder)), config, _quiet)
            return gains_of(np.array([rank for _, rank in sorted(ranks.items())], dtype=np.int64))
        return _log_gains(*log_of(part.data, Path(folder)), config)


def _log_gains(path: Path, settings: Settings, config: TrainConfig) -> Float64Array:
    """(T,) gain of each target of a log's last part."""
    events = read_events(path, settings).events
    from_ms = split_time_ms(events, JUDGED_SHARE)
    past = [event for event in events if event.ts < from_ms]
    split_ms = split_time_ms(past, VALIDATION_SHARE)
    trained = train_encoder(past, settings, config=config, split_ms=split_ms, report=_quiet, clock=time.process_time)
    return gains_of(validation_ranks(trained.model, plan_from(trained, events, settings, from_ms, MAX_TARGETS, seed=0)))


def _quiet(line: str) -> None:
    """Trainings run side by side; their lines would only mix."""


def rows_of(gains: Mapping[Part, Float64Array]) -> list[list[str]]:
    """A line for each log and merge: NDCG@10, its mean difference to no memory, and that difference's errors."""
    without = {(part.data, part.seed): found for part, found in gains.items() if part.merge == NO_MEMORY}
    rows = []
    for data in dict.fromkeys(part.data for part in gains):
        for merge in MERGES:
            ours = {part.seed: found for part, found in gains.items() if (part.data, part.merge) == (data, merge)}
            means = [float(found.mean()) for found in ours.values()]
            differences = [found - without[data, seed] for seed, found in ours.items()]
            by_seed = [float(one.mean()) for one in differences]
            over_T = np.mean(differences, axis=0)
            rows.append(
                [
                    f"{data}, {merge}",
                    f"{len(over_T):,}",
                    f"{np.mean(means):.4f}",
                    f"{min(means):.4f} .. {max(means):.4f}",
                    f"{np.mean(by_seed):+.4f}",
                    f"{over_T.std() / len(over_T) ** 0.5:.4f}",
                    f"{min(by_seed):+.4f} .. {max(by_seed):+.4f}",
                ]
            )
    return rows


COLUMNS: Final = ("log, merge", "targets", "NDCG@10", "of the seeds", "to none", "error", "of the seeds")


def figures_of(gains: Mapping[Part, Float64Array]) -> dict[str, Figure]:
    """NDCG@10 by log and merge, of the seeds the mean."""
    figures: dict[str, Figure] = {}
    for data, merge in dict.fromkeys((part.data, part.merge) for part in gains):
        means = [float(found.mean()) for part, found in gains.items() if (part.data, part.merge) == (data, merge)]
        figures[f"{data}_{merge}_ndcg10"] = Figure(float(np.mean(means)), spread=(min(means), max(means)))
    return figures


def run(parts: Sequence[Part], num_processes: int) -> int:
    """Do all parts; the exit code."""
    gains: dict[Part, Float64Array] = {}
    for part, found in in_processes(gains_of_part, parts, num_processes):
        gains[part] = found
        print(f"{part.data}, {part.merge}, seed {part.seed}: {found.mean():.4f}", flush=True)
    ordered = {part: gains[part] for part in parts}
    rows = rows_of(ordered)
    print(f"\n{table(COLUMNS, rows)}\n")
    details = {"parts": [vars(part) for part in parts], "rows": rows}
    return finish(BenchResult("merges", figures_of(ordered), details))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    known = [*DATASETS, LEAVE_ONE_OUT]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=known, default=["deskdrop"] if is_quick() else known)
    parser.add_argument("--seeds", type=int, default=1 if is_quick() else 3)
    parser.add_argument("--budget-s", type=float, default=60.0, help="processor time of each training")
    parser.add_argument("--processes", type=int, default=2)
    options: Any = parser.parse_args(arguments)
    there = that_are_there("bench-merges", options.data)
    if not there:
        return 0
    parts = [
        Part(data, merge, seed, options.budget_s) for data in there for seed in range(options.seeds) for merge in MERGES
    ]
    with terminate_as_interrupt():
        return run(parts, options.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
