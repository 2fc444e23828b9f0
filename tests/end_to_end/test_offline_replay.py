"""One log through the real roles on Kafka and through the same stages in one process: the recordings are equal, byte
for byte.

The log has what logs have: events of one user out of order, repeats, events far too late, types nobody named, lines
that are no events, and a catalogue in which popular items are sold out. Repairs are kept to a user's newest slice: that
of a slice merged before is the one place where batches may show in the last digits (ARCHITECTURE, invariants).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.demo import CONFIG_FILE, EVENTS_FILE, MODEL_FOLDER
from stream_app.local_broker import with_broker
from stream_app.preflight import ensure_topics
from stream_app.settings import Settings, load_settings
from tests.bench.stack import running_roles
from tests.end_to_end.conftest import SAMPLE, Commands

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NUM_EVENTS = 500
NUM_PARTITIONS = 3
SLICE_GAP_MS = 1_800_000
DAY_MS = 86_400_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """The log, its catalogue, and what must become of the log; a moved event that finds its slice full is dropped."""

    log: Path
    catalogue: Path
    expected: Mapping[str, Any]


def out_of_order(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The rows, with every second event that has a follower of its user in the same slice moved behind that one."""
    moved: list[Row] = []
    waiting: dict[str, Row] = {}
    num_moved = 0
    newest: dict[str, int] = {}
    following: dict[str, list[int]] = {}
    for row in rows:
        following.setdefault(row["user_id"], []).append(row["ts"])
    for row in rows:
        user, ts = row["user_id"], row["ts"]
        times = following[user]
        times.pop(0)
        starts_slice = ts - newest.get(user, -DAY_MS) > SLICE_GAP_MS
        newest[user] = ts
        can_wait = not starts_slice and times and 0 < times[0] - ts < SLICE_GAP_MS // 2
        if can_wait and user not in waiting:
            waiting[user] = row
            continue
        moved.append(row)
        if user in waiting:
            moved.append(waiting.pop(user))
            num_moved += 1
    assert not waiting
    return moved, num_moved


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """The first events of the sample, with everything wrong with them that a log can have."""
    folder = tmp_path_factory.mktemp("inputs")
    with gzip.open(SAMPLE / EVENTS_FILE) as full:
        rows: list[Row] = [orjson.loads(line) for line, _ in zip(full, range(NUM_EVENTS), strict=False)]
    rows, num_moved = out_of_order(rows)
    lines: list[bytes] = []
    expected: Counter[str] = Counter()
    for number, row in enumerate(rows):
        lines.append(orjson.dumps(row))
        if number % 40 == 7:
            lines.append(orjson.dumps(row))
            expected["duplicate"] += 1
        if number % 60 == 9:
            lines.append(orjson.dumps({**row, "item_id": "late", "ts": row["ts"] - 30 * DAY_MS}))
            expected["late_too_old"] += 1
        if number % 70 == 11:
            lines.append(orjson.dumps({**row, "type": "gaze"}))
            expected["unknown_type"] += 1
        if number % 90 == 13:
            lines.append(b'{"user_id":"17","item_id":')
            expected["not_json"] += 1
    assert num_moved >= 5
    (folder / "events.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    popular = Counter(row["item_id"] for row in rows).most_common(10)
    items = [{"item_id": item, "available": place % 2 == 0} for place, (item, _) in enumerate(popular)]
    (folder / "items.ndjson").write_bytes(b"\n".join(map(orjson.dumps, items)) + b"\n")
    facts = {
        "events_in": len(lines),
        "dead_letter_reasons": {name: expected[name] for name in ("not_json", "unknown_type")},
        "dropped": {name: expected[name] for name in ("duplicate", "late_too_old")},
        "balanced": True,
    }
    return Inputs(folder / "events.ndjson", folder / "items.ndjson", facts)


def settings_for(broker: EmbeddedBroker, prefix: str, folder: Path) -> Settings:
    overrides = {
        "prefix": prefix,
        "state_dir": str(folder / "state"),
        "model": str(SAMPLE / MODEL_FOLDER),
        "partitions": NUM_PARTITIONS,
    }
    made = load_settings(SAMPLE / CONFIG_FILE, environ={}, overrides=overrides)
    return with_broker(made, broker.bootstrap_servers)


def environ_of(settings: Settings) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "SLICEFLOW_CONFIG": str(SAMPLE / CONFIG_FILE),
        "SLICEFLOW_MODEL": settings.model,
        "SLICEFLOW_PARTITIONS": str(settings.partitions),
        "SLICEFLOW_PREFIX": settings.prefix,
    }


async def through_roles(settings: Settings, inputs: Inputs, commands: Commands, out: Path) -> dict[str, Any]:
    """Replay through all roles as processes. They run already when the catalogue comes, and every list knows it."""
    async with running_roles(settings) as roles:
        assert roles.supervisor is not None
        args = ["replay", str(inputs.log), "--items", str(inputs.catalogue), "--send-unknown-types"]
        args += ["--record", str(out), "--json"]
        return await roles.supervisor.watch(run_command(args, commands.environ))


async def run_command(args: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Run a command to its end, which must be a good one; the JSON that it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stream_app.cli", *args, env=environ, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    facts: dict[str, Any] = json.loads(output)
    return facts


def rows_of(path: Path) -> list[Row]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def without_time(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "seconds"}


def test_a_replay_without_a_broker_comes_to_the_same_bytes(
    broker: EmbeddedBroker, topic_prefix: str, inputs: Inputs, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    commands = Commands(tmp_path / "state", environ_of(settings))
    on_kafka, offline = tmp_path / "kafka.ndjson", tmp_path / "offline.ndjson"
    ensure_topics(settings, create=True)
    facts = asyncio.run(through_roles(settings, inputs, commands, on_kafka))
    num_full = facts["dropped"].pop("late_slice_full")
    assert {name: facts[name] for name in inputs.expected} == inputs.expected
    facts["dropped"]["late_slice_full"] = num_full

    del commands.environ["KAFKA_BOOTSTRAP_SERVERS"]
    args = ["replay", str(inputs.log), "--offline", "--items", str(inputs.catalogue), "--send-unknown-types"]
    for partitions in (NUM_PARTITIONS, 1):
        commands.environ["SLICEFLOW_PARTITIONS"] = str(partitions)
        done = commands.run(*args, "--record", str(offline), "--check", str(on_kafka), "--json")
        assert (done.stderr, done.returncode) == ("", 0)
        outcome = json.loads(done.stdout)
        assert (outcome.pop("same"), outcome.pop("differing")) == (True, 0)
        assert without_time(outcome) == without_time(facts)
        assert offline.read_bytes() == on_kafka.read_bytes()

    sold_out = {item["item_id"] for item in rows_of(inputs.catalogue) if not item["available"]}
    lists = [row for row in rows_of(offline) if row["record"] == "list"]
    listed = {item["item_id"] for one in lists for item in one["items"]}
    assert len(lists) == facts["recommendations"] > 100
    assert sold_out and not sold_out & listed
