"""All roles through kills, deaths between two steps, and a broker that goes and comes: as if nothing had happened."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.recording import RecordedReplay, Recording
from stream_app.roles import ROLES
from tests.faults.chain import Chain, check_same, kill_points, through_chain, without_broker
from tests.faults.conftest import MakeRig, Scale
from tests.faults.feeds import EPOCH_S, write_log
from tests.faults.launcher import STEPS, Trouble
from tests.faults.rig import example_settings
from tests.faults.verify import check

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 12
HURRIED_PER_S = 2000.0
"""Events a second once all deaths are over."""

SESSION_S = 4.0
"""Short, since a test waits for it to run out; long enough for a busy machine."""

MAX_DELAY_S = 0.3
"""A kill comes up to so long after the event that asks for it: more than lies between two commits."""


@pytest.fixture(scope="module")
def planted(scale: Scale, log: Path) -> Counter[str]:
    """What was put into the log besides good events."""
    return write_log(log, scale.num_events, SEED)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the log lies."""
    return tmp_path_factory.mktemp("log") / "events.ndjson"


@pytest.fixture(scope="module")
def expected(planted: Counter[str], log: Path) -> Recording:
    """What the log comes to when nothing happens."""
    settings = example_settings("", "", log.parent, epoch_s=EPOCH_S)
    return without_broker(settings, log)


def test_the_log_is_worth_going_through(expected: Recording, planted: Counter[str], scale: Scale) -> None:
    replay = next(expected.records())
    assert isinstance(replay, RecordedReplay)
    assert replay.dead_letters["unknown_type"] == planted["unknown_type"] > 10
    assert sum(replay.dead_letters.values()) == planted["unknown_type"] + planted["broken"]
    assert replay.dropped["duplicate"] == planted["duplicate"] > 50
    assert replay.dropped["late_too_old"] == planted["late_too_old"] > 10
    num_full = replay.dropped["late_slice_full"]
    assert 0 < num_full < planted["out_of_order"]
    assert replay.applied == scale.num_events + planted["out_of_order"] - num_full
    assert len(expected.lines) > scale.num_events // 25


def test_kills_of_all_roles_and_of_the_broker_change_nothing(
    make_rig: MakeRig, scale: Scale, log: Path, expected: Recording
) -> None:
    rng = random.Random(SEED)
    num_events = scale.num_events
    points = kill_points(num_events, [*ROLES, "broker"], scale.num_kills, rng)

    with EmbeddedBroker(None) as broker:

        async def kill_at_each_point(chain: Chain) -> None:
            for point, victim in points:
                await chain.wait_sent(point)
                # No wait for anything: the moment is to be random.
                await asyncio.sleep(rng.uniform(0, MAX_DELAY_S))
                if victim != "broker":
                    await chain.kill(victim)
                    continue
                async with chain.sending:
                    broker.kill()
                    await asyncio.to_thread(broker.start)

        rig = make_rig(broker.bootstrap_servers, epoch_s=EPOCH_S)
        replaying = through_chain(rig.settings, log, events_per_s=scale.events_per_s, misfortune=kill_at_each_point)
        found = asyncio.run(replaying)
        check_same(expected, found)
        check(rig, *ROLES)


def test_deaths_at_every_step_of_every_role_change_nothing(
    make_rig: MakeRig, scale: Scale, log: Path, expected: Recording
) -> None:
    rig = make_rig(epoch_s=EPOCH_S)
    steps = [step for step in STEPS for _ in range(scale.num_kills // 2)]
    rng = random.Random(SEED)
    troubles = {role: [Trouble(die_at=step, die_in_run=rng.randint(1, 2)) for step in steps] for role in ROLES}

    async def wait_for_all_deaths(chain: Chain) -> None:
        chain.is_patient = True
        for role in ROLES:
            await chain.wait_dead(role, len(steps))
        chain.is_patient = False

    replaying = through_chain(
        rig.settings, log, events_per_s=HURRIED_PER_S, misfortune=wait_for_all_deaths, troubles=troubles
    )
    found = asyncio.run(replaying)
    check_same(expected, found)
    check(rig, *ROLES)


def test_pauses_of_all_roles_beyond_their_session_change_nothing(
    make_rig: MakeRig, scale: Scale, log: Path, expected: Recording
) -> None:
    if not scale.is_long:
        pytest.skip("only in the long form: make faults")
    rig = make_rig(epoch_s=EPOCH_S, session_timeout_s=SESSION_S)

    async def pause_each(chain: Chain) -> None:
        for number, role in enumerate(ROLES):
            await chain.wait_sent(scale.num_events * number // len(ROLES))
            pid = chain.roles.pids[role]
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(2 * SESSION_S)
            os.kill(pid, signal.SIGCONT)
            await chain.wait_dead(role, 1)

    replaying = through_chain(rig.settings, log, events_per_s=scale.events_per_s, misfortune=pause_each)
    check_same(expected, asyncio.run(replaying))
    check(rig, *ROLES)
