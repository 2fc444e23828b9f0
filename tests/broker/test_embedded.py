"""The broker itself: a real Kafka, started, used, killed and started again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream_app.broker import BrokerError, EmbeddedBroker
from stream_app.broker.config import LOOPBACK
from stream_app.broker.errors import (
    BrokerConfigError,
    BrokerStartError,
    FolderInUseError,
    JarDamagedError,
    JavaUnsuitableError,
    PortTakenError,
)
from stream_app.broker.install import cache_folder
from stream_app.broker.jars import load_lock, lock_digest
from tests.broker.test_process import is_alive, wait_until

TOPIC = "colours"
LONG_AGO_MS = 1
FAR_AHEAD_MS = 32_503_680_000_000  # the year 3000

pytestmark = pytest.mark.kafka


async def write(servers: str, topic: str, values: list[bytes], *, timestamp_ms: int | None = None) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        if topic not in await admin.list_topics():
            await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0, timestamp_ms=timestamp_ms)


async def read(servers: str, topic: str, num: int) -> list[tuple[int, bytes]]:
    """Return `(timestamp in ms, value)` of the first `num` records."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(30):
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        records = [await consumer.getone() for _ in range(num)]
    return [(record.timestamp, record.value) for record in records]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A broker on a folder of its own that is not started yet; its sessions are short for quick restarts."""
    quick = {"broker.session.timeout.ms": "1000", "broker.heartbeat.interval.ms": "100"}
    broker = EmbeddedBroker(tmp_path / "data", extra_config=quick)
    yield broker
    broker.stop()


def test_records_come_back_with_their_times_however_old(broker: EmbeddedBroker, topic_prefix: str) -> None:
    topic = topic_prefix + TOPIC

    async def scenario() -> list[tuple[int, bytes]]:
        await write(broker.bootstrap_servers, topic, [b"old"], timestamp_ms=LONG_AGO_MS)
        await write(broker.bootstrap_servers, topic, [b"new"], timestamp_ms=FAR_AHEAD_MS)
        return await read(broker.bootstrap_servers, topic, 2)

    assert asyncio.run(scenario()) == [(LONG_AGO_MS, b"old"), (FAR_AHEAD_MS, b"new")]


def test_a_group_joins_and_commits(broker: EmbeddedBroker, topic_prefix: str) -> None:
    topic = topic_prefix + TOPIC

    async def scenario() -> int | None:
        await write(broker.bootstrap_servers, topic, [b"red", b"green"])
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=broker.bootstrap_servers,
            group_id=topic_prefix + "group",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        async with consumer, asyncio.timeout(30):
            await consumer.getone()
            await consumer.commit()
            committed: int | None = await consumer.committed(TopicPartition(topic, 0))
            return committed

    assert asyncio.run(scenario()) == 1


def test_topics_are_not_made_by_asking_for_them(broker: EmbeddedBroker, topic_prefix: str) -> None:
    async def scenario() -> list[str]:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        try:
            await admin.describe_topics([topic_prefix + "unheard-of"])
            return list(await admin.list_topics())
        finally:
            await admin.close()

    assert topic_prefix + "unheard-of" not in asyncio.run(scenario())


def test_an_ephemeral_broker_leaves_neither_process_nor_folder() -> None:
    with EmbeddedBroker(None) as broker:
        pid, folder = broker.pid, broker.data_dir
        assert is_alive(pid)
        assert broker.poll() is None
        assert broker.log_file.exists()
    assert not is_alive(pid)
    assert not folder.exists()
    broker.stop()


def test_data_is_kept_over_a_stop_and_over_a_kill(kept: EmbeddedBroker) -> None:
    first = kept.start()
    asyncio.run(write(first, TOPIC, [b"red"]))
    kept.stop()
    assert kept.start() == first
    asyncio.run(write(first, TOPIC, [b"green"]))
    kept.kill()
    assert kept.start() == first
    assert [value for _, value in asyncio.run(read(first, TOPIC, 2))] == [b"red", b"green"]


def test_a_kept_folder_may_move_to_another_port(kept: EmbeddedBroker) -> None:
    first = kept.start()
    asyncio.run(write(first, TOPIC, [b"red"]))
    kept.stop()
    with socket.create_server((LOOPBACK, int(first.rpartition(":")[2]))):
        second = kept.start()
        assert second != first
        assert asyncio.run(read(second, TOPIC, 1))[0][1] == b"red"


def test_a_second_start_on_the_folder_is_refused_by_name(kept: EmbeddedBroker) -> None:
    servers = kept.start()
    with pytest.raises(FolderInUseError) as caught:
        EmbeddedBroker(kept.data_dir).start()
    for fact in (os.getpid(), kept.pid, servers.rpartition(":")[2]):
        assert str(fact) in str(caught.value)
    assert kept.poll() is None
    with pytest.raises(BrokerError, match="runs already"):
        kept.start()


def test_an_end_by_itself_is_seen_and_the_next_start_works(kept: EmbeddedBroker) -> None:
    kept.start()
    os.kill(kept.pid, signal.SIGKILL)
    wait_until(lambda: kept.poll() is not None)
    assert kept.poll() == -signal.SIGKILL
    kept.start()
    assert kept.poll() is None


def test_a_setting_that_kafka_refuses_is_shown_from_its_log(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, extra_config={"num.partitions": "many"})
    with pytest.raises(BrokerStartError, match=r"num\.partitions") as caught:
        broker.start()
    assert str(broker.log_file) in str(caught.value)
    with pytest.raises(BrokerError, match="not started"):
        _ = broker.pid
    broker.stop()


def test_a_port_in_use_is_refused_and_the_folder_is_free_again(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        broker = EmbeddedBroker(tmp_path, port=server.getsockname()[1])
        for _ in range(2):
            with pytest.raises(PortTakenError):
                broker.start()


def test_a_broker_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    with pytest.raises(BrokerStartError, match="did not answer"):
        broker.start(timeout_s=0)
    broker.stop()


def test_too_small_a_heap_is_refused() -> None:
    with pytest.raises(BrokerConfigError, match="too small"):
        EmbeddedBroker(None, heap_mb=1)


def test_an_unsuitable_java_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLICEFLOW_JAVA", str(tmp_path / "java"))
    with pytest.raises(JavaUnsuitableError, match="SLICEFLOW_JAVA"):
        EmbeddedBroker(None).start()


def test_a_damaged_jar_is_refused_by_name(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert broker.poll() is None  # so the machine's own cache is filled
    jars = load_lock()
    name = f"kafka-{lock_digest(jars)}"
    own = cache_folder(os.environ) / name / "jars"
    copies = tmp_path / "sliceflow" / name / "jars"
    shutil.copytree(own, copies, ignore=shutil.ignore_patterns(".*"))
    victim = copies / jars[0].filename
    victim.write_bytes(victim.read_bytes()[:-1])
    assert hashlib.sha256(victim.read_bytes()).hexdigest() != jars[0].sha256
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(JarDamagedError, match=victim.name):
        EmbeddedBroker(tmp_path / "data").start()


def run_command(*options: str) -> subprocess.Popen[str]:
    line = "from stream_app.cli.broker import command; command()"
    return subprocess.Popen(
        [sys.executable, "-c", line, "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_command_leaves_no_orphan_however_it_ends(how: signal.Signals) -> None:
    command = run_command("--ephemeral")
    assert command.stdout is not None
    facts = json.loads(command.stdout.readline())
    assert is_alive(facts["pid"])
    command.send_signal(how)
    command.communicate()
    assert command.returncode == (-how if how is signal.SIGKILL else 0)
    wait_until(lambda: not is_alive(facts["pid"]))
    wait_until(lambda: not Path(facts["data_dir"]).exists())


def test_the_command_says_that_kafka_ended(tmp_path: Path) -> None:
    command = run_command("--data-dir", str(tmp_path))
    assert command.stdout is not None
    facts = json.loads(command.stdout.readline())
    os.kill(facts["pid"], signal.SIGKILL)
    _, told = command.communicate()
    assert command.returncode == 1
    assert "exit status -9" in told
    assert facts["log_file"] in told


def test_the_command_refuses_contradictory_options(tmp_path: Path) -> None:
    command = run_command("--ephemeral", "--data-dir", str(tmp_path))
    _, told = command.communicate()
    assert command.returncode == 2
    assert "give only one" in told
