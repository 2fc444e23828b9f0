"""The sequence job on faustkit as a process that says where it is, and a hold on such a process.

    python -m tests.bench.sequence.worker '{"servers": ..., "group": ..., ...}'

Beside what the job says itself it prints ``{"opening": UNIX_SECONDS}`` when it begins to bring its stores up to
their changelogs, and ``{"ready": UNIX_SECONDS}`` when it reads input.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec
import uvloop
from aiokafka.admin import AIOKafkaAdminClient

from stream_app.faustkit import run_app
from stream_app.logs import set_up_logging
from tests.bench.common import ROOT
from tests.bench.sequence.job import NUM_PARTITIONS, Task
from tests.bench.sequence.load import PLAIN
from tests.bench.sequence.ours import TABLE, build
from tests.support import create_topics

MODULE: Final = "tests.bench.sequence.worker"

POLL_S: Final = 0.01
"""Between two looks at a process or a group: a percent of a core, and far less than what is timed by them."""

START_WITHIN_S: Final = 300.0
"""Longest wait for a worker; the slowest has a million states to recover on a busy machine."""

STOP_WITHIN_S: Final = 60.0
"""Between SIGTERM and SIGKILL: a clean stop has 20 s, then the process ends by itself."""

TAIL_CHARS: Final = 1500
"""Of a failed process's output, told with the failure."""

_RECOVERED: Final = re.compile(r"(\d+) changelog records for partitions")
"""What faustkit logs once the stores of an assignment are up to their changelog."""


class WorkerFailedError(Exception):
    """A process ended or was silent where it should have gone on; the text says what it printed last."""


class Worker:
    """A process that prints when it reaches something; killed on leaving the block, whatever happens.

    Args:
        module: The module to run.
        task: Its only argument.
        log: Where its output goes.
    """

    def __init__(self, module: str, task: Task, log: Path) -> None:
        self._log = log
        self.started_s = time.time()
        command = [sys.executable, "-m", module, msgspec.json.encode(task).decode()]
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """See whether it still runs.

        Raises:
            WorkerFailedError: It ended.
        """
        if (exit_code := self._process.poll()) is not None:
            raise WorkerFailedError(f"The worker ended with exit code {exit_code}: {self._tail()}")

    def said_at(self, note: str) -> float | None:
        """When it first printed ``{note: UNIX_SECONDS}``; None: not yet."""
        found = re.search(rf'^\{{"{note}":([\d.]+)\}}$', self._text(), re.MULTILINE)
        return None if found is None else float(found[1])

    async def wait_said(self, note: str) -> float:
        """When it first printed `note`, once it has.

        Raises:
            WorkerFailedError: It ended before, or took too long.
        """
        end_s = time.monotonic() + START_WITHIN_S
        while (said_s := self.said_at(note)) is None:
            self.check()
            if time.monotonic() > end_s:
                raise WorkerFailedError(f"No {note!r} from the worker in {START_WITHIN_S:.0f} s: {self._tail()}")
            await asyncio.sleep(POLL_S)
        return said_s

    def num_recovered(self) -> int:
        """Changelog records it read at its first assignment, by its log.

        Raises:
            WorkerFailedError: Its log does not tell.
        """
        found = _RECOVERED.search(self._text())
        if found is None:
            raise WorkerFailedError(f"No line of the log matches {_RECOVERED.pattern!r}: {self._tail()}")
        return int(found[1])

    def kill(self) -> None:
        """kill -9; nothing where it has ended."""
        self._process.kill()
        self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and wait for its end.

        Raises:
            WorkerFailedError: It did not end in time, or not with exit code 0.
        """
        self._process.terminate()
        try:
            exit_code = await asyncio.to_thread(self._process.wait, STOP_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            raise WorkerFailedError(f"No end within {STOP_WITHIN_S:.0f} s of SIGTERM: {self._tail()}") from error
        if exit_code:
            raise WorkerFailedError(f"SIGTERM led to exit code {exit_code}: {self._tail()}")

    def _text(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def _tail(self) -> str:
        return self._text()[-TAIL_CHARS:].strip()


class Group:
    """How far the group of a task is.

    Args:
        admin: A connected client.
        task: The task.
    """

    def __init__(self, admin: AIOKafkaAdminClient, task: Task) -> None:
        self._admin = admin
        self._task = task

    async def num_committed(self) -> int:
        """Input records before the committed offsets."""
        offsets = await self._admin.list_consumer_group_offsets(self._task.group)
        committed = [facts.offset for tp, facts in offsets.items() if tp.topic == self._task.input_topic]
        return sum(offset for offset in committed if offset > 0)

    async def wait_committed(self, num_records: int, worker: Worker, within_s: float) -> float:
        """Wait until so many input records are committed by `worker`; the time it was seen, in seconds since 1970.

        Raises:
            WorkerFailedError: It ended, or took longer than `within_s`.
        """
        end_s = time.monotonic() + within_s
        while (num_committed := await self.num_committed()) < num_records:
            worker.check()
            if time.monotonic() > end_s:
                raise WorkerFailedError(f"{num_committed:,} of {num_records:,} records committed in {within_s:.0f} s.")
            await asyncio.sleep(POLL_S)
        return time.time()


@asynccontextmanager
async def group_of(task: Task) -> AsyncIterator[Group]:
    """A connection to look at the group of `task` with."""
    admin = AIOKafkaAdminClient(bootstrap_servers=task.servers)
    await admin.start()
    try:
        yield Group(admin, task)
    finally:
        await admin.close()


async def new_task(servers: str, name: str, folder: Path, num_events: int) -> Task:
    """A task with topics of its own, which are created.

    Args:
        servers: Where the broker listens.
        name: Begins the names of its group and topics.
        folder: Where its stores go.
        num_events: What the input will hold.
    """
    task = Task(
        servers=servers,
        group=name,
        input_topic=f"{name}-input",
        output_topic=f"{name}-output",
        state_topic=f"{name}-{TABLE}-changelog",
        folder=str(folder),
        num_events=num_events,
    )
    plain_topics = dict.fromkeys((task.input_topic, task.output_topic), NUM_PARTITIONS)
    await create_topics(servers, plain_topics, PLAIN)
    await create_topics(servers, {task.state_topic: NUM_PARTITIONS}, {**PLAIN, "cleanup.policy": "compact"})
    return task


def say(note: str) -> None:
    """Print that something is reached now."""
    print(f'{{"{note}":{time.time():.6f}}}', flush=True)


async def main(task: Task) -> int:
    """Do the task until SIGTERM."""
    set_up_logging(stream=sys.stdout)
    app = build(task)
    # As the roles of the application: who comes after a killed worker takes its partitions back at once.
    app.config = replace(app.config, instance_id=f"{task.group}-0")

    async def say_opening() -> None:
        say("opening")

    app.before_open(say_opening)
    return await run_app(app, on_ready=lambda: say("ready"))


if __name__ == "__main__":
    sys.exit(uvloop.run(main(msgspec.json.decode(sys.argv[1], type=Task))))
