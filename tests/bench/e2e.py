"""From an event's append to its list's, all roles on a real Kafka: waits by hop and processor time by role at given
rates, and the highest rate at which every event still gets its list in time.

The example's log and model. First the roles work off the sample; then live events of its users come at each rate. A
rate is sustained when every event of a short run has its answer and `SUSTAINED_P99_MS` holds for 99 in 100; the highest
is found by doubling and halving. Broker, roles and load generator share the machine.

    make bench-e2e
    python -m tests.bench.e2e --rates 100,500 --seconds 30
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from stream_app.cli._signals import terminate_as_interrupt
from stream_app.demo import CONFIG_FILE, MODEL_FOLDER, demo_settings
from stream_app.settings import Settings
from tests.bench.common import EXAMPLE, BenchResult, Figure, finish, table
from tests.bench.latency import (
    APPEND_TIME,
    HOP_COLUMNS,
    SHARES,
    Load,
    RunResult,
    Sample,
    hop_rows,
    run_once,
    sample_of,
    warm,
)
from tests.bench.sizing import Costs
from tests.bench.stack import RunningRoles, fresh_broker, running_roles

P50_TARGET_MS: Final = 8.0
P99_TARGET_MS: Final = 30.0
TARGET_RATE: Final = 500.0
"""The rate that the two targets are for."""
SUSTAINED_TARGET: Final = 5000.0
"""Events a second, each of which refreshes its user's list."""
SUSTAINED_P99_MS: Final = 500.0


@dataclass(frozen=True)
class Step:
    """One run at one rate.

    Args:
        rate: Events a second.
        run: What became of the events.
        cpu_ms: Processor milliseconds an event, by process.
    """

    rate: float
    run: RunResult
    cpu_ms: Mapping[str, float]

    def wait_ms(self, share: float) -> float:
        """The wait that so many percent of the answered events stay below; infinite where none is answered."""
        waits_ms = self.run.latencies_ms
        return float(np.percentile(waits_ms, share)) if len(waits_ms) else float("inf")

    @property
    def is_sustained(self) -> bool:
        """Whether every event has its answer, and in time."""
        return self.run.num_unanswered == 0 and self.wait_ms(99) <= SUSTAINED_P99_MS

    def row(self) -> list[str]:
        """For the table."""
        lists = self.run.num_lists / max(1, len(self.run.stages_ms_ES))
        waits = [f"{self.wait_ms(share):.0f}" for share in SHARES.values()]
        return [f"{self.rate:,.0f}", *waits, f"{lists:.2f}", f"{sum(self.cpu_ms.values()):.2f}"]


COLUMNS: Final = ("events/s", *SHARES, "lists/event", "cpu ms/event")


class Chain:
    """The running chain.

    Args:
        settings: That reach its broker.
        roles: Running.
        broker_pid: The broker's process.
        sample: Whose users and items the events are of.
        seed: Of the first run; each one has another.
    """

    def __init__(self, settings: Settings, roles: RunningRoles, broker_pid: int, sample: Sample, seed: int) -> None:
        self._settings = settings
        self._roles = roles
        self._broker_pid = broker_pid
        self._sample = sample
        self._seed = seed

    async def run(self, rate: float, seconds: float) -> Step:
        """Send so many events a second for so long, and wait until all is worked off."""
        load = Load(rate, seconds, self._seed)
        self._seed += 1
        events = self._sample.next_events(load)
        costs = Costs({"kafka": self._broker_pid, **self._roles.pids})
        assert self._roles.supervisor is not None
        made = await self._roles.supervisor.watch(run_once(self._settings, load, events))
        step = Step(rate, made, costs.per_event_ms(len(events)))
        print("  ".join(f"{name} {text}" for name, text in zip(COLUMNS, step.row(), strict=True)), flush=True)
        return step


async def highest(sustains: Callable[[float], Awaitable[bool]], first: float, num_halvings: int) -> float:
    """The highest rate that is sustained: doubled until one is not, then the gap is halved so many times. 0 where the
    first already is not.

    Args:
        sustains: Tries a rate.
        first: The first rate.
        num_halvings: Of the gap between the highest sustained rate and the lowest that was not.
    """
    good, bad = 0.0, first
    while await sustains(bad):
        good, bad = bad, 2 * bad
    for _ in range(num_halvings if good else 0):
        middle = (good + bad) / 2
        if await sustains(middle):
            good = middle
        else:
            bad = middle
    return good


def result_of(steps: Sequence[Step], highest_rate: float | None) -> BenchResult:
    """The figures of the given rates, and the highest rate where it was looked for."""
    figures: dict[str, Figure] = {}
    for step in steps:
        at = f"at_{step.rate:g}"
        has_target = step.rate == TARGET_RATE
        figures[f"p50_ms_{at}"] = Figure(step.wait_ms(50), P50_TARGET_MS if has_target else None)
        figures[f"p99_ms_{at}"] = Figure(step.wait_ms(99), P99_TARGET_MS if has_target else None)
        figures[f"unanswered_{at}"] = Figure(step.run.num_unanswered, 0, "same")
        figures[f"lists_{at}"] = Figure(step.run.num_lists)
        figures[f"sender_late_ms_{at}"] = Figure(step.run.sender_late_ms)
        for name, cost_ms in step.cpu_ms.items():
            figures[f"cpu_ms_per_event_{name}_{at}"] = Figure(cost_ms)
    if highest_rate is not None:
        figures["highest_rate"] = Figure(highest_rate, SUSTAINED_TARGET, "higher")
    hops = {f"{step.rate:g}": [dict(zip(HOP_COLUMNS, row, strict=True)) for row in _hops(step)] for step in steps}
    return BenchResult("e2e", figures, {"hops_ms": hops})


def _hops(step: Step) -> list[list[str]]:
    return hop_rows(step.run.stages_ms_ES)


async def measure(settings: Settings, broker_pid: int, options: Any) -> BenchResult:
    """Bring the roles to the state after the sample, then one run for each rate, then the search."""
    sample = sample_of(settings)
    async with running_roles(settings) as roles:
        assert roles.supervisor is not None
        await roles.supervisor.watch(warm(settings, options.warm_events))
        chain = Chain(settings, roles, broker_pid, sample, options.seed)
        steps = []
        for rate in options.rates:
            steps.append(await chain.run(rate, options.seconds))
            print(f"{table(HOP_COLUMNS, _hops(steps[-1]))}\n", flush=True)
        found = None
        if options.halvings >= 0:

            async def sustains(rate: float) -> bool:
                return (await chain.run(rate, options.step_seconds)).is_sustained

            found = await highest(sustains, options.first_rate, options.halvings)
        assert not roles.num_deaths, f"roles died, so the figures are not whole: {roles.num_deaths}"
    return result_of(steps, found)


def rates_of(text: str) -> list[float]:
    """Rates out of a list with commas.

    Raises:
        argparse.ArgumentTypeError: One is no number above zero.

    >>> rates_of("100,500")
    [100.0, 500.0]
    """
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or min(rates) <= 0:
        raise argparse.ArgumentTypeError(f"rates are {text!r}, expected numbers above zero such as 100,500")
    return rates


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=rates_of, default=[TARGET_RATE], help="events a second, with commas")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the run at each rate")
    parser.add_argument("--first-rate", type=float, default=200.0, help="of the search for the highest")
    parser.add_argument("--step-seconds", type=float, default=10.0, help="length of each run of the search")
    parser.add_argument("--halvings", type=int, default=4, help="of the search; -1 leaves it out")
    parser.add_argument("--warm-events", type=int, help="take the first so many events of the sample only")
    parser.add_argument("--seed", type=int, default=0)
    options: Any = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder, terminate_as_interrupt():
        settings = demo_settings(Path(folder), EXAMPLE / CONFIG_FILE, EXAMPLE / MODEL_FOLDER)
        with fresh_broker(settings, APPEND_TIME) as (reached, broker_pid):
            result = asyncio.run(measure(reached, broker_pid, options))
    return finish(result)


if __name__ == "__main__":
    sys.exit(main())
