"""A log that is killed on its way and goes on; then the topic of the running application, replayed into a namespace of
its own: the same lists each time, and nothing that runs is touched."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.kafka import admin_client
from stream_app.lag import committed_offsets, group_name
from stream_app.preflight import ensure_topics
from stream_app.roles import ROLES
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader
from stream_app.topics import topic_specs
from tests.bench.stack import running_roles
from tests.end_to_end.conftest import Commands
from tests.end_to_end.test_offline_replay import Inputs, environ_of, inputs, run_command, settings_for, without_time

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

__all__ = ["inputs"]

REPLAY_S = 6.0
"""How long sending the log takes at the pace that is chosen."""


async def state_of(settings: Settings) -> dict[str, Any]:
    """Where every topic of the namespace ends, and what every group has committed."""
    facts: dict[str, Any] = {}
    async with TopicReader(settings) as reader:
        for spec in topic_specs(settings.prefix, settings.partitions):
            facts[spec.name] = await reader.bounds(spec.name)
    async with admin_client(settings) as admin:
        for role in ROLES:
            facts[role] = await committed_offsets(admin, group_name(settings, role))
    return facts


async def others_of(settings: Settings, prefix: str) -> set[str]:
    """Topics and groups whose names begin with `prefix`."""
    async with admin_client(settings) as admin:
        names = {topic["topic"] for topic in await admin.describe_topics()}
        names |= {group for group, _ in await admin.list_consumer_groups()}
    return {name for name in names if name.startswith(prefix)}


async def killed_half_way(args: list[str], inputs: Inputs, commands: Commands) -> None:
    """A replay in some seconds, killed when a part of the log is acknowledged."""
    lines = [orjson.loads(line) for line in inputs.log.read_bytes().splitlines() if line.endswith(b"}")]
    times = [row["ts"] for row in lines]
    speed = (max(times) - times[0]) / 1000 / REPLAY_S
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stream_app.cli", *args, "--speed", f"x{speed}", env=commands.environ
    )
    places = commands.home / "replays"
    async with asyncio.timeout(60):
        while not any(json.loads(path.read_bytes())["num_rows"] > len(lines) // 3 for path in places.glob("*.json")):
            assert process.returncode is None
            await asyncio.sleep(0.02)
    process.kill()
    assert await process.wait() < 0


async def story(settings: Settings, inputs: Inputs, commands: Commands, golden: Path) -> None:
    """The application takes a log, in two parts; then its topic goes through roles in a namespace of the replay's."""
    async with running_roles(settings) as roles:
        assert roles.supervisor is not None
        items = ["--items", str(inputs.catalogue), "--json"]
        first = ["replay", str(inputs.log), *items, "--send-unknown-types", "--record", str(golden)]
        await roles.supervisor.watch(killed_half_way(first, inputs, commands))
        facts = await roles.supervisor.watch(run_command([*first, "--resume"], commands.environ))
        before = await state_of(settings)
        again = ["replay", "--from-topic", "--namespace", "trial", "--with-roles", "--remove", "--check", str(golden)]
        found = await roles.supervisor.watch(run_command([*again, *items], commands.environ))
        assert await state_of(settings) == before
        assert not roles.num_deaths
    assert (found.pop("same"), found.pop("differing")) == (True, 0)
    assert (found.pop("topic"), found.pop("prefix")) == (f"{settings.prefix}events", f"{settings.prefix}trial-")
    assert sum(end - start for start, end in found.pop("ranges").values()) > facts["events_in"]
    assert not Path(found.pop("state_dir")).exists()
    assert without_time(found) == without_time(facts)
    assert await others_of(settings, f"{settings.prefix}trial-") == set()


def test_a_topic_gives_the_same_lists_elsewhere_and_nothing_that_runs_changes(
    broker: EmbeddedBroker, topic_prefix: str, inputs: Inputs, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    environ = {**environ_of(settings), "SLICEFLOW_SESSION_TIMEOUT_S": "6"}
    commands = Commands(tmp_path / "state", environ)
    ensure_topics(settings, create=True)
    golden = tmp_path / "golden.ndjson"
    asyncio.run(story(settings, inputs, commands, golden))
    commands.environ.pop("KAFKA_BOOTSTRAP_SERVERS")
    args = ["replay", str(inputs.log), "--offline", "--items", str(inputs.catalogue), "--send-unknown-types"]
    outcome = json.loads(commands.run(*args, "--check", str(golden), "--json").stdout)
    assert outcome["same"] is True
    commands.wait_all_gone()
