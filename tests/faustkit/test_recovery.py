"""Recovery: the store becomes what its changelog says, always comes to an end, and refuses to guess."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.recovery import RecoveryError, recover
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory, seal
from tests.support import create_topics, delete_topics, publish, wait_until

pytestmark = pytest.mark.kafka

LIMIT_S = 30.0
"""Recovery of a few records that takes longer waits for something that never comes."""


class Changelog:
    """A changelog of two partitions, and the stores beside it."""

    def __init__(self, servers: str, topic: str, folder: Path) -> None:
        self.servers = servers
        self.topic = topic
        memory = StoreMemory(4 * 1024 * 1024)
        self.stores = {number: PartitionStore(folder / str(number), memory) for number in range(2)}
        asyncio.run(create_topics(servers, {topic: 2}, {"cleanup.policy": "compact,delete"}))

    def write(self, *records: tuple[int, bytes, int | None, bytes]) -> None:
        """Append (partition, key, position, payload); without a position it is a deletion."""
        sealed = [
            (self.topic, partition, key, None if position is None else seal(position, payload))
            for partition, key, position, payload in records
        ]
        asyncio.run(publish(self.servers, sealed))

    def recover(self, *, stalled_s: float = LIMIT_S) -> int:
        """Recover both stores; the number of records read."""

        async def scenario() -> int:
            connection = {"bootstrap_servers": [self.servers]}
            async with asyncio.timeout(LIMIT_S):
                return await recover(connection, self.topic, self.stores, stalled_s=stalled_s)

        return asyncio.run(scenario())

    def held(self, partition: int = 0) -> dict[bytes, Stored]:
        """What a store holds."""
        return dict(self.stores[partition].items())


@pytest.fixture
def changelog(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Iterator[Changelog]:
    """An empty changelog and empty stores."""
    made = Changelog(broker.bootstrap_servers, topic_prefix + "changelog", tmp_path)
    yield made
    for store in made.stores.values():
        store.close()


def test_from_nothing(changelog: Changelog) -> None:
    changelog.write((0, b"a", 1, b"x"), (1, b"b", 2, b"y"), (0, b"a", 3, b"z"), (0, b"c", 3, b""))
    assert changelog.recover() == 4
    assert changelog.held(0) == {b"a": Stored(3, b"z"), b"c": Stored(3, b"")}
    assert changelog.held(1) == {b"b": Stored(2, b"y")}
    assert changelog.stores[0].changelog_offset == 2


def test_only_what_is_new_is_read(changelog: Changelog) -> None:
    changelog.write((0, b"a", 1, b"x"), (0, b"b", 2, b"y"))
    assert changelog.recover() == 2
    assert changelog.recover() == 0
    changelog.write((0, b"a", 5, b"z"))
    assert changelog.recover() == 1
    assert changelog.held() == {b"a": Stored(5, b"z"), b"b": Stored(2, b"y")}


def test_an_empty_changelog_is_done_at_once(changelog: Changelog) -> None:
    assert changelog.recover() == 0
    assert changelog.stores[0].changelog_offset is None


def test_deletions_at_the_tail_come_to_an_end(changelog: Changelog) -> None:
    changelog.write((0, b"a", 1, b"x"), (0, b"b", 2, b"y"), (0, b"a", None, b""), (1, b"gone", None, b""))
    assert changelog.recover() == 4
    assert changelog.held(0) == {b"b": Stored(2, b"y")}
    assert changelog.held(1) == {}
    changelog.write((0, b"b", None, b""), (0, b"b", 9, b"again"))
    changelog.recover()
    assert changelog.held(0) == {b"b": Stored(9, b"again")}


def test_the_greatest_source_position_stays(changelog: Changelog) -> None:
    # A process that was paused and woke writes what it had, after its successor went on.
    changelog.write((0, b"a", 9, b"new"), (0, b"a", 4, b"late"))
    changelog.recover()
    assert changelog.held() == {b"a": Stored(9, b"new")}
    changelog.write((0, b"a", 5, b"later still"), (0, b"b", 5, b"fine"))
    changelog.recover()
    assert changelog.held() == {b"a": Stored(9, b"new"), b"b": Stored(5, b"fine")}


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
    asyncio.run(delete_topics(changelog.servers, [changelog.topic]))

    def made_again() -> bool:
        try:
            asyncio.run(create_topics(changelog.servers, {changelog.topic: 2}))
        except Exception:
            return False
        return True

    wait_until(made_again, what="the topic to be gone and made again")
    with pytest.raises(RecoveryError, match="recreated"):
        changelog.recover()


def test_a_truncated_changelog_is_refused(changelog: Changelog) -> None:
    changelog.write(*[(0, b"a", number, b"x") for number in range(5)])

    async def truncate() -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=changelog.servers)
        await admin.start()
        try:
            return await admin.delete_records({TopicPartition(changelog.topic, 0): RecordsToDelete(3)})
        finally:
            await admin.close()

    asyncio.run(truncate())
    with pytest.raises(RecoveryError, match=r"begins at offset 3, but 0 is needed: .*truncated"):
        changelog.recover()


def test_a_store_that_has_what_was_truncated_goes_on(changelog: Changelog) -> None:
    changelog.write(*[(0, b"a", number, b"x") for number in range(5)])
    changelog.stores[0].write({b"a": seal(2, b"x")}, 2)
    assert changelog.recover() == 2
    assert changelog.held() == {b"a": Stored(4, b"x")}


def test_no_stores_need_no_broker() -> None:
    assert asyncio.run(recover({"bootstrap_servers": ["127.0.0.1:1"]}, "none", {})) == 0
