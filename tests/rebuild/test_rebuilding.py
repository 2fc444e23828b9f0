"""Rebuilding on a real broker without roles: the mark, what is folded, and changelogs that are wrong or damaged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stream_app import tables
from stream_app.broker import EmbeddedBroker
from stream_app.errors import TopicMismatchError, UsageError
from stream_app.faustkit.ownership import OWNER_KEY
from stream_app.faustkit.store import seal, unseal
from stream_app.kafka import admin_client
from stream_app.lag import group_name
from stream_app.preflight import ensure_topics
from stream_app.rebuilding import Differences, build, compare, open_stores, workplace
from stream_app.settings import KafkaSettings, Settings
from stream_app.settings_rules import clean_rules, sequence_stage
from stream_app.stages.intake import read_record, take_record
from stream_app.stages.sequence import KeptHistory
from stream_app.swap_mark import (
    MARK,
    GroupInUseError,
    SwapPendingError,
    commit,
    committed,
    is_marked,
    refuse_pending,
    wait_unused,
)
from stream_app.swapping import swap
from tests.support import publish, read_all

NUM_PARTITIONS = 2
START_MS = 1_700_000_000_000

State = dict[tuple[int, bytes], bytes]
"""Envelope by partition and key."""


def settings_for(broker: EmbeddedBroker, prefix: str, folder: Path) -> Settings:
    """Settings of one test, with all topics there."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    settings = Settings(kafka=kafka, prefix=prefix, partitions=NUM_PARTITIONS, state_dir=str(folder))
    ensure_topics(settings, create=True)
    return settings


def say_nothing(text: str) -> None:
    """Drop the progress."""


async def fill_events(settings: Settings, num_events: int) -> None:
    """Events of five users on both partitions, a few of them repeated or none."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        for place in range(num_events):
            at_ms = START_MS + place * 400_000
            user = f"u{place % 5}"
            event = {"user_id": user, "item_id": f"i{place % 7}", "type": "click", "ts": at_ms}
            value = b"{" if place % 11 == 5 else orjson.dumps(event)
            for _ in range(2 if place % 9 == 3 else 1):
                await producer.send(
                    f"{settings.prefix}events",
                    value,
                    key=user.encode(),
                    partition=place % 5 % NUM_PARTITIONS,
                    timestamp_ms=at_ms,
                )
        await producer.flush()


async def expected_state(settings: Settings, offsets: Mapping[int, int]) -> State:
    """What the log gives up to `offsets`: one record after the other, everything in memory."""
    state: State = {}
    records = await read_all(settings.kafka.bootstrap_servers, f"{settings.prefix}events", NUM_PARTITIONS)
    for partition in range(NUM_PARTITIONS):
        stage = sequence_stage(settings, partition)
        stage.restore([], None)
        kept: dict[str, KeptHistory] = {}
        mine = [one for one in records if one.partition == partition and one.offset < offsets.get(partition, 0)]
        for one in mine:
            stage.begin_run([], lambda users, kept=kept: {user: kept[user] for user in users if user in kept})  # type: ignore[misc]
            content = read_record(one.key, one.value, one.timestamp, one.headers, clean_rules(settings))
            take_record(stage, content, one.offset, one.headers, is_counted=False)
            kept.update(stage.end_run(one.offset, 1).changed)
        for user, history in kept.items():
            state[partition, user.encode()] = seal(history.position, tables.encode_value(history.history))
        if mine:
            state[partition, tables.PARTITION_KEY] = seal(mine[-1].offset, tables.encode_value(stage.totals))
    return state


async def changelog_state(settings: Settings) -> State:
    """What the changelog gives: of each key the greatest position, the later of equals; removals remove."""
    state: State = {}
    topic = f"{settings.prefix}user-histories-changelog"
    for record in await read_all(settings.kafka.bootstrap_servers, topic, NUM_PARTITIONS):
        place = record.partition, record.key
        if record.key == OWNER_KEY:
            continue
        if record.value is None:
            state.pop(place, None)
        elif unseal(record.value).position >= unseal(state.get(place, seal(0, b""))).position:
            state[place] = record.value
    return state


async def commit_all(settings: Settings, offsets: Mapping[int, int]) -> None:
    """Say that the sequence role has worked off so much."""
    async with admin_client(settings) as admin:
        await commit(admin, settings, "sequence", offsets, "")


async def ends_of(settings: Settings) -> dict[int, int]:
    """Where `events` ends."""
    records = await read_all(settings.kafka.bootstrap_servers, f"{settings.prefix}events", NUM_PARTITIONS)
    return {number: sum(one.partition == number for one in records) for number in range(NUM_PARTITIONS)}


async def rebuild(settings: Settings) -> tuple[int, Differences]:
    """The whole rebuild of the sequence role: offsets that were folded, and what differed."""
    with (
        workplace(settings, "sequence") as folder,
        open_stores(folder / "new", NUM_PARTITIONS) as new,
        open_stores(folder / "old", NUM_PARTITIONS) as old,
    ):
        rebuilt = await build(settings, "sequence", new, say_nothing)
        differences = await compare(settings, rebuilt, old, say_nothing)
        await swap(settings, rebuilt, old, differences, folder / "check", say_nothing)
        return rebuilt.num_records, differences


async def rebuilt_counts(settings: Settings) -> tuple[int, int, int]:
    """Keys that a rebuild added, changed and removed."""
    _, found = await rebuild(settings)
    return found.num_added, found.num_changed, found.num_removed


# ---------------------------------------------------------------- the mark


@pytest.mark.kafka
def test_the_mark_is_set_for_all_partitions_and_keeps_workers_away(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)

    async def story() -> None:
        async with admin_client(settings) as admin:
            await refuse_pending(settings, "sequence")
            await commit(admin, settings, "sequence", {0: 3, 1: 0}, MARK)
            assert await committed(admin, settings, "sequence") == {0: (3, MARK), 1: (0, MARK)}
            with pytest.raises(SwapPendingError, match="sliceflow rebuild sequence"):
                await refuse_pending(settings, "sequence")
            await refuse_pending(settings, "trend")
            await commit(admin, settings, "sequence", {0: 3, 1: 0}, "")
            found = await committed(admin, settings, "sequence")
            assert (found, is_marked(found)) == ({0: (3, ""), 1: (0, "")}, False)
            await refuse_pending(settings, "sequence")

    asyncio.run(story())


@pytest.mark.kafka
def test_while_a_worker_runs_nothing_is_marked(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    # Stopped workers are not waited for here: this one goes on.
    hurried = Settings(kafka=settings.kafka, prefix=settings.prefix, partitions=NUM_PARTITIONS, session_timeout_s=0.001)

    async def story() -> None:
        consumer = AIOKafkaConsumer(
            f"{topic_prefix}events",
            bootstrap_servers=broker.bootstrap_servers,
            group_id=group_name(settings, "sequence"),
            enable_auto_commit=False,
        )
        async with consumer, admin_client(settings) as admin:
            await consumer.getmany(timeout_ms=100)
            with pytest.raises(GroupInUseError, match="has members"):
                await commit(admin, settings, "sequence", {0: 0, 1: 0}, MARK)
            assert not is_marked(await committed(admin, settings, "sequence"))
            told: list[str] = []
            with pytest.raises(GroupInUseError):
                await wait_unused(admin, hurried, "sequence", told.append)
            assert set(told) == {"waiting until 1 workers of the role sequence have stopped"}
        async with admin_client(settings) as admin:
            await wait_unused(admin, settings, "sequence", say_nothing)

    asyncio.run(story())


# ---------------------------------------------------------------- rebuilding


@pytest.mark.kafka
def test_the_state_is_that_of_the_log_up_to_what_was_worked_off(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)

    async def story() -> None:
        await fill_events(settings, 120)
        ends = await ends_of(settings)
        offsets = {0: ends[0] // 2, 1: ends[1]}
        await commit_all(settings, offsets)
        num_records, differences = await rebuild(settings)
        expected = await expected_state(settings, offsets)
        assert num_records == sum(offsets.values())
        assert differences == Differences(len(expected), len(expected), 0, 0)
        assert await changelog_state(settings) == expected
        # A moment later the role has worked off the rest.
        await commit_all(settings, ends)
        assert (await rebuilt_counts(settings))[1] > 0
        assert await changelog_state(settings) == await expected_state(settings, ends)
        written = len(await read_all(broker.bootstrap_servers, f"{topic_prefix}user-histories-changelog", 2))
        assert await rebuilt_counts(settings) == (0, 0, 0)
        again = await read_all(broker.bootstrap_servers, f"{topic_prefix}user-histories-changelog", 2)
        assert len(again) == written

    asyncio.run(story())
    assert not list((tmp_path / "rebuild").rglob("sequence/*"))


@pytest.mark.kafka
def test_wrong_and_strange_values_are_replaced_whatever_their_position(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    changelog = f"{topic_prefix}user-histories-changelog"

    async def story() -> None:
        await fill_events(settings, 60)
        ends = await ends_of(settings)
        await commit_all(settings, ends)
        await rebuild(settings)
        wrong = [
            (changelog, 0, b"u0", seal(10**9, b"far ahead")),
            (changelog, 1, b"u1", seal(10**9, b"far ahead")),
            (changelog, 1, b"nobody", seal(5, b"strange")),
            (changelog, 0, b"u2", None),
        ]
        await publish(broker.bootstrap_servers, wrong)
        assert await rebuilt_counts(settings) == (1, 2, 1)
        assert await changelog_state(settings) == await expected_state(settings, ends)

    asyncio.run(story())


@pytest.mark.kafka
@pytest.mark.parametrize("damage", ["foreign record", "truncated", "missing"])
def test_a_changelog_that_cannot_be_read_is_made_anew(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path, damage: str
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    changelog = f"{topic_prefix}user-histories-changelog"

    async def configure(admin: Any, cleanup: str) -> None:
        config = {"cleanup.policy": cleanup, "max.message.bytes": "8388608", "compression.type": "lz4"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, changelog, config)])

    async def spoil(admin: Any) -> None:
        if damage == "foreign record":
            await publish(broker.bootstrap_servers, [(changelog, 1, b"u1", b"short")])
        elif damage == "truncated":
            await configure(admin, "delete")
            await admin.delete_records({TopicPartition(changelog, 0): RecordsToDelete(3)})
            await configure(admin, "compact")
        else:
            await admin.delete_topics([changelog])

    async def story() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        try:
            await configure(admin, "compact")
            await fill_events(settings, 40)
            ends = await ends_of(settings)
            await commit_all(settings, ends)
            await rebuild(settings)
            await spoil(admin)
            _, differences = await rebuild(settings)
            assert changelog in differences.damage
            assert await changelog_state(settings) == await expected_state(settings, ends)
            (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, changelog)])
            kept = {entry[0]: entry[1] for entry in answer.resources[0][4]}
            assert kept["cleanup.policy"] == "compact"
            assert kept["compression.type"] == ("producer" if damage == "missing" else "lz4")
            assert await rebuilt_counts(settings) == (0, 0, 0)
        finally:
            await admin.close()

    asyncio.run(story())


@pytest.mark.kafka
def test_an_input_that_lost_its_beginning_is_refused_and_nothing_changes(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)

    async def story() -> None:
        await fill_events(settings, 40)
        await commit_all(settings, await ends_of(settings))
        await rebuild(settings)
        before = await changelog_state(settings)
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(f"{topic_prefix}events", 1): RecordsToDelete(2)})
        finally:
            await admin.close()
        with pytest.raises(TopicMismatchError, match=r"events\[1\] lacks the offsets 0 to 1"):
            await rebuild(settings)
        assert await changelog_state(settings) == before
        await refuse_pending(settings, "sequence")

    asyncio.run(story())


def test_two_at_once_are_one_too_many(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path))
    with workplace(settings, "trend") as folder:
        (folder / "x").touch()
        with pytest.raises(UsageError, match="Another process rebuilds"), workplace(settings, "trend"):
            pass
        with workplace(settings, "encode"):
            assert (folder / "x").exists()
    assert not folder.exists()
    with workplace(settings, "trend") as again:
        assert not list(again.iterdir())
