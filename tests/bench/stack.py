"""Everything running for a measurement or a crash test: a broker of its own, the topics, and the roles as processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from stream_app.broker import EmbeddedBroker
from stream_app.local_broker import with_broker
from stream_app.preflight import ensure_topics
from stream_app.restarts import RestartRule
from stream_app.settings import Settings
from stream_app.supervisor import RoleEvent, Supervisor, workers_of

READY_WITHIN_S: Final = 120.0
"""Longest wait for the roles; ten seconds are usual, most of them for loading libraries."""

NO_EXTRA: Final[Mapping[str, str]] = MappingProxyType({})


@contextmanager
def fresh_broker(settings: Settings, extra_config: Mapping[str, str] = NO_EXTRA) -> Iterator[tuple[Settings, int]]:
    """A broker with empty topics for the block: the settings that reach it, and its process id.

    What roles kept for another broker in the state folder means nothing to this one, and is removed.
    """
    shutil.rmtree(settings.state_path / "stores", ignore_errors=True)
    with EmbeddedBroker(None, extra_config=extra_config) as broker:
        reached = with_broker(settings, broker.bootstrap_servers)
        ensure_topics(reached, create=True)
        yield reached, broker.pid


@dataclass
class RunningRoles:
    """The workers, one of each role: the process id of each one's newest life, and how often each has died."""

    supervisor: Supervisor | None = None
    pids: dict[str, int] = field(default_factory=dict)
    num_deaths: dict[str, int] = field(default_factory=dict)

    def take(self, event: RoleEvent) -> None:
        """Learn from what the supervisor tells."""
        if event.worker is None:
            return
        if event.event == "started" and event.pid is not None:
            self.pids[event.worker.role] = event.pid
        elif event.event == "died":
            self.num_deaths[event.worker.role] = self.num_deaths.get(event.worker.role, 0) + 1
            print(f"{event.worker.label} died: {event.reason}", flush=True)


@asynccontextmanager
async def running_roles(settings: Settings) -> AsyncIterator[RunningRoles]:
    """One worker of each role, ready, for the block. One that ends is started again at once.

    Raises:
        RoleFailedError: They did not become ready.
    """
    roles = RunningRoles()
    rule = RestartRule(max_delay_s=0.2)
    async with Supervisor(settings, workers_of({}), on_event=roles.take, rule=rule) as supervisor:
        roles.supervisor = supervisor
        await supervisor.wait_ready(READY_WITHIN_S)
        yield roles


def cpu_s(pid: int, proc: Path = Path("/proc")) -> float:
    """Processor seconds that a running process has used, in user and system mode.

    Raises:
        OSError: There is no such process, or the system does not tell (not Linux).
    """
    # The name of the process stands in parentheses, and may hold spaces and parentheses itself.
    fields = (proc / str(pid) / "stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory_mib(pid: int, proc: Path = Path("/proc")) -> float | None:
    """The most memory a running process has held, in MiB; None where the system does not tell (not Linux)."""
    try:
        lines = (proc / str(pid) / "status").read_text("utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "VmHWM":
            return int(rest.split()[0]) / 1024
    return None
