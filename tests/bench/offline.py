"""What a log costs without a broker, beside what it costs through Kafka: processor seconds of all processes.

The sample that comes with the project, with its model. Each round takes the log through all roles in this process, then
through a fresh broker and one worker of each role. Processor time is that of the work alone: libraries are loaded, the
roles are ready and a few events were taken before it counts. Of the round through Kafka it is the broker's, the roles'
and that of this process, which sends.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from stream_app.cli._signals import terminate_as_interrupt
from stream_app.cli.replay import ReplayOptions, run_replay
from stream_app.offline_replay import replay_offline
from stream_app.replay.readers import open_log
from stream_app.replay.report import LinePrinter
from stream_app.settings import Settings, load_settings
from tests.bench.common import EXAMPLE, BenchResult, Figure, finish
from tests.bench.stack import cpu_s, fresh_broker, running_roles

RATIO_TARGET: Final = 5.0
"""Events per processor second without a broker, over those through Kafka."""

WARM_EVENTS: Final = 500
"""Events that are taken before those that count: libraries that are loaded late, first calls of everything."""

LOG: Final = EXAMPLE / "events.ndjson.gz"


@dataclass(frozen=True)
class Pass:
    """One pass of the log.

    Args:
        facts: What became of its events and users.
        wall_s: Seconds by the clock.
        cpu_s: Processor seconds of each process, by name.
    """

    facts: Mapping[str, Any]
    wall_s: float
    cpu_s: Mapping[str, float]

    @property
    def events_per_cpu_s(self) -> float:
        """Events that one core takes in a second."""
        return float(self.facts["events_in"]) / sum(self.cpu_s.values())

    @property
    def outcome(self) -> dict[str, Any]:
        """What must be the same either way."""
        return {name: self.facts[name] for name in ("events_in", "applied", "dead_lettered", "dropped", "users")}


@dataclass(frozen=True)
class Round:
    """Both passes of one round."""

    offline: Pass
    kafka: Pass

    @property
    def is_same(self) -> bool:
        """Whether both came to the same, with a list for every user."""
        lists = [one.facts["recommendations"] for one in (self.offline, self.kafka)]
        return self.offline.outcome == self.kafka.outcome and lists == [self.offline.facts["users"]] * 2


def result_of(rounds: Sequence[Round], limit: int | None = None) -> BenchResult:
    """The figures: of each the median of the rounds; the ratios are taken of each round's pair."""

    def figure(value: Callable[[Round], float], target: float | None = None) -> Figure:
        values = [value(one) for one in rounds]
        return Figure(float(np.median(values)), target, "higher", spread=(min(values), max(values)))

    figures = {
        "offline_over_kafka_per_cpu_s": figure(_ratio, RATIO_TARGET),
        "offline_events_per_cpu_s": figure(lambda one: one.offline.events_per_cpu_s),
        "kafka_events_per_cpu_s": figure(lambda one: one.kafka.events_per_cpu_s),
        "offline_events_per_s": figure(lambda one: one.offline.facts["events_in"] / one.offline.wall_s),
        "kafka_events_per_s": figure(lambda one: one.kafka.facts["events_in"] / one.kafka.wall_s),
        "offline_over_kafka_without_broker": figure(_ratio_without_broker),
        "events": Figure(rounds[0].offline.facts["events_in"]),
        "same_outcome": Figure(all(one.is_same for one in rounds), True, "same"),
    }
    for name in rounds[0].kafka.cpu_s:
        figures[f"kafka_cpu_s_{name}"] = figure(lambda one, name=name: one.kafka.cpu_s[name])  # type: ignore[misc]
    return BenchResult("offline", figures, {"limit": limit, "rounds": len(rounds)})


def _ratio(one: Round) -> float:
    return one.offline.events_per_cpu_s / one.kafka.events_per_cpu_s


def _ratio_without_broker(one: Round) -> float:
    ours_s = sum(seconds for name, seconds in one.kafka.cpu_s.items() if name != "kafka")
    return ours_s / sum(one.offline.cpu_s.values())


def pass_offline(settings: Settings, limit: int | None) -> Pass:
    """The log through all roles in this process."""
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    made = replay_offline(open_log(LOG), settings, limit=limit)
    wall_s, used_s = time.monotonic() - started_s, time.process_time() - started_cpu_s
    facts = {
        "events_in": made.sent.num_events,
        "applied": made.totals.applied,
        "dead_lettered": made.totals.dead_lettered,
        "dropped": dict(made.totals.dropped),
        "users": len(made.sent.users),
        "recommendations": made.num_lists,
    }
    return Pass(facts, wall_s, {"offline": used_s})


async def pass_kafka(settings: Settings, broker_pid: int, limit: int | None) -> Pass:
    """The log through a broker and the roles."""
    options = ReplayOptions(type_map={}, limit=limit)
    show = LinePrinter(lambda text: print(text, flush=True))
    async with running_roles(settings) as roles:
        assert roles.supervisor is not None
        pids = {"kafka": broker_pid, **roles.pids}
        before_s = {name: cpu_s(pid) for name, pid in pids.items()}
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        facts = await roles.supervisor.watch(run_replay(settings, open_log(LOG), options, show, asyncio.Event()))
        wall_s, sending_s = time.monotonic() - started_s, time.process_time() - started_cpu_s
        used_s = {name: cpu_s(pid) - before_s[name] for name, pid in pids.items()}
        assert not roles.num_deaths, f"roles died, so their processor time is not whole: {roles.num_deaths}"
    return Pass(facts, wall_s, {**used_s, "replay": sending_s})


def run_round(limit: int | None) -> Round:
    """One pass after the other."""
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        overrides = {"state_dir": folder, "model": str(EXAMPLE / "model")}
        settings = load_settings(EXAMPLE / "sliceflow.toml", environ={}, overrides=overrides)
        offline = pass_offline(settings, limit)
        with fresh_broker(settings) as (reached, broker_pid):
            return Round(offline, asyncio.run(pass_kafka(reached, broker_pid, limit)))


def warm_up() -> None:
    """Have everything loaded that a pass in this process needs."""
    settings = load_settings(EXAMPLE / "sliceflow.toml", environ={}, overrides={"model": str(EXAMPLE / "model")})
    replay_offline(open_log(LOG), settings, limit=WARM_EVENTS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="take the first so many events only")
    options: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with terminate_as_interrupt():
        warm_up()
        rounds = [run_round(options.limit) for _ in range(options.rounds)]
    return finish(result_of(rounds, options.limit))


if __name__ == "__main__":
    sys.exit(main())
