"""How fast a log goes through all roles on one machine, how much memory each takes, and whether it adds up."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import torch

from encoders.training_config import TrainConfig
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.cli.replay import ReplayOptions, run_replay
from stream_app.event_log import read_events
from stream_app.replay.readers import open_log
from stream_app.replay.report import LinePrinter
from stream_app.settings import Settings
from stream_app.training import train
from tests.bench.common import BenchResult, Figure, finish
from tests.bench.datasets import DATASETS, require, skipped_without_data
from tests.bench.stack import fresh_broker, peak_memory_mib, running_roles

TRAIN_SHARE: Final = 0.2
"""First part of the log that the model is trained on; enough for a model that is as costly to serve as any."""


@dataclass(frozen=True)
class Replayed:
    """What a replay said at its end, and the most memory (MiB) that each process held; unknown ones are left out."""

    facts: Mapping[str, Any]
    peak_mib: Mapping[str, float]


def result_of(data: str, replayed: Replayed, limit: int | None = None) -> BenchResult:
    """The figures of a replay."""
    facts = replayed.facts
    figures = {
        "events_per_s": Figure(facts["events_in"] / facts["seconds"]),
        "events": Figure(facts["events_in"]),
        "seconds": Figure(facts["seconds"]),
        "balanced": Figure(facts["balanced"], True, "same"),
        "users_without_list": Figure(facts["users"] - facts["recommendations"], 0, "same"),
    }
    for name, mib in replayed.peak_mib.items():
        figures[f"peak_mib_{name}"] = Figure(mib)
    if replayed.peak_mib:
        figures["peak_mib_total"] = Figure(sum(replayed.peak_mib.values()))
    return BenchResult(f"replay-{data}", figures, {"limit": limit, "replay": dict(facts)})


def train_quickly(path: Path, settings: Settings, limit: int | None, time_budget_s: float) -> None:
    """Train a model on the first part of the log."""
    events = read_events(path, settings, limit=limit).events
    first = events[: int(len(events) * TRAIN_SHARE)]
    config = TrainConfig(slice_events=settings.slice_events, time_budget_s=time_budget_s)
    train(first, settings, Path(settings.model), config=config)


async def replay(settings: Settings, path: Path, limit: int | None, broker_pid: int) -> Replayed:
    """Replay the log with all roles running."""
    options = ReplayOptions(type_map={}, limit=limit)
    show = LinePrinter(lambda text: print(text, flush=True))
    async with running_roles(settings) as roles:
        assert roles.supervisor is not None
        facts = await roles.supervisor.watch(run_replay(settings, open_log(path), options, show, asyncio.Event()))
        found = {name: peak_memory_mib(pid) for name, pid in {"kafka": broker_pid, **roles.pids}.items()}
        facts["deaths"] = dict(roles.num_deaths)
    return Replayed(facts, {name: mib for name, mib in found.items() if mib is not None})


def run(data: str, limit: int | None, time_budget_s: float) -> int:
    """Measure one log; the exit code.

    Raises:
        DataMissing: It is not there.
    """
    path = require(DATASETS[data])
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        settings = DATASETS[data].settings(Path(folder))
        train_quickly(path, settings, limit, time_budget_s)
        with fresh_broker(settings) as (reached, broker_pid):
            replayed = asyncio.run(replay(reached, path, limit, broker_pid))
    print(orjson.dumps(replayed.facts).decode(), end="\n\n")
    return finish(result_of(data, replayed, limit))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(DATASETS), default="deskdrop")
    parser.add_argument("--limit", type=int, help="take the first so many events only")
    parser.add_argument("--time-budget", type=float, default=30.0, help="seconds for training the model")
    options: Any = parser.parse_args(arguments)
    limit = DATASETS[options.data].limit if options.limit is None else options.limit
    torch.set_num_threads(2)
    with terminate_as_interrupt(), skipped_without_data("bench-replay"):
        return run(options.data, limit, options.time_budget)
    return 0


if __name__ == "__main__":
    sys.exit(main())
