"""The audit of the real roles: it passes beside them and after them, and names what is planted on the topics."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.cli.replay import ReplayOptions, run_replay
from stream_app.demo import CONFIG_FILE, EVENTS_FILE, MODEL_FOLDER
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory, seal
from stream_app.kafka import admin_client
from stream_app.local_broker import with_broker
from stream_app.preflight import ensure_topics
from stream_app.replay.readers import open_log
from stream_app.settings import Settings, load_settings
from stream_app.tables import USER_MEMORY, USER_VECTORS
from stream_app.wiring import store_folder
from tests.bench.stack import running_roles
from tests.end_to_end.conftest import SAMPLE, Commands
from tests.support import publish, read_all

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NUM_EVENTS = 400
NUM_PARTITIONS = 2

Checks = dict[str, dict[str, Any]]


@pytest.fixture
def settings(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Settings:
    """The sample's settings and model, in a namespace and a state folder of this test."""
    overrides = {
        "prefix": topic_prefix,
        "state_dir": str(tmp_path / "state"),
        "model": str(SAMPLE / MODEL_FOLDER),
        "partitions": NUM_PARTITIONS,
    }
    made = with_broker(load_settings(SAMPLE / CONFIG_FILE, environ={}, overrides=overrides), broker.bootstrap_servers)
    ensure_topics(made, create=True)
    return made


@pytest.fixture
def commands(settings: Settings) -> Commands:
    """The command line with these settings."""
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "SLICEFLOW_CONFIG": str(SAMPLE / CONFIG_FILE),
        "SLICEFLOW_PREFIX": settings.prefix,
        "SLICEFLOW_PARTITIONS": str(NUM_PARTITIONS),
    }
    return Commands(settings.state_path, environ)


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """The first events of the sample, some of them twice, with lines between that are no events."""
    path = tmp_path / "events.ndjson"
    with gzip.open(SAMPLE / EVENTS_FILE) as full, path.open("wb") as made:
        for number, line in enumerate(islice(full, NUM_EVENTS)):
            made.write(line)
            if number % 50 == 7:
                made.write(line)
            if number % 60 == 9:
                made.write(b'{"user_id":"17","item_id":\n')
    return path


def checks_of(done: CompletedProcess[str]) -> Checks:
    """The outcome of each check, by its name."""
    return {check["check"]: check for check in map(json.loads, done.stdout.splitlines())}


async def replay_and_audit(settings: Settings, log_file: Path, audit: Callable[[], Checks]) -> Checks:
    """Replay the log, and audit while the roles run."""
    async with running_roles(settings) as roles:
        assert roles.supervisor is not None
        replaying = run_replay(settings, open_log(log_file), ReplayOptions({}), lambda text: None, asyncio.Event())
        facts = await roles.supervisor.watch(replaying)
        assert facts["balanced"]
        return await roles.supervisor.watch(asyncio.to_thread(audit))


def newest(settings: Settings, topic: str) -> Any:
    """The last record of the last partition of a topic that has any."""
    return asyncio.run(read_all(settings.kafka.bootstrap_servers, topic, NUM_PARTITIONS))[-1]


def remove_events(settings: Settings, offset: int) -> None:
    """What retention does: take the events of partition 0 below `offset` away."""

    async def remove() -> None:
        async with admin_client(settings) as admin:
            tp = TopicPartition(topics.prefixed(settings.prefix, topics.EVENTS), 0)
            await admin.delete_records({tp: RecordsToDelete(offset)})

    asyncio.run(remove())


def plant(settings: Settings) -> Checks:
    """Break a promise of each kind; where each breach is to be found."""
    lists = topics.prefixed(settings.prefix, topics.RECOMMENDATIONS)
    made = newest(settings, lists)
    edited = orjson.dumps({**orjson.loads(made.value), "items": []})
    changelog = topics.changelog_name(settings.prefix, USER_VECTORS)
    value = newest(settings, changelog)
    events = topics.prefixed(settings.prefix, topics.EVENTS)
    records = [
        (lists, made.partition, made.key, edited),
        (changelog, value.partition, value.key, seal(0, value.value[8:])),
        (topics.prefixed(settings.prefix, topics.DEAD_LETTER), 0, b"17", b"{}"),
        (events, 0, b"17", b"{}"),
    ]
    asyncio.run(publish(settings.kafka.bootstrap_servers, records))
    store = PartitionStore(store_folder(settings, "encode", 0) / USER_MEMORY / "1", StoreMemory(1024 * 1024))
    key, stored = next(iter(dict(store.items()).items()))
    changed = Stored(stored.position, stored.payload[:-1])
    assert store.changelog_offset is not None
    store.write({key: seal(changed.position, changed.payload)}, store.changelog_offset)
    store.close()
    return {
        "lists": {"topic": lists, "partition": made.partition},
        "positions": {"topic": changelog, "partition": value.partition, "key": repr(value.key.decode())},
        "dead-letters": {"topic": topics.prefixed(settings.prefix, topics.DEAD_LETTER), "partition": 0},
        "lag": {"topic": events, "partition": 0},
        "stores": {"topic": topics.changelog_name(settings.prefix, USER_MEMORY), "key": repr(key.decode())},
    }


def test_live_and_stopped_roles_pass_and_each_planted_breach_is_named(
    settings: Settings, commands: Commands, log_file: Path
) -> None:
    def passing() -> Checks:
        done = commands.run("audit", "--json", "--bound-s", "30")
        checks = checks_of(done)
        assert done.returncode == 0, (done.stderr, checks)
        return checks

    live = asyncio.run(replay_and_audit(settings, log_file, passing))
    stopped = passing()
    for checks in (live, stopped):
        assert {check["status"] for check in checks.values()} == {"pass"}
        total = checks["input"]["facts"]["total"]
        num_twice, num_bad = len(range(7, NUM_EVENTS, 50)), len(range(9, NUM_EVENTS, 60))
        assert (total["in"], total["missing"]) == (NUM_EVENTS + num_twice + num_bad, 0)
        assert (total["dead_lettered"], total["dropped"]["duplicate"]) == (num_bad, num_twice)
        assert checks["stores"]["facts"]["stores"] == 5 * NUM_PARTITIONS + 1
        assert checks["histories"]["facts"]["keys"] > NUM_PARTITIONS
        assert checks["lists"]["facts"]["recommendations"]["records"] > 100

    remove_events(settings, 20)
    shortened = passing()
    assert shortened["histories"]["status"] == "partly checked"
    assert ["begins at offset 20" in text for text in shortened["histories"]["not_checked"]] == [True]
    assert ["below offset 20" in text for text in shortened["input"]["notes"]] == [True]
    assert shortened["input"]["facts"]["total"]["in"] == stopped["input"]["facts"]["total"]["in"]

    planted = plant(settings)
    done = commands.run("audit", "--json", "--bound-s", "0")
    checks = checks_of(done)
    assert done.returncode == 1
    assert {name for name, check in checks.items() if check["num_breaches"]} == set(planted)
    for name, place in planted.items():
        (breach,) = checks[name]["breaches"]
        assert breach["seen"] and breach["expected"]
        assert place.items() <= breach.items()

    shown = commands.run("audit", "--bound-s", "0", "--no-store")
    assert shown.returncode == 1
    assert shown.stdout.count("breach of ") == len(planted) - 1
    assert "not checked by stores: all stores: --no-store was given" in shown.stdout
