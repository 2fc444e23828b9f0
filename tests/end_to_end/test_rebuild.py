"""Rebuilding the states of real roles: what they keep is what their input gives; a rebuild that is killed at any point
leaves the old state or the new one, or nobody works."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from stream_app import tables
from stream_app.broker import EmbeddedBroker
from stream_app.demo import EVENTS_FILE
from stream_app.faustkit.store import seal, unseal
from stream_app.preflight import ensure_topics
from stream_app.roles import ROLES
from stream_app.settings import Settings
from stream_app.topics import changelog_name
from tests.bench.stack import running_roles
from tests.end_to_end.conftest import SAMPLE, Commands, last_json
from tests.end_to_end.test_offline_replay import environ_of, run_command, settings_for
from tests.rebuild import dying
from tests.support import publish, read_all

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NUM_EVENTS = 400
WORKER_S = 60.0
"""Longest wait for a worker that must end."""


@dataclass(frozen=True)
class App:
    """An application whose roles have taken the first half of a log, and were stopped."""

    settings: Settings
    commands: Commands
    second_half: Path

    @property
    def changelog(self) -> str:
        """The changelog of the sequence role."""
        return changelog_name(self.settings.prefix, tables.USER_HISTORIES)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A command, run to its end."""
        return self.commands.run(*args)

    def rebuild(self, role: str) -> dict[str, Any]:
        """The facts of a rebuild, which must be a good one."""
        done = self.run("rebuild", role, "--json")
        assert (done.stderr, done.returncode) == ("", 0)
        facts: dict[str, Any] = last_json(done.stdout)
        return facts

    def rebuild_and_die(self, role: str, point: str) -> None:
        """A rebuild that dies."""
        command = [sys.executable, str(Path(dying.__file__)), point, "rebuild", role]
        done = subprocess.run(command, capture_output=True, env=self.commands.environ, text=True, timeout=600)
        assert done.returncode == dying.EXIT_CODE, done.stderr

    def audit(self) -> set[str]:
        """The checks of the state in force that an audit finds breached.

        Left out is the one of what changelogs held before: a wrong value stays in them until they are compacted.
        """
        checks = [json.loads(line) for line in self.run("audit", "--json").stdout.splitlines()]
        assert {check["check"] for check in checks} >= {"input", "histories", "stores"}
        return {check["check"] for check in checks if check["breaches"]} - {"positions"}

    async def state(self) -> dict[tuple[int, bytes], bytes | None]:
        """The last record of each key of the changelog: what a worker would find there."""
        records = await read_all(self.settings.kafka.bootstrap_servers, self.changelog, self.settings.partitions)
        last = {(record.partition, record.key): record.value for record in records if not record.headers}
        return {place: value for place, value in last.items() if value is not None}

    async def corrupt(self) -> None:
        """Histories of two users become another one's, one is lost, and one of nobody comes."""
        state = {place: unseal(value or b"") for place, value in (await self.state()).items()}
        users = [place for place in sorted(state) if not tables.is_partition_key(place[1])]
        other = seal(state[users[0]].position, state[users[3]].payload)
        wrong = [(*users[0], other), (*users[1], seal(10**12, b"")), (*users[2], None)]
        records = [(self.changelog, *one) for one in [*wrong, (0, b"nobody", seal(3, b"\x90"))]]
        await publish(self.settings.kafka.bootstrap_servers, records)


@pytest.fixture(scope="module")
def app(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("rebuild")
    settings = settings_for(broker, "t-rebuild-", folder)
    environ = {**environ_of(settings), "SLICEFLOW_SESSION_TIMEOUT_S": "6"}
    made = App(settings, Commands(folder / "state", environ), folder / "second.ndjson")
    halves = folder / "first.ndjson", made.second_half
    with gzip.open(SAMPLE / EVENTS_FILE) as full:
        for half in halves:
            half.write_bytes(b"".join(islice(full, NUM_EVENTS // 2)))
    ensure_topics(settings, create=True)
    assert asyncio.run(replayed(made, halves[0]))["balanced"]
    yield made
    made.commands.close()


async def replayed(app: App, log: Path) -> dict[str, Any]:
    """Replay a log through the roles, which run just for that."""
    async with running_roles(app.settings) as roles:
        assert roles.supervisor is not None
        return await roles.supervisor.watch(run_command(["replay", str(log), "--json"], app.commands.environ))


def differing(facts: dict[str, Any]) -> tuple[int, int, int]:
    """Keys that were added, changed and removed."""
    return facts["added"], facts["changed"], facts["removed"]


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_keeps_is_what_its_input_gives(app: App, role: str) -> None:
    facts = app.rebuild(role)
    few = role == "score"  # a handful of the events are choices of known users
    assert facts["keys"] > (2 if few else 20) and facts["records"] > (2 if few else NUM_EVENTS // 4)
    assert differing(facts) == (0, 0, 0)
    assert app.audit() == set()


@pytest.mark.parametrize("point", dying.POINTS)
def test_killed_at_any_point_the_old_state_or_the_new_one_is_in_force(app: App, point: str) -> None:
    good = asyncio.run(app.state())
    asyncio.run(app.corrupt())
    wrong = asyncio.run(app.state())
    assert "histories" in app.audit()
    app.rebuild_and_die("sequence", point)
    left = asyncio.run(app.state())
    if point == "built":
        assert left == wrong
    elif point == "done":
        assert left == good
    else:
        worker = subprocess.run(
            [sys.executable, "-m", "stream_app.cli", "worker", "sequence"],
            capture_output=True,
            env=app.commands.environ,
            text=True,
            timeout=WORKER_S,
        )
        assert worker.returncode != 0
        assert "run `sliceflow rebuild sequence` to its end" in worker.stderr
    assert differing(app.rebuild("sequence")) == ((1, 2, 1) if left == wrong else (0, 0, 0)) or point == "writing"
    assert asyncio.run(app.state()) == good
    assert app.audit() == set()


def test_the_roles_go_on_with_the_new_state(app: App) -> None:
    asyncio.run(app.corrupt())
    for role in ROLES:
        app.rebuild(role)
    facts = asyncio.run(replayed(app, app.second_half))
    assert (facts["balanced"], facts["applied"]) == (True, NUM_EVENTS // 2)
    assert app.audit() == set()
    assert differing(app.rebuild("sequence")) == (0, 0, 0)
