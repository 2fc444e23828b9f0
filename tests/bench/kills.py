"""Twenty times kill -9 in one run: nothing may be lost, nothing applied twice.

The worker is killed at random moments, spread over the run by what its group has committed, and started again at
once. The sender keeps only so far ahead of the commits that there is always something in work, and that the run is
long enough for all kills. In the end every output, every value of the changelog and every value of the stores is
compared with an oracle that never saw a crash.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import uvloop

from stream_app.broker import EmbeddedBroker
from stream_app.cli._signals import terminate_as_interrupt
from tests.bench.common import BenchResult, Figure, finish
from tests.bench.sequence import worker
from tests.bench.sequence.feed import batch_producer, input_records, send_batches
from tests.bench.sequence.job import Load, Task
from tests.bench.sequence.states import STATE_FORMAT, newest_states, num_differing, stored_states
from tests.bench.sequence.topics import read_topic
from tests.bench.sequence.verify import FinalStates, check_states, examine, outputs_of, told
from tests.bench.sequence.worker import POLL_S, Group, Worker, WorkerFailedError, group_of, new_task

NUM_USERS: Final = 5_000

AHEAD: Final = 0.03
"""Share of all events that is sent and not yet committed, at most: of a million what a worker does between two
commits, and less than what lies between two kills."""

LAST_KILL: Final = 0.9
"""Share of the run in which kills come; the rest shows that the worker goes on after the last."""

MAX_DELAY_S: Final = 0.3
"""A kill comes at most so long after the progress that asks for it. Progress is seen at commits, which come every
0.25 s, so without a delay all kills would come right after one."""

STALLED_S: Final = 120.0
"""Without progress for this long the run is given up."""


@dataclass(frozen=True)
class Kill:
    """One kill.

    Args:
        num_committed: Events committed when it was decided.
        num_in_work: Events sent and not seen committed when it came.
        catch_up_s: From the kill until all that had been sent before it was committed.
        ready_s: From the start of the next process until it read input.
        num_recovered: Changelog records that process read.
    """

    num_committed: int
    num_in_work: int
    catch_up_s: float
    ready_s: float
    num_recovered: int


@dataclass
class Judged:
    """What is on the output topic, against the oracle.

    Args:
        num_lost: Events without an output.
        num_false: Outputs that the oracle never gives: of an event applied twice, or onto a wrong history.
        num_repeats: Outputs that are there again, byte for byte, as at-least-once allows.
        problems: What is wrong, user by user.
    """

    num_lost: int = 0
    num_false: int = 0
    num_repeats: int = 0
    problems: list[str] = field(default_factory=list)


def judge(seen: Mapping[bytes, Sequence[bytes]], wanted: Mapping[bytes, Sequence[bytes]]) -> Judged:
    """Compare the outputs of each user, in order, with those that the oracle gives."""
    judged = Judged()
    for user in sorted(seen.keys() | wanted.keys()):
        of_user, due = seen.get(user, ()), wanted.get(user, ())
        judged.num_lost += len(set(due) - set(of_user))
        judged.num_false += len(set(of_user) - set(due))
        num_repeats, problem = examine(of_user, due)
        judged.num_repeats += num_repeats
        if problem:
            judged.problems.append(f"user {user.decode('utf-8', 'replace')}: {problem}")
    return judged


def kill_points(num_events: int, num_kills: int, rng: random.Random) -> list[int]:
    """Committed events at which to kill, in order: a random place in each of `num_kills` equal parts.

    The parts make up the first `LAST_KILL` of the run.
    """
    part = num_events * LAST_KILL / num_kills
    return [int(part * (number + rng.random())) for number in range(num_kills)]


class Run:
    """A worker on its way through the input, killed at each point and started again.

    Args:
        task: What the worker does.
        load: What it is sent.
        points: Committed events at which to kill.
        folder: Where the logs of the processes go.
        rng: Decides how long after its point each kill comes.
    """

    def __init__(self, task: Task, load: Load, points: Sequence[int], folder: Path, rng: random.Random) -> None:
        self.kills: list[Kill] = []
        self._task = task
        self._load = load
        self._points = list(points)
        self._folder = folder
        self._rng = rng
        self._num_lives = 0
        self._num_sent = 0
        self._num_committed = 0

    async def go(self) -> None:
        """Send all, kill at each point, and stop the last worker once everything is committed."""
        async with group_of(self._task) as group, asyncio.TaskGroup() as tasks:
            process = self._start()
            try:
                await process.wait_said("ready")
                looking = tasks.create_task(self._look(group))
                tasks.create_task(self._feed())
                for point in self._points:
                    process = await self._kill_after(point, process)
                await self._wait_committed(self._load.num_events, process)
                await process.stop()
                looking.cancel()
            finally:
                process.kill()

    def _start(self) -> Worker:
        self._num_lives += 1
        return Worker(worker.MODULE, self._task, self._folder / f"worker-{self._num_lives}.log")

    async def _kill_after(self, point: int, process: Worker) -> Worker:
        """Kill a worker a moment after so many events are committed; its successor, once it has caught up."""
        await self._wait_committed(point, process)
        num_committed = self._num_committed
        # No wait for anything: the moment is to be random.
        await asyncio.sleep(self._rng.uniform(0, MAX_DELAY_S))
        process.check()
        process.kill()
        killed_s, num_sent, num_in_work = time.monotonic(), self._num_sent, self._num_sent - self._num_committed
        successor = self._start()
        try:
            ready_s = await successor.wait_said("ready") - successor.started_s
            await self._wait_committed(num_sent, successor)
        except BaseException:
            successor.kill()
            raise
        catch_up_s = time.monotonic() - killed_s
        self.kills.append(Kill(num_committed, num_in_work, catch_up_s, ready_s, successor.num_recovered()))
        print(f"kill {len(self.kills)} at {num_committed:,} committed: caught up in {catch_up_s:.1f} s", flush=True)
        return successor

    async def _wait_committed(self, num_events: int, process: Worker) -> None:
        progress, progress_s = self._num_committed, time.monotonic()
        while self._num_committed < num_events:
            process.check()
            if self._num_committed != progress:
                progress, progress_s = self._num_committed, time.monotonic()
            if time.monotonic() - progress_s > STALLED_S:
                raise WorkerFailedError(f"No commit for {STALLED_S:.0f} s, at {progress:,} of {num_events:,} events.")
            await asyncio.sleep(POLL_S)

    async def _look(self, group: Group) -> None:
        while True:
            self._num_committed = await group.num_committed()
            await asyncio.sleep(POLL_S)

    async def _feed(self) -> None:
        """Send all events, never further ahead of the commits than the window."""
        window = max(1, round(AHEAD * self._load.num_events))
        records = input_records(self._load)
        async with batch_producer(self._task.servers) as producer:
            while self._num_sent < self._load.num_events:
                piece = list(islice(records, self._num_committed + window - self._num_sent))
                self._num_sent += len(piece)
                await send_batches(producer, self._task.input_topic, piece)
                await asyncio.sleep(POLL_S)


async def outputs_by_user(task: Task) -> dict[bytes, list[bytes]]:
    """The outputs of each user as they stand on the topic."""
    found: dict[bytes, list[bytes]] = {}
    async for _, records in read_topic(task.servers, task.output_topic):
        for record in records:
            found.setdefault(record.key, []).append(record.value)
    return found


async def measure(servers: str, load: Load, num_kills: int, seed: int, folder: Path) -> BenchResult:
    """The whole run, and the verdict on it; `seed` decides when the kills come."""
    rng = random.Random(seed)
    task = await new_task(servers, "kills", folder / "stores", load.num_events)
    run = Run(task, load, kill_points(load.num_events, num_kills, rng), folder, rng)
    began_s = time.monotonic()
    await run.go()
    run_s = time.monotonic() - began_s
    print("verifying", flush=True)
    states = FinalStates(load)
    judged = judge(await outputs_by_user(task), outputs_of(load, set(states)))
    newest = await newest_states(task)
    wrong_states = check_states(newest, STATE_FORMAT, states)
    figures = figures_of(run.kills, judged)
    figures["wrong_changelog_states"] = Figure(len(wrong_states), 0, "same")
    figures["differing_store_states"] = Figure(num_differing(stored_states(task), newest), 0, "same")
    details = {
        "load": load.name,
        "seed": seed,
        "run_s": round(run_s, 1),
        "kills": [vars(kill) for kill in run.kills],
        "problems": told(judged.problems + wrong_states),
    }
    return BenchResult("kills", figures, details)


def figures_of(kills: Sequence[Kill], judged: Judged) -> dict[str, Figure]:
    """What the kills did to the outputs, and how long it took to get over them."""
    return {
        "kills": Figure(len(kills)),
        "kills_with_work": Figure(sum(kill.num_in_work > 0 for kill in kills), len(kills), "higher"),
        "lost_events": Figure(judged.num_lost, 0, "same"),
        "false_outputs": Figure(judged.num_false, 0, "same"),
        "wrong_users": Figure(len(judged.problems), 0, "same"),
        "repeated_outputs": Figure(judged.num_repeats),
        "catch_up_s": _middle([kill.catch_up_s for kill in kills]),
        "ready_s": _middle([kill.ready_s for kill in kills]),
        "recovered_records": _middle([float(kill.num_recovered) for kill in kills]),
    }


def _middle(values: Sequence[float]) -> Figure:
    return Figure(statistics.median(values), spread=(min(values), max(values)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    temporary = tempfile.TemporaryDirectory(prefix="sliceflow-bench-")
    with temporary as folder, terminate_as_interrupt(), EmbeddedBroker(None) as broker:
        load = Load(options.events, NUM_USERS)
        result = uvloop.run(measure(broker.bootstrap_servers, load, options.kills, options.seed, Path(folder)))
    return finish(result)


if __name__ == "__main__":
    sys.exit(main())
