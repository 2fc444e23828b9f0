"""How good the lists are on a log's last fifth, with a model trained on the first four, beside online baselines.

The protocol is that of `stream_app.evaluation`: in order of time, for each event on an item that is new to its user,
all items known so far are ranked but those that the user has seen; only then the event is taken in.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from encoders.contract import SliceEncoder
from encoders.runtime import SliceEncoderRuntime
from encoders.train import TrainConfig
from stream_app.baselines import Baseline, standard_baselines
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.event_log import read_events
from stream_app.offline import OfflineStream
from stream_app.records import Event
from stream_app.settings import Settings
from stream_app.stages.metrics import METRICS, metrics_of, quality
from stream_app.stages.ranking import rank
from stream_app.stages.scoring import feature_names
from stream_app.training import train
from tests.bench.common import BenchResult, Figure, finish, table
from tests.bench.datasets import DATASETS, require, skipped_without_data

TRAIN_SHARE: Final = 0.8
LISTS: Final = "lists"
"""Name of the stream's own lists beside the baselines."""

LIST_ITEMS: Final = 20
RATIO_TARGET: Final = 1.02
"""NDCG@10 of the lists over that of the best popularity: to be above it, by more than a rounding error."""

NUM_RESAMPLES: Final = 1000

FloatArray = npt.NDArray[np.float64]


@dataclass
class Judged:
    """The user of each target, and for each method the rank of the right item (None: not among the first 20)."""

    users: list[str] = field(default_factory=list)
    ranks: dict[str, list[int | None]] = field(default_factory=dict)

    def ndcg10(self, method: str) -> FloatArray:
        """NDCG@10 of each target (T,)."""
        place = METRICS.index("NDCG@10")
        return np.array([metrics_of(found)[place] for found in self.ranks[method]])

    def best(self, kind: str) -> str:
        """The method with the highest NDCG@10 among those whose name starts with `kind`."""
        return max((name for name in self.ranks if name.startswith(kind)), key=lambda name: self.ndcg10(name).mean())


def judge(
    events: Sequence[Event],
    settings: Settings,
    encoder: SliceEncoder,
    weights_F: FloatArray,
    from_ms: int,
    baselines: Sequence[Baseline],
) -> Judged:
    """Rank the item of each target from `from_ms` on by the stream's lists and by every baseline.

    `stream_app.evaluation.evaluate` gives the same in means; a paired comparison needs each target's rank.
    """
    judged = Judged(ranks={LISTS: [], **{method.name: [] for method in baselines}})
    seen: dict[str, set[str]] = {}
    last: dict[str, str] = {}
    for moment in OfflineStream(settings, encoder).walk(events, ask_from_ms=from_ms):
        event = moment.event
        previous = last.get(event.user_id)
        if moment.found is not None and moment.features_CF is not None:
            listed = [one.item_id for one in rank(moment.found, moment.features_CF, weights_F, LIST_ITEMS)]
            judged.users.append(event.user_id)
            judged.ranks[LISTS].append(listed.index(event.item_id) + 1 if event.item_id in listed else None)
            for method in baselines:
                recent = [previous] if previous is not None else []
                judged.ranks[method.name].append(method.rank_of(event, seen.get(event.user_id, set()), recent))
        for method in baselines:
            method.take(event, previous)
        seen.setdefault(event.user_id, set()).add(event.item_id)
        last[event.user_id] = event.item_id
    return judged


def paired_difference(
    first_T: FloatArray, second_T: FloatArray, users: Sequence[str], *, seed: int = 0
) -> tuple[float, float]:
    """Mean of `first_T - second_T` over all targets, and its standard error by resampling users with their targets.

    >>> paired_difference(np.array([0.5, 1.0]), np.array([0.25, 0.75]), ["a", "b"])
    (0.25, 0.0)
    """
    numbers = {user: number for number, user in enumerate(dict.fromkeys(users))}
    users_T = np.array([numbers[user] for user in users])
    differences_T = first_T - second_T
    sums_U, counts_U = np.bincount(users_T, weights=differences_T), np.bincount(users_T)
    generator = np.random.default_rng(seed)
    drawn_RU = generator.integers(0, len(sums_U), (NUM_RESAMPLES, len(sums_U)))
    means_R = sums_U[drawn_RU].sum(axis=1) / counts_U[drawn_RU].sum(axis=1)
    return float(differences_T.mean()), float(means_R.std())


def result_of(data: str, judged: Judged, details: Mapping[str, Any]) -> BenchResult:
    """The figures of an evaluation."""
    qualities = {name: quality(ranks, judged.users) for name, ranks in judged.ranks.items()}
    best = judged.best("popularity")
    own, other = judged.ndcg10(LISTS), judged.ndcg10(best)
    difference, error = paired_difference(own, other, judged.users)
    figures = {
        "ndcg10_ratio_to_best_popularity": Figure(float(own.mean() / other.mean()), RATIO_TARGET, "higher"),
        "ndcg10_difference": Figure(difference),
        "ndcg10_difference_standard_error": Figure(error),
        "targets": Figure(len(judged.users)),
    }
    for metric in METRICS:
        figures[metric.lower().replace("@", "")] = Figure(qualities[LISTS].means[metric])
    methods = {
        name: {**found.means, "NDCG@10 standard error": found.ndcg10_standard_error}
        for name, found in qualities.items()
    }
    return BenchResult(f"model-{data}", figures, {"best_popularity": best, "methods": methods, **details})


def quality_table(methods: Mapping[str, Mapping[str, float]]) -> str:
    """All methods, the best NDCG@10 first."""
    rows = []
    for name, means in sorted(methods.items(), key=lambda item: -item[1]["NDCG@10"]):
        texts = {metric: f"{means[metric]:.4f}" for metric in METRICS}
        texts["NDCG@10"] += f" ± {means['NDCG@10 standard error']:.4f}"
        rows.append([name, *texts.values()])
    return table(["method", *METRICS], rows)


def run(data: str, limit: int | None, config: TrainConfig) -> int:
    """Train and judge on one log; the exit code.

    Raises:
        DataMissing: It is not there.
    """
    path = require(DATASETS[data])
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        settings = DATASETS[data].settings(Path(folder))
        log = read_events(path, settings, limit=limit)
        from_ms = log.quantile_ms(TRAIN_SHARE)
        known = [event for event in log.events if event.ts < from_ms]
        started_s = time.monotonic()
        trained = train(known, settings, Path(settings.model), config=config)
        trained_s = time.monotonic()
        encoder = SliceEncoderRuntime.load(Path(settings.model))
        weights_F = trained.scorer.vector(feature_names(settings.half_lives_s))
        judged = judge(log.events, settings, encoder, weights_F, from_ms, standard_baselines())
    seconds = {"training": round(trained_s - started_s, 1), "judging": round(time.monotonic() - trained_s, 1)}
    epochs = {"epochs": len(trained.curve), "seed": config.seed, "release": trained.release}
    result = result_of(data, judged, {"limit": limit, "seconds": seconds, "model": epochs})
    print(f"\n{quality_table(result.details['methods'])}\n")
    return finish(result)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(DATASETS), default="deskdrop")
    parser.add_argument("--limit", type=int, help="take the first so many events only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="with one, the same seed gives the same figures")
    options: Any = parser.parse_args(arguments)
    limit = DATASETS[options.data].limit if options.limit is None else options.limit
    torch.set_num_threads(options.threads)
    with terminate_as_interrupt(), skipped_without_data("bench-model"):
        return run(options.data, limit, TrainConfig(seed=options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
