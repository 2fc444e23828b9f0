"""One round: a contender's process on fresh topics, from its first record to its last commit, then verified."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from stream_app.broker.config import NODE_ID
from tests.bench.common import ROOT
from tests.bench.sequence.contenders import Contender
from tests.bench.sequence.figures import Planned, Round
from tests.bench.sequence.job import NUM_PARTITIONS, Task
from tests.bench.sequence.load import PLAIN, input_topic
from tests.bench.sequence.topics import TopicStalledError, make_topic, num_records, read_topic, remove_topics
from tests.bench.sequence.verify import (
    Expected,
    Published,
    Verdict,
    check_each,
    check_latest,
    check_states,
    fold,
    outputs_of,
    told,
)
from tests.bench.stack import peak_memory_mib

POLL_S: Final = 0.05
"""Between two looks at the committed offsets: 0.5 % of the shortest round, and 1 % of a core."""

LOOK_AT_OUTPUTS_S: Final = 5.0
"""Between two looks at the outputs of a contender that commits nothing, to see whether it goes on at all."""

STALLED_S: Final = 120.0
"""Without any progress for this long a contender is given up. The slowest starts in some ten seconds."""

STOP_WITHIN_S: Final = 60.0
"""Between SIGTERM and SIGKILL: time for a contender to close its stores."""

TAIL_CHARS: Final = 1500
"""Of a failed contender's output, told with the failure."""

OUTPUT_CONFIG: Final = {**PLAIN, "message.timestamp.type": "LogAppendTime"}
"""The broker stamps the outputs, so that all are timed by one clock."""

STATE_CONFIG: Final = {**PLAIN, "cleanup.policy": "compact"}


class ContenderFailedError(Exception):
    """A contender died, stalled or was wrong; the text says what was seen."""


@dataclass(frozen=True)
class Stage:
    """What all rounds run on.

    Args:
        servers: Where the broker listens.
        broker_pid: Its process.
        admin: A connected client.
    """

    servers: str
    broker_pid: int
    admin: AIOKafkaAdminClient


@dataclass(frozen=True)
class Moments:
    """When a round began and ended (seconds since 1970), and what it cost in between (CPU seconds)."""

    first_s: float
    end_s: float
    cpu_s: float | None
    broker_cpu_s: float | None
    peak_mib: float | None


async def run_round(stage: Stage, planned: Planned, expected: Expected) -> Round:
    """Run one contender once, and verify what it did. A failure is a result too."""
    contender, run = planned.contender, planned.run_name
    made = Round(contender.name, planned.cell.load.name, planned.load.name, planned.cell.variant, planned.number)
    try:
        async with _fresh(stage, planned) as task:
            moments, exit_code = await _run(stage, contender, task)
            verdict = await verify(stage.servers, contender, task, expected)
            if verdict.problems:
                raise ContenderFailedError("verified wrong: " + "; ".join(verdict.problems))
    except (ContenderFailedError, TopicStalledError) as error:
        return replace(made, failure=str(error))
    finally:
        await remove_topics(stage.admin, run)
    return replace(
        made,
        num_events=planned.load.num_events,
        to_commit_s=moments.end_s - moments.first_s,
        to_output_s=verdict.last_append_ms / 1000 - moments.first_s,
        num_outputs=verdict.num_outputs,
        num_repeats=verdict.num_repeats,
        cpu_s=moments.cpu_s,
        broker_cpu_s=moments.broker_cpu_s,
        peak_mib=moments.peak_mib,
        exit_code=exit_code,
    )


@asynccontextmanager
async def _fresh(stage: Stage, planned: Planned) -> AsyncIterator[Task]:
    """Topics and a folder that nobody used before."""
    contender, run = planned.contender, planned.run_name
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        task = Task(
            servers=stage.servers,
            group=run,
            input_topic=input_topic(planned.load),
            output_topic=f"{run}-output",
            state_topic=f"{run}-histories-changelog",
            folder=folder,
            num_events=planned.load.num_events,
            variant=planned.cell.variant,
        )
        await make_topic(stage.servers, stage.admin, task.output_topic, OUTPUT_CONFIG)
        if contender.state_topic(task) and not contender.makes_state_topic:
            await make_topic(stage.servers, stage.admin, contender.state_topic(task), STATE_CONFIG)
        yield task


async def _run(stage: Stage, contender: Contender, task: Task) -> tuple[Moments, int]:
    """Start the contender, wait until it has done all, and stop it; what was noted, and its exit code."""
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as logs:
        output = Path(logs) / "output.log"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                contender.command(task), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
            )
        try:
            moments = await _Watch(stage, contender, task, process, output).until_done()
            process.terminate()
            return moments, await asyncio.to_thread(process.wait, STOP_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            raise ContenderFailedError(f"did not stop within {STOP_WITHIN_S:.0f} s of SIGTERM") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


class _Watch:
    """Looks at a running contender until it has committed all."""

    def __init__(
        self, stage: Stage, contender: Contender, task: Task, process: subprocess.Popen[bytes], output: Path
    ) -> None:
        self._stage = stage
        self._contender = contender
        self._task = task
        self._process = process
        self._output = output
        self._cpu_before: tuple[float | None, float | None] | None = None
        self._looked_s = time.monotonic()
        self._progress = -1
        self._progress_s = time.monotonic()

    async def until_done(self) -> Moments:
        """Wait for the last commit.

        Raises:
            ContenderFailedError: It ended before, made no progress, or committed without saying when it began.
        """
        while True:
            notes = notes_of(self._output)
            if "first" in notes and self._cpu_before is None:
                self._cpu_before = self._cpu_s()
            if await self._is_done(notes):
                return self._moments(notes)
            if (exit_code := self._process.poll()) is not None:
                raise ContenderFailedError(f"ended with exit code {exit_code}: {self._tail()}")
            if time.monotonic() - self._progress_s > STALLED_S:
                raise ContenderFailedError(f"no progress for {STALLED_S:.0f} s: {self._tail()}")
            await asyncio.sleep(POLL_S)

    async def _is_done(self, notes: dict[str, float]) -> bool:
        if self._contender.has_group:
            num_done = await self._num_committed()
            self._went_on(num_done)
            return num_done >= self._task.num_events
        if time.monotonic() - self._looked_s > LOOK_AT_OUTPUTS_S:
            self._looked_s = time.monotonic()
            self._went_on(await num_records(self._stage.servers, self._task.output_topic))
        return "done" in notes

    async def _num_committed(self) -> int:
        partitions = [TopicPartition(self._task.input_topic, number) for number in range(NUM_PARTITIONS)]
        try:
            offsets = await self._stage.admin.list_consumer_group_offsets(
                self._task.group, group_coordinator_id=NODE_ID, partitions=partitions
            )
        except KafkaError:
            return 0  # the group's partition of the offsets topic is still being made
        # The input has no gaps, so the offsets add up to the number of events.
        return sum(max(0, facts.offset) for facts in offsets.values())

    def _went_on(self, progress: int) -> None:
        if progress != self._progress:
            self._progress, self._progress_s = progress, time.monotonic()

    def _moments(self, notes: dict[str, float]) -> Moments:
        end_s = time.time() if self._contender.has_group else notes["done"]
        if "first" not in notes or self._cpu_before is None:
            raise ContenderFailedError(f"committed all without saying when it began: {self._tail()}")
        used = [
            None if before is None or after is None else after - before
            for before, after in zip(self._cpu_before, self._cpu_s(), strict=True)
        ]
        return Moments(notes["first"], end_s, used[0], used[1], peak_memory_mib(self._process.pid))

    def _cpu_s(self) -> tuple[float | None, float | None]:
        return cpu_s(self._process.pid), cpu_s(self._stage.broker_pid)

    def _tail(self) -> str:
        return self._output.read_text("utf-8", "replace")[-TAIL_CHARS:].strip()


async def verify(servers: str, contender: Contender, task: Task, expected: Expected) -> Verdict:
    """Read what a contender published and kept, and compare it with what is expected."""
    published = Published()
    async for _, records in read_topic(servers, task.output_topic):
        published.take(records)
    suspects = published.suspects(expected, task.variant)
    num_repeats = 0
    problems: list[str] = []
    if suspects and task.variant == "each":
        seen = await _outputs_on_topic(servers, task.output_topic, suspects)
        num_repeats, problems = check_each(seen, outputs_of(expected.load, suspects))
    elif suspects:
        problems = check_latest(suspects, published.lasts, expected.lasts)
    if state_topic := contender.state_topic(task):
        newest: dict[bytes, bytes] = {}
        async for _, records in read_topic(servers, state_topic):
            fold(records, contender.state_format, newest)
        problems += check_states(newest, contender.state_format, expected.states)
    return Verdict(published.num_outputs, num_repeats, published.last_append_ms, told(problems))


async def _outputs_on_topic(servers: str, topic: str, users: set[bytes]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    async for _, records in read_topic(servers, topic):
        for record in records:
            if record.key in users:
                found.setdefault(record.key, []).append(record.value or b"")
    return found


def notes_of(output: Path) -> dict[str, float]:
    """What a contender has said so far of its first and last moments: its lines of JSON with numbers."""
    notes: dict[str, float] = {}
    for line in output.read_bytes().splitlines():
        if line.startswith(b"{") and line.endswith(b"}"):
            notes.update(_note(line))
    return notes


def _note(line: bytes) -> dict[str, float]:
    try:
        return msgspec.json.decode(line, type=dict[str, float])
    except msgspec.DecodeError:
        return {}  # a line of its log


def cpu_s(pid: int, proc: Path = Path("/proc")) -> float | None:
    """CPU seconds a running process has used so far; None where the system does not tell (not Linux)."""
    try:
        text = (proc / str(pid) / "stat").read_text("utf-8")
    except OSError:
        return None
    # The name, in brackets, may hold anything; the times of user and system are the 12th and 13th field after it.
    fields: Sequence[Any] = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
