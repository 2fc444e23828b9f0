"""Keeps the workers of all roles running on this machine: starts, restarts, gives up, stops."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from stream_app.broker.errors import FolderInUseError
from stream_app.broker.lock import FolderLock, Holder, read_holder
from stream_app.errors import SliceflowError, UsageError
from stream_app.restarts import Life, RestartRule, Standing, after_death
from stream_app.role_process import RoleProcess, Worker, settings_environment, worker_command
from stream_app.roles import ROLES, SERVE
from stream_app.settings import Settings

STOP_BOUND_S: Final = 15.0
"""Time the workers of one role get for a clean stop; a second is usual. What a killed one had not committed
is read again."""

Result = TypeVar("Result")
EventName = Literal["started", "ready", "died", "restarting", "stopped", "all-ready"]


class RoleFailedError(SliceflowError):
    """A role did not start, again and again, and was given up."""


@dataclass(frozen=True)
class RoleEvent:
    """Something that happened to a worker; `worker` is None where it concerns all of them."""

    event: EventName
    worker: Worker | None = None
    pid: int | None = None
    reason: str = ""


OnEvent = Callable[[RoleEvent], None]
CommandOf = Callable[[Worker], Sequence[str]]


def workers_of(counts: Mapping[str, int]) -> list[Worker]:
    """The workers of all roles in the order of the flow; one of each role that `counts` does not name.

    Raises:
        UsageError: A role does not exist, or a count is below 1.
    """
    if unknown := sorted(set(counts) - set(ROLES)):
        raise UsageError(f"There is no role {', '.join(unknown)}.", mend=f"the roles are {', '.join(ROLES)}")
    if any(count < 1 for count in counts.values()):
        raise UsageError("A role needs at least one worker.", mend="pass a count of 1 or more")
    return [Worker(role, number) for role in ROLES for number in range(counts.get(role, 1))]


class Supervisor:
    """Runs workers as child processes, as an asynchronous context manager.

    One supervisor at a time for each state folder. If this process ends in any way, its workers end too.

    Args:
        settings: With a Kafka address; every worker gets exactly these.
        workers: What to run.
        on_event: Called with everything that happens.
        rule: When a worker that ended is started again.
        command_of: The command line of a worker.
    """

    def __init__(
        self,
        settings: Settings,
        workers: Sequence[Worker],
        *,
        on_event: OnEvent,
        rule: RestartRule | None = None,
        command_of: CommandOf = worker_command,
    ) -> None:
        self._settings = settings
        self._workers = list(workers)
        self._on_event = on_event
        self._rule = rule or RestartRule()
        self._command_of = command_of
        self._environ = settings_environment(settings, os.environ)
        self._processes: dict[Worker, RoleProcess] = {}
        self._ready: set[Worker] = set()
        self._all_ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._lock: FolderLock | None = None
        self._stopping = False

    async def __aenter__(self) -> Self:
        """Take the state folder and start every worker.

        Raises:
            UsageError: Another supervisor runs on the state folder.
        """
        self._lock = lock_folder(self._settings.state_path)
        self._tasks = [asyncio.create_task(self._keep(worker), name=worker.label) for worker in self._workers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop every worker, the last role of the flow first, and let go of the state folder."""
        try:
            await self._stop()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def log_file(self, worker: Worker) -> Path:
        """Where the worker's log goes."""
        return self._settings.state_path / "logs" / f"{worker.label}.log"

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until all workers are ready at once.

        Raises:
            RoleFailedError: A worker was given up, or they were not ready after `timeout_s`.
        """
        try:
            await asyncio.wait_for(self.watch(self._wait_all_ready()), timeout_s)
        except TimeoutError as error:
            waiting = [worker for worker in self._workers if worker not in self._ready]
            raise RoleFailedError(
                f"Not ready after {timeout_s:g} s: {', '.join(worker.label for worker in waiting)}.",
                mend=f"read {', '.join(str(self.log_file(worker)) for worker in waiting)}",
            ) from error

    async def watch(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` gives; it is cancelled when a worker is given up before.

        Raises:
            RoleFailedError: A worker was given up.
        """
        working = asyncio.create_task(work)
        try:
            await asyncio.wait([working, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks:
                if task.done():
                    task.result()
            return working.result()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _wait_all_ready(self) -> None:
        await self._all_ready.wait()

    async def _keep(self, worker: Worker) -> None:
        standing = Standing()
        while True:
            life, reason = await self._live(worker)
            self._ready.discard(worker)
            self._all_ready.clear()
            if self._stopping:
                return
            self._tell("died", worker, reason=reason)
            standing, delay_s = after_death(standing, life, self._rule)
            if delay_s is None:
                raise RoleFailedError(
                    f"The role {worker.label} was started {standing.num_deaths} times and never ready: {reason}",
                    mend=f"read {self.log_file(worker)}",
                )
            self._tell("restarting", worker, reason=f"after {delay_s:g} s")
            await asyncio.sleep(delay_s)
            if self._stopping:
                return

    async def _live(self, worker: Worker) -> tuple[Life, str]:
        """One life of a worker, from its start to its end, and why it ended."""
        started_s = time.monotonic()
        process = await RoleProcess.start(
            self._command_of(worker), environ=self._environ, log_file=self.log_file(worker)
        )
        self._processes[worker] = process
        self._tell("started", worker)
        ready_s = None
        if await process.wait_ready():
            ready_s = time.monotonic()
            self._note_ready(worker)
        exit_code = await process.wait()
        return Life(started_s, ready_s, time.monotonic(), exit_code), process.reason(exit_code)

    def _note_ready(self, worker: Worker) -> None:
        self._ready.add(worker)
        self._tell("ready", worker)
        if len(self._ready) == len(self._workers):
            self._all_ready.set()
            self._on_event(RoleEvent("all-ready"))

    def _tell(self, event: EventName, worker: Worker, *, reason: str = "") -> None:
        self._on_event(RoleEvent(event, worker, self._processes[worker].pid, reason))

    async def _stop(self) -> None:
        self._stopping = True
        for role in (SERVE, *reversed(ROLES)):
            workers = [
                worker for worker, process in self._processes.items() if worker.role == role and process.is_running
            ]
            await asyncio.gather(*(self._stop_worker(worker) for worker in workers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # One may have been just starting when the turn of its role came.
        late = [worker for worker, process in self._processes.items() if process.is_running]
        await asyncio.gather(*(self._stop_worker(worker) for worker in late))

    async def _stop_worker(self, worker: Worker) -> None:
        stopped = await self._processes[worker].stop(STOP_BOUND_S)
        self._tell(
            "stopped",
            worker,
            reason="" if stopped else f"killed: it had not stopped after {STOP_BOUND_S:g} s",
        )


def lock_folder(folder: Path) -> FolderLock:
    """Take a state folder for one supervisor.

    Raises:
        UsageError: Another one has it; says which process.
    """
    path = folder / "supervisor.lock"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FolderLock.acquire(path)
    except FolderInUseError as error:
        holder = read_holder(path)
        who = f"process {holder.pid}, since {holder.since}" if holder else "a process that is just starting"
        raise UsageError(
            f"The roles run already on the state folder {folder}: {who}.",
            mend="stop that one (Ctrl-C, or SIGTERM), or set SLICEFLOW_STATE_DIR to another folder",
        ) from error
    lock.record(Holder(pid=os.getpid(), since=datetime.now(UTC).isoformat(timespec="seconds")))
    return lock
