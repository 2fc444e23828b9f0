"""How fast a worker comes back: with an empty folder, after a clean stop, and after kill -9.

A changelog is filled with a state for each user. A worker that has no store reads all of it; then the same worker
is stopped and started again, and then killed while events flow. With its store at hand it must read no more than
what was written to the changelog since the store was last brought up to it.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_app.broker import EmbeddedBroker
from stream_app.cli._signals import terminate_as_interrupt
from tests.bench.common import BenchResult, Figure, finish
from tests.bench.sequence import worker
from tests.bench.sequence.feed import batch_producer, input_records, send_steadily
from tests.bench.sequence.job import NUM_PARTITIONS, Load, Task
from tests.bench.sequence.states import newest_states, num_differing, put_states, stored_states
from tests.bench.sequence.worker import Worker, group_of, new_task

RATE_TARGET: Final = 200_000
"""Changelog records a second: a million users are back in five seconds."""

MOMENT_S: Final = 1.0
"""What a killed worker may have to read again: the changelog of its last second. It brings its store up to the
changelog every 0.05 s, and on a busy machine that takes its time."""

NUM_MARKS: Final = NUM_PARTITIONS
"""Changelog records that every start may read beside the values: who takes over a partition marks its changelog."""

FLOW_RATE: Final = 5_000
"""Events a second while the worker is killed."""

FLOW_S: Final = 3.0
"""Seconds of events before the kill; there are as many again, so that it comes in the midst of them."""

CAUGHT_UP_WITHIN_S: Final = 120.0


@dataclass(frozen=True)
class Life:
    """What a worker's start was like.

    Args:
        num_records: Changelog records it read.
        recovery_s: From the first look at the changelog until it read input.
        ready_s: From the start of the process until it read input.
    """

    num_records: int
    recovery_s: float
    ready_s: float

    @property
    def rate(self) -> float:
        """Changelog records a second."""
        return self.num_records / self.recovery_s


@dataclass(frozen=True)
class Measured:
    """All that was seen.

    Args:
        fresh: Starts with an empty folder.
        clean: The start after a clean stop.
        killed: The start after kill -9.
        num_last_moment: Changelog records of the last `MOMENT_S` before the kill.
        num_differing: Users whose value in the stores was not that on the changelog, at the end.
    """

    fresh: Sequence[Life]
    clean: Life
    killed: Life
    num_last_moment: int
    num_differing: int


def result_of(num_users: int, measured: Measured) -> BenchResult:
    """The figures."""
    rates = [life.rate for life in measured.fresh]
    waits_s = [life.ready_s for life in measured.fresh]
    figures = {
        "records_per_s": Figure(statistics.median(rates), RATE_TARGET, "higher", (min(rates), max(rates))),
        "empty_ready_s": Figure(statistics.median(waits_s), spread=(min(waits_s), max(waits_s))),
        "records_after_stop": Figure(measured.clean.num_records, NUM_MARKS),
        "stop_ready_s": Figure(measured.clean.ready_s),
        "records_after_kill": Figure(measured.killed.num_records, measured.num_last_moment + NUM_MARKS),
        "kill_ready_s": Figure(measured.killed.ready_s),
        "differing_users": Figure(measured.num_differing, 0, "same"),
    }
    lives = {
        "empty": [vars(life) for life in measured.fresh],
        "after_stop": vars(measured.clean),
        "after_kill": vars(measured.killed),
    }
    return BenchResult("recovery", figures, {"users": num_users, "lives": lives})


async def start(task: Task, log: Path) -> tuple[Worker, Life]:
    """A worker that reads input, and what its start was like."""
    process = Worker(worker.MODULE, task, log)
    try:
        opening_s, ready_s = await process.wait_said("opening"), await process.wait_said("ready")
        return process, Life(process.num_recovered(), ready_s - opening_s, ready_s - process.started_s)
    except BaseException:
        process.kill()
        raise


async def measure(servers: str, num_users: int, rounds: int, folder: Path) -> Measured:
    """Fill a changelog, and start workers on it."""
    task = await new_task(servers, "recovery", folder / "stores", num_users)
    began_s = time.monotonic()
    await put_states(task, num_users, seed=7)
    print(f"{num_users:,} states put onto the changelog in {time.monotonic() - began_s:.0f} s", flush=True)
    log = folder / "worker.log"
    fresh = []
    for _ in range(rounds):
        shutil.rmtree(task.folder, ignore_errors=True)
        fresh.append(await _run_and_stop(task, log))
        print(f"empty folder: {_text(fresh[-1])}", flush=True)
    clean, num_last_moment = await _run_and_kill(task, log, num_users)
    print(f"after a clean stop: {_text(clean)}", flush=True)
    killed = await _run_and_stop(task, log)
    print(f"after kill -9: {_text(killed)}, {num_last_moment:,} in its last {MOMENT_S:g} s", flush=True)
    differing = num_differing(stored_states(task), await newest_states(task))
    return Measured(fresh, clean, killed, num_last_moment, differing)


async def _run_and_stop(task: Task, log: Path) -> Life:
    """Start a worker, let it work off what there is, and stop it."""
    process, life = await start(task, log)
    with process:
        async with group_of(task) as group:
            num_inputs = sum((await _ends(task.servers, task.input_topic)).values())
            await group.wait_committed(num_inputs, process, CAUGHT_UP_WITHIN_S)
        await process.stop()
    return life


async def _run_and_kill(task: Task, log: Path, num_users: int) -> tuple[Life, int]:
    """Start a worker and kill it while events flow; its start, and the changelog records of its last moment."""
    process, life = await start(task, log)
    with process:
        records = input_records(Load(round(2 * FLOW_RATE * FLOW_S), num_users, "uniform"))
        async with batch_producer(task.servers) as producer:
            flow = asyncio.create_task(send_steadily(producer, task.input_topic, records, FLOW_RATE))
            await asyncio.wait([flow], timeout=FLOW_S)
            process.check()
            process.kill()
            flow.cancel()
            await asyncio.gather(flow, return_exceptions=True)
        killed_ms = round(1000 * time.time())
    return life, await _num_since(task, killed_ms - round(1000 * MOMENT_S))


async def _num_since(task: Task, since_ms: int) -> int:
    """Changelog records from a moment on (milliseconds since 1970)."""
    ends = await _ends(task.servers, task.state_topic)
    consumer = AIOKafkaConsumer(bootstrap_servers=task.servers)
    await consumer.start()
    try:
        found = await consumer.offsets_for_times(dict.fromkeys(ends, since_ms))
    finally:
        await consumer.stop()
    return sum(ends[tp] - place.offset for tp, place in found.items() if place is not None)


async def _ends(servers: str, topic: str) -> dict[TopicPartition, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers)
    await consumer.start()
    try:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(
            [TopicPartition(topic, number) for number in range(NUM_PARTITIONS)]
        )
        return ends
    finally:
        await consumer.stop()


def _text(life: Life) -> str:
    return f"{life.num_records:,} records, {life.rate:,.0f}/s, ready {life.ready_s:.1f} s after its start"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="starts with an empty folder")
    options = parser.parse_args(arguments)
    temporary = tempfile.TemporaryDirectory(prefix="sliceflow-bench-")
    with temporary as folder, terminate_as_interrupt(), EmbeddedBroker(None) as broker:
        measured = uvloop.run(measure(broker.bootstrap_servers, options.users, options.rounds, Path(folder)))
    return finish(result_of(options.users, measured))


if __name__ == "__main__":
    sys.exit(main())
