"""All roles on one log, fed steadily while things happen to them; the outcome is that of the log without any broker."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from stream_app.offline_replay import replay_offline
from stream_app.recorded_topics import OutputEnds, dead_letter_reasons, record_topics
from stream_app.recording import FORMAT, RecordedReplay, Recorder, Recording
from stream_app.recording_check import compare
from stream_app.replay.caught_up import Totals, read_totals, wait_caught_up
from stream_app.replay.planning import Counted, ReplayPlan
from stream_app.replay.readers import open_log
from stream_app.replay.sender import BatchSender
from stream_app.restarts import RestartRule
from stream_app.role_process import Worker
from stream_app.roles import ROLES
from stream_app.settings import Settings
from stream_app.supervisor import RoleEvent, Supervisor, workers_of
from stream_app.topics import EVENTS, prefixed
from tests.bench.stack import READY_WITHIN_S, RunningRoles
from tests.faults.launcher import NO_TROUBLE, Task, Trouble, command

PIECE_EVENTS: Final = 50
"""Events sent at once."""

UNHURRIED_S: Final = 0.3
"""Between two pieces that are to be runs of their own: the roles keep what they did every 0.2 s."""

POLL_S: Final = 0.05
FROM_THE_START: Final = OutputEnds({}, {}, {})

Troubles = Mapping[str, Sequence[Trouble]]
"""What goes wrong in the first, second, ... life of the worker of a role; nothing in later ones."""


@dataclass
class ReadyRoles(RunningRoles):
    """Running roles, and which of them are ready."""

    ready: set[str] = field(default_factory=set)

    @property
    def are_ready(self) -> bool:
        """Whether all are."""
        return len(self.ready) == len(ROLES)

    def take(self, event: RoleEvent) -> None:
        """Learn from what the supervisor tells."""
        super().take(event)
        if event.worker is not None and event.event == "ready":
            self.ready.add(event.worker.role)
        elif event.worker is not None and event.event == "died":
            self.ready.discard(event.worker.role)


@dataclass
class Chain:
    """Running roles and the feeding of their log.

    Args:
        settings: With a Kafka address.
        roles: Process ids and deaths.
        num_sent: Events sent so far.
        sending: Held while events are on their way: a broker that is to be killed is not killed under them, for it is
            the roles that are tested.
        is_patient: Feed slowly, and only while all roles are ready, so that each of their lives has several runs.
    """

    settings: Settings
    roles: ReadyRoles
    num_sent: int = 0
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_patient: bool = False

    async def wait_turn(self, events_per_s: float) -> None:
        """Wait until the next piece is to be sent."""
        await asyncio.sleep(UNHURRIED_S if self.is_patient else PIECE_EVENTS / events_per_s)
        while self.is_patient and not self.roles.are_ready:
            await asyncio.sleep(POLL_S)

    async def wait_sent(self, num_events: int) -> None:
        """Wait until so many events are sent."""
        while self.num_sent < num_events:
            await asyncio.sleep(POLL_S)

    async def wait_dead(self, role: str, num_deaths: int) -> None:
        """Wait until the worker of a role has died so many times."""
        while self.roles.num_deaths.get(role, 0) < num_deaths:
            await asyncio.sleep(POLL_S)

    async def kill(self, role: str) -> None:
        """kill -9, and see that it has died; it is started again at once."""
        num_deaths = self.roles.num_deaths.get(role, 0)
        try:
            os.kill(self.roles.pids[role], signal.SIGKILL)
        except ProcessLookupError:
            return  # it has just ended by itself, and is being started again
        await self.wait_dead(role, num_deaths + 1)


Misfortune = Callable[[Chain], Awaitable[None]]
"""What happens meanwhile; begins with the feeding, and is waited for."""


async def nothing(chain: Chain) -> None:
    """No misfortune."""


@asynccontextmanager
async def supervised(settings: Settings, troubles: Troubles) -> AsyncIterator[ReadyRoles]:
    """One worker of each role, ready, for the block; one that ends is started again with the trouble of its next life.

    Raises:
        RoleFailedError: They did not become ready.
    """
    lives: Mapping[str, Iterator[Trouble]] = {role: iter(listed) for role, listed in troubles.items()}

    def command_of(worker: Worker) -> list[str]:
        trouble = next(lives.get(worker.role, iter(())), NO_TROUBLE)
        return command(Task(settings=settings, role=worker.role, instance=worker.instance, trouble=trouble))

    roles = ReadyRoles()
    rule = RestartRule(max_delay_s=0.2)
    supervisor = Supervisor(settings, workers_of({}), on_event=roles.take, rule=rule, command_of=command_of)
    async with supervisor:
        roles.supervisor = supervisor
        await supervisor.wait_ready(READY_WITHIN_S)
        yield roles


async def through_chain(
    settings: Settings,
    log: Path,
    *,
    events_per_s: float,
    misfortune: Misfortune = nothing,
    troubles: Troubles | None = None,
) -> Recording:
    """Take a log through all roles on Kafka while `misfortune` happens; what came of it."""
    async with supervised(settings, troubles or {}) as roles:
        assert roles.supervisor is not None
        return await roles.supervisor.watch(_replay(Chain(settings, roles), log, events_per_s, misfortune))


async def _replay(chain: Chain, log: Path, events_per_s: float, misfortune: Misfortune) -> Recording:
    happening = asyncio.create_task(_happen(misfortune, chain))
    sent = await _feed(chain, log, events_per_s)
    await happening
    await wait_caught_up(chain.settings)
    recorder = Recorder()
    await record_topics(chain.settings, recorder, sent.users, FROM_THE_START)
    reasons = await dead_letter_reasons(chain.settings, FROM_THE_START)
    totals = await read_totals(chain.settings)
    assert totals.balances(sent.num_events), f"{sent.num_events} sent, {totals}"
    return recorder.recording(_first_line(totals, reasons, recorder.num_lists))


async def _happen(misfortune: Misfortune, chain: Chain) -> None:
    await misfortune(chain)


async def _feed(chain: Chain, log: Path, events_per_s: float) -> Counted:
    settings = chain.settings
    plan = ReplayPlan(settings.partitions, settings.epoch_ms)
    rows = (row for chunk in open_log(log).iter_chunks() for row in chunk)
    async with BatchSender(settings, prefixed(settings.prefix, EVENTS)) as sender:
        while piece := list(islice(rows, PIECE_EVENTS)):
            async with chain.sending:
                await sender.send(plan.records_of(piece))
            chain.num_sent += len(piece)
            await chain.wait_turn(events_per_s)
        async with chain.sending:
            await sender.send(plan.last_ticks())
    return plan.counted


def without_broker(settings: Settings, log: Path) -> Recording:
    """What the log comes to when nothing happens: the same stages in this process."""
    recorder = Recorder()
    outcome = replay_offline(open_log(log), settings, send_unknown_types=True, recorder=recorder)
    return recorder.recording(_first_line(outcome.totals, outcome.dead_letters, outcome.num_lists))


def _first_line(totals: Totals, dead_letters: Mapping[str, int], num_users: int) -> RecordedReplay:
    return RecordedReplay(
        format=FORMAT,
        events_in=totals.events,
        applied=totals.applied,
        dead_letters=dict(dead_letters),
        dropped=dict(totals.dropped),
        users=num_users,
        settings={},
    )


def check_same(expected: Recording, found: Recording) -> None:
    """Both are the same, byte for byte.

    Raises:
        AssertionError: They are not; shows the first record that differs.
    """
    outcome = compare(expected, found)
    told = outcome.first.text() if outcome.first is not None else ""
    assert not outcome.num_differing, f"{outcome.num_differing} of {outcome.num_records} records differ.\n{told}"


def kill_points(num_events: int, victims: Sequence[str], num_kills: int, rng: random.Random) -> list[tuple[int, str]]:
    """When to kill whom, in order: `num_kills` times each of `victims`, by the number of events sent before."""
    return sorted((rng.randrange(num_events), victim) for victim in victims for _ in range(num_kills))
