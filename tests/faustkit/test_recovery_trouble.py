"""Recovery in trouble: it always comes to an end, with the whole state or a refusal that says what mends it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit import recovery
from stream_app.faustkit.changelog import OWNER_HEADER, ChangelogFold, RecoveryError
from stream_app.faustkit.recovery import recover
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory, seal
from tests.faustkit.changelogs import LIMIT_S, LONG, Changelog, folded
from tests.support import publish, read_all, wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def changelog(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Iterator[Changelog]:
    """An empty changelog and empty stores."""
    made = Changelog(broker.bootstrap_servers, topic_prefix + "changelog", tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def own_broker() -> Iterator[EmbeddedBroker]:
    """A broker that may be stopped, and that compacts as soon as it can."""
    with EmbeddedBroker(None, extra_config={"log.cleaner.backoff.ms": "100"}) as running:
        yield running


@pytest.fixture
def own_changelog(own_broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Iterator[Changelog]:
    """A changelog on that broker, compacted down to the newest value of each key, with segments of a moment each."""
    configs = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "0"}
    made = Changelog(own_broker.bootstrap_servers, topic_prefix + "changelog", tmp_path, configs)
    yield made
    made.close()


def test_deletions_at_the_tail_come_to_an_end(changelog: Changelog) -> None:
    changelog.write((0, b"a", 1, b"x"), (0, b"b", 2, b"y"), (0, b"a", None, b""), (1, b"gone", None, b""))
    assert changelog.recover() == 4
    assert changelog.held(0) == {b"b": Stored(2, b"y")}
    assert changelog.held(1) == {}
    changelog.write((0, b"b", None, b""), (0, b"b", 9, b"again"))
    changelog.recover()
    assert changelog.held(0) == {b"b": Stored(9, b"again")}


def test_control_records_at_the_tail_come_to_an_end(changelog: Changelog) -> None:
    changelog.write((0, b"a", 1, b"x"))

    async def leave_marks() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=changelog.servers, transactional_id=changelog.topic)
        async with producer:
            async with producer.transaction():
                await producer.send_and_wait(changelog.topic, seal(2, b"y"), key=b"b", partition=0)
            await producer.begin_transaction()
            # The abort leaves a mark on a partition that holds no other record of ours.
            await producer.send_and_wait(changelog.topic, seal(3, b"z"), key=b"c", partition=1)
            await producer.abort_transaction()

    asyncio.run(leave_marks())
    changelog.recover()
    assert changelog.held(0) == {b"a": Stored(1, b"x"), b"b": Stored(2, b"y")}
    # Everything is read by now; what is left is the marks alone.
    changelog.recover()


def test_a_store_ahead_of_a_recreated_changelog_is_refused(changelog: Changelog) -> None:
    changelog.stores[0].write({b"a": seal(1, b"x")}, 100)
    with pytest.raises(RecoveryError, match=r"reflects offset 100 .* ends at 0: the changelog was recreated"):
        changelog.recover()


def test_a_changelog_recreated_in_fact_is_refused(changelog: Changelog) -> None:
    changelog.write(*[(0, b"a", number, b"x") for number in range(5)])
    changelog.recover()
    changelog.recreate()
    with pytest.raises(RecoveryError, match="recreated"):
        changelog.recover()


def test_a_truncated_changelog_is_refused(changelog: Changelog) -> None:
    changelog.write(*[(0, b"a", number, b"x") for number in range(5)])
    changelog.truncate(3)
    with pytest.raises(RecoveryError, match=r"begins at offset 3, but 0 is needed: .*truncated"):
        changelog.recover()


def test_a_store_that_has_what_was_truncated_goes_on(changelog: Changelog) -> None:
    changelog.write(*[(0, b"a", number, b"x") for number in range(5)])
    changelog.stores[0].write({b"a": seal(2, b"x")}, 2)
    assert changelog.recover() == 2
    assert changelog.held() == {b"a": Stored(4, b"x")}


def test_deletions_alone_come_to_an_end(changelog: Changelog) -> None:
    changelog.write((0, b"a", None, b""), (0, b"b", None, b""))
    assert changelog.recover() == 2
    assert changelog.held() == {}
    assert changelog.recover() == 0


def test_the_mark_of_an_owner_comes_to_an_end(changelog: Changelog) -> None:
    changelog.write((0, b"a", 1, b"x"))

    async def mark() -> None:
        async with AIOKafkaProducer(bootstrap_servers=changelog.servers) as producer:
            await producer.send_and_wait(
                changelog.topic, b"me", key=b"owner", partition=0, headers=[(OWNER_HEADER, b"")]
            )

    asyncio.run(mark())
    assert changelog.recover() == 2
    assert changelog.held() == {b"a": Stored(1, b"x")}
    assert changelog.recover() == 0


def test_a_transaction_that_somebody_left_open_hides_nothing(changelog: Changelog) -> None:
    async def scenario() -> int:
        producer = AIOKafkaProducer(bootstrap_servers=changelog.servers, transactional_id=changelog.topic)
        async with producer:
            await producer.begin_transaction()
            await producer.send_and_wait(changelog.topic, seal(1, b"x"), key=b"a", partition=0)
            await publish(changelog.servers, [(changelog.topic, 0, b"b", seal(2, b"y"))])
            connection = {"bootstrap_servers": [changelog.servers]}
            num_records = await recover(connection, changelog.topic, changelog.stores, stalled_s=LIMIT_S)
            await producer.abort_transaction()
            return num_records

    assert asyncio.run(scenario()) == 2
    assert changelog.held()[b"b"] == Stored(2, b"y")


def test_gaps_that_compaction_left_come_to_an_end(own_changelog: Changelog) -> None:
    for number in range(5):
        own_changelog.write(*[(0, b"key %d" % key, number, b"x") for key in range(20)], (0, b"gone", number, b"x"))
    own_changelog.write((0, b"gone", None, b""), (0, b"key 0", 9, b"last"))

    def is_compacted() -> bool:
        # A segment is closed, and may be compacted, when something is appended after its time.
        own_changelog.write((0, b"tail", None, b""))
        return len(asyncio.run(read_all(own_changelog.servers, own_changelog.topic, 2))) < 30

    wait_until(is_compacted, what="the changelog to be compacted")
    kept = {b"key %d" % key: Stored(4, b"x") for key in range(1, 20)} | {b"key 0": Stored(9, b"last")}
    assert own_changelog.recover() < 40
    assert own_changelog.held() == kept
    assert own_changelog.recover() == 0


def test_a_recreated_changelog_is_refused_even_when_it_has_grown_past_the_store(changelog: Changelog) -> None:
    changelog.write((0, b"a", 1, b"x"), (0, b"b", 2, b"x"))
    changelog.recover()
    changelog.recreate()
    changelog.write(*[(0, b"c", number, b"y") for number in range(10)])
    with pytest.raises(
        RecoveryError, match=r"with id \S+: the changelog was recreated. To mend it: .* remove .*/0 and"
    ):
        changelog.recover()
    assert changelog.held() == {b"a": Stored(1, b"x"), b"b": Stored(2, b"x")}


def test_an_empty_store_takes_the_changelog_there_is(changelog: Changelog) -> None:
    changelog.stores[0].changelog_id = "of a topic that held nothing"
    changelog.write((0, b"a", 1, b"x"))
    assert changelog.recover() == 1


def test_partitions_that_the_changelog_lacks_are_named(changelog: Changelog) -> None:
    changelog.stores = {7: changelog.stores[0], 1: changelog.stores[1]}
    with pytest.raises(RecoveryError, match=r"has 2 partitions, but \[7\] are needed. To mend it"):
        changelog.recover()


def test_a_changelog_that_is_not_there_is_named(changelog: Changelog, tmp_path: Path) -> None:
    connection = {"bootstrap_servers": [changelog.servers], "request_timeout_ms": 1000}
    with pytest.raises(RecoveryError, match=r"The changelog topic no such topic! is missing. To mend it: create it"):
        asyncio.run(recover(connection, "no such topic!", changelog.stores))


def in_its_midst(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]) -> None:
    """Have `action` done once, when the first run was taken in and much is still to come."""
    apply = ChangelogFold.apply
    is_due = True

    def applying(fold: ChangelogFold, run: Run) -> None:
        nonlocal is_due
        apply(fold, run)
        if is_due:
            is_due = False
            action()

    monkeypatch.setattr(ChangelogFold, "apply", applying)
    monkeypatch.setattr(recovery, "PARTITION_BYTES", 16 * 1024)


def test_a_leader_that_dies_in_its_midst_is_waited_for(
    own_broker: EmbeddedBroker, own_changelog: Changelog, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_changelog.write(*LONG)

    def restart() -> None:
        own_broker.kill()
        own_broker.start()

    in_its_midst(monkeypatch, restart)
    assert own_changelog.recover() >= 700
    assert own_changelog.held() == folded(LONG)


def test_a_broker_that_says_nothing_is_given_up(
    own_broker: EmbeddedBroker, own_changelog: Changelog, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_changelog.write(*LONG)
    pid = own_broker.pid
    in_its_midst(monkeypatch, lambda: os.kill(pid, signal.SIGSTOP))
    try:
        with pytest.raises(RecoveryError, match=r"changelog\[0\] yielded nothing for 1 s, with \d+ offsets to go"):
            own_changelog.recover(stalled_s=1.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    own_changelog.recover()
    assert own_changelog.held() == folded(LONG)


def test_a_changelog_that_is_truncated_in_its_midst_is_refused(
    changelog: Changelog, monkeypatch: pytest.MonkeyPatch
) -> None:
    changelog.write(*LONG)

    def truncate() -> None:
        with ThreadPoolExecutor() as another_loop:
            another_loop.submit(changelog.truncate, 2990).result()

    in_its_midst(monkeypatch, truncate)
    with pytest.raises(RecoveryError, match=r"was truncated while it was read: .* To mend it"):
        changelog.recover()


@pytest.mark.parametrize("num_runs", [2, 40, 75])
def test_dying_in_its_midst_leaves_what_some_earlier_run_left(changelog: Changelog, num_runs: int) -> None:
    changelog.write(*LONG)
    folder = changelog.stores[0].path
    changelog.close()
    arguments = [changelog.servers, changelog.topic, str(folder), str(num_runs)]
    died = subprocess.run([sys.executable, "-m", "tests.faustkit.dying_recovery", *arguments], check=False)
    assert died.returncode == -signal.SIGKILL
    memory = StoreMemory(4 * 1024 * 1024)
    changelog.stores = {number: PartitionStore(folder.with_name(str(number)), memory) for number in range(2)}
    stored = changelog.stores[0].changelog_offset
    # What was not yet in a file is lost, since there is no log of it; a file is written every 200 records or so.
    assert (stored is None) == (num_runs == 2)
    num_left = 3000 if stored is None else 2999 - stored
    assert num_left > 0
    assert changelog.held() == folded(LONG[: 3000 - num_left])
    assert changelog.recover() == num_left
    assert changelog.held() == folded(LONG)
