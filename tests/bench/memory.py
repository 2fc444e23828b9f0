"""How much memory a worker holds that keeps a million users, while events flow for minutes on end.

The worker starts with an empty folder on a changelog that has a full state for each user, so its recovery is part
of the peak. Then events of users drawn with equal chances come at a steady rate: the worst case for every cache.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import uvloop

from stream_app.broker import EmbeddedBroker
from stream_app.cli._signals import terminate_as_interrupt
from tests.bench.common import BenchResult, Figure, finish
from tests.bench.sequence import worker
from tests.bench.sequence.feed import batch_producer, input_records, send_steadily
from tests.bench.sequence.job import NUM_PARTITIONS, Load
from tests.bench.sequence.states import newest_states, num_differing, put_states, stored_states
from tests.bench.sequence.worker import Worker, group_of, new_task

MAX_MIB: Final = 600.0
GROWTH_TARGET: Final = 1.05
"""Peak of the second half of the flow over that of the first: what is more is no cache filling up, but a leak."""

SAMPLE_S: Final = 1.0
SHOWN_SAMPLES: Final = 10
"""Every so many samples one goes into the JSON: enough to draw the curve."""

TOLD_S: Final = 30.0
"""Between two lines about how it stands."""

CAUGHT_UP_WITHIN_S: Final = 60.0
"""How long the worker may take after the last event."""


@dataclass(frozen=True)
class Sample:
    """Memory at a moment.

    Args:
        at_s: Seconds since the flow began; negative during the start.
        resident_mib: What the process holds in memory.
    """

    at_s: float
    resident_mib: float


def peak_mib(samples: Sequence[Sample]) -> float:
    """The most of some samples."""
    return max(sample.resident_mib for sample in samples)


def growth(samples: Sequence[Sample]) -> tuple[float, float]:
    """How memory grew while events flowed.

    Args:
        samples: Those of the flow, at least four, in order.

    Returns:
        The peak of the second half over that of the first, and the slope of the second half in MiB a minute
        (least squares).
    """
    half = len(samples) // 2
    first, second = samples[:half], samples[half:]
    minutes = [sample.at_s / 60 for sample in second]
    slope = float(np.polyfit(minutes, [sample.resident_mib for sample in second], 1)[0])
    return peak_mib(second) / peak_mib(first), slope


def result_of(load: Load, rate: float, samples: Sequence[Sample], num_users_differing: int) -> BenchResult:
    """The figures."""
    flow = [sample for sample in samples if sample.at_s >= 0]
    ratio, slope = growth(flow)
    figures = {
        "peak_mib": Figure(peak_mib(samples), MAX_MIB),
        "start_peak_mib": Figure(peak_mib([sample for sample in samples if sample.at_s < 0])),
        "flow_peak_mib": Figure(peak_mib(flow)),
        "second_half_over_first": Figure(ratio, GROWTH_TARGET),
        "slope_mib_per_min": Figure(slope),
        "differing_users": Figure(num_users_differing, 0, "same"),
    }
    curve = [[round(sample.at_s), round(sample.resident_mib)] for sample in samples[::SHOWN_SAMPLES]]
    details = {"load": load.name, "rate": rate, "curve_s_mib": curve}
    return BenchResult("memory", figures, details)


def resident_mib(pid: int, proc: Path = Path("/proc")) -> float:
    """What a running process holds in memory, in MiB.

    Raises:
        OSError: There is no such process, or the system does not tell (not Linux).
        ValueError: It has ended, and holds nothing any more.
    """
    for line in (proc / str(pid) / "status").read_text("utf-8").splitlines():
        name, _, rest = line.partition(":")
        if name == "VmRSS":
            return int(rest.split()[0]) / 1024
    raise ValueError(f"Process {pid} has no VmRSS: it has ended.")


class _Sampler:
    """Takes a sample every `SAMPLE_S`, and tells of some."""

    def __init__(self, process: Worker) -> None:
        self._process = process
        self._taken: list[tuple[float, float]] = []
        self.flow_began_s = float("inf")

    async def run(self) -> None:
        """Until cancelled."""
        told_s = 0.0
        while True:
            self._process.check()
            now_s = time.monotonic()
            self._taken.append((now_s, resident_mib(self._process.pid)))
            if now_s - told_s >= TOLD_S:
                told_s = now_s
                print(f"{self._taken[-1][1]:.0f} MiB", flush=True)
            await asyncio.sleep(SAMPLE_S)

    def samples(self) -> list[Sample]:
        """All of them, timed from the beginning of the flow."""
        return [Sample(at_s - self.flow_began_s, held_mib) for at_s, held_mib in self._taken]


async def measure(servers: str, load: Load, rate: float, folder: Path) -> tuple[list[Sample], int]:
    """The samples, and the users whose value in the stores is not that on the changelog in the end."""
    task = await new_task(servers, "memory", folder / "stores", load.num_events)
    await put_states(task, load.num_users, seed=7)
    print(f"{load.num_users:,} states put onto the changelog", flush=True)
    with Worker(worker.MODULE, task, folder / "worker.log") as process:
        sampler = _Sampler(process)
        async with batch_producer(servers) as producer, group_of(task) as group, asyncio.TaskGroup() as tasks:
            sampling = tasks.create_task(sampler.run())
            await process.wait_said("ready")
            sampler.flow_began_s = time.monotonic()
            await send_steadily(producer, task.input_topic, input_records(load), rate)
            await group.wait_committed(load.num_events + NUM_PARTITIONS, process, CAUGHT_UP_WITHIN_S)
            sampling.cancel()
        await process.stop()
    return sampler.samples(), num_differing(stored_states(task), await newest_states(task))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=5_000.0, help="events a second")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long events flow")
    options = parser.parse_args(arguments)
    temporary = tempfile.TemporaryDirectory(prefix="sliceflow-bench-")
    with temporary as folder, terminate_as_interrupt(), EmbeddedBroker(None) as broker:
        load = Load(round(options.rate * options.minutes * 60), options.users, "uniform")
        samples, num_users_differing = uvloop.run(measure(broker.bootstrap_servers, load, options.rate, Path(folder)))
    return finish(result_of(load, options.rate, samples, num_users_differing))


if __name__ == "__main__":
    sys.exit(main())
