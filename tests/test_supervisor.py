"""The supervisor with real processes: small scripts that stand for workers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stream_app.errors import UsageError
from stream_app.restarts import RestartRule
from stream_app.role_process import Worker
from stream_app.settings import Settings
from stream_app.supervisor import RoleEvent, RoleFailedError, Supervisor, workers_of
from tests.support import DEADLINE_S

QUICK = RestartRule(first_delay_s=0.01, max_delay_s=0.02)

STEADY = """
import signal, sys
print('{"ready": "x"}', flush=True)
signal.pause()
"""
"""Ready at once, and ends on SIGTERM."""

BROKEN = """
import sys
print("Error: the model is damaged", file=sys.stderr)
sys.exit(1)
"""


class Events:
    """What a supervisor told, and a way to wait for it."""

    def __init__(self) -> None:
        self.seen: list[RoleEvent] = []

    def __call__(self, event: RoleEvent) -> None:
        self.seen.append(event)

    def of(self, name: str, role: str = "") -> list[RoleEvent]:
        """Events of one kind, of one role if it is given."""
        return [
            event
            for event in self.seen
            if event.event == name and (not role or (event.worker and event.worker.role == role))
        ]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await asyncio.sleep(0.005)


def supervisor_of(folder: Path, scripts: dict[str, str], events: Events, **fields: object) -> Supervisor:
    """A supervisor whose workers are these scripts, one for each role."""

    def command_of(worker: Worker) -> Sequence[str]:
        return [sys.executable, "-S", "-c", scripts[worker.role]]

    settings = Settings(state_dir=str(folder))
    return Supervisor(settings, [Worker(role) for role in scripts], on_event=events, rule=QUICK, command_of=command_of)


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_worker_is_started_again_and_nothing_is_left(tmp_path: Path) -> None:
    events = Events()

    async def story() -> None:
        async with supervisor_of(tmp_path, {"sequence": STEADY, "trend": STEADY}, events) as supervisor:
            await supervisor.wait_ready(DEADLINE_S)
            first = events.of("started", "trend")[0].pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await events.until(lambda: len(events.of("all-ready")) == 2)

    asyncio.run(story())
    [died] = events.of("died")
    assert (died.worker, died.reason) == (Worker("trend"), "signal SIGKILL")
    assert len(events.of("started", "sequence")) == 1
    # Roles stop in the reverse order of the flow.
    assert [event.worker for event in events.of("stopped")] == [Worker("trend"), Worker("sequence")]
    assert not any(is_alive(event.pid) for event in events.of("started") if event.pid)


def test_a_worker_that_never_starts_is_given_up_with_its_reason(tmp_path: Path) -> None:
    events = Events()

    async def story() -> None:
        async with supervisor_of(tmp_path, {"sequence": STEADY, "encode": BROKEN}, events) as supervisor:
            await supervisor.wait_ready(DEADLINE_S)

    with pytest.raises(RoleFailedError, match=r"encode was started 3 times.*the model is damaged") as caught:
        asyncio.run(story())
    assert str(tmp_path / "logs" / "encode.log") in caught.value.mend
    assert len(events.of("started", "encode")) == 3
    assert not any(is_alive(event.pid) for event in events.of("started") if event.pid)


def test_work_that_is_watched_ends_when_a_worker_is_given_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with supervisor_of(tmp_path, {"encode": BROKEN}, Events()) as supervisor:
            await supervisor.watch(asyncio.sleep(DEADLINE_S))

    with pytest.raises(RoleFailedError):
        asyncio.run(story())


def test_what_watched_work_gives_or_raises_comes_through(tmp_path: Path) -> None:
    async def give() -> int:
        return 7

    async def fail() -> int:
        raise LookupError("seven")

    async def story() -> None:
        async with supervisor_of(tmp_path, {"trend": STEADY}, Events()) as supervisor:
            assert await supervisor.watch(give()) == 7
            with pytest.raises(LookupError):
                await supervisor.watch(fail())

    asyncio.run(story())


def test_a_worker_that_is_never_ready_is_named(tmp_path: Path) -> None:
    script = "import signal; signal.pause()"

    async def story() -> None:
        async with supervisor_of(tmp_path, {"trend": script}, Events()) as supervisor:
            await supervisor.wait_ready(0.2)

    with pytest.raises(RoleFailedError, match="trend"):
        asyncio.run(story())


def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STEADY
    monkeypatch.setattr("stream_app.supervisor.STOP_BOUND_S", 0.1)
    events = Events()

    async def story() -> None:
        async with supervisor_of(tmp_path, {"trend": deaf}, events) as supervisor:
            await supervisor.wait_ready(DEADLINE_S)

    asyncio.run(story())
    [stopped] = events.of("stopped")
    assert "killed" in stopped.reason


def test_one_supervisor_for_a_state_folder(tmp_path: Path) -> None:
    async def story() -> None:
        async with supervisor_of(tmp_path, {"trend": STEADY}, Events()):
            with pytest.raises(UsageError, match=f"process {os.getpid()}"):
                async with supervisor_of(tmp_path, {"trend": STEADY}, Events()):
                    pass

    asyncio.run(story())
    asyncio.run(_start_and_stop(tmp_path))


async def _start_and_stop(folder: Path) -> None:
    async with supervisor_of(folder, {"trend": STEADY}, Events()) as supervisor:
        await supervisor.wait_ready(DEADLINE_S)


ORPHANED = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
import signal
signal.pause()
"""

LIVING = """
import signal
from stream_app.lifeline import end_with_parent
end_with_parent()
print("ready", flush=True)
signal.pause()
"""


def test_no_worker_outlives_a_supervisor_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANED, LIVING], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        parent.wait()
    give_up_at = time.monotonic() + DEADLINE_S
    while is_running(pid):
        assert time.monotonic() < give_up_at, f"process {pid} outlived its parent"
        os.sched_yield()


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended but that nobody waits for (in a container) does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return is_alive(pid) if not Path("/proc/self").exists() else False
    return state != "Z"


def test_counts_of_workers() -> None:
    workers = workers_of({"trend": 2})
    labels = ["sequence", "trend", "trend-1", "encode", "choose", "score", "recommend"]
    assert [worker.label for worker in workers] == labels
    with pytest.raises(UsageError, match="rank"):
        workers_of({"rank": 1})
    with pytest.raises(UsageError):
        workers_of({"trend": 0})
