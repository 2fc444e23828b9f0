"""Namespaces of a replay's own, on a real broker: made like the application's, and nothing else is ever touched."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stream_app.broker import EmbeddedBroker
from stream_app.errors import UsageError
from stream_app.kafka import admin_client
from stream_app.lag import group_name
from stream_app.preflight import ensure_topics
from stream_app.replay import namespaces
from stream_app.replay.namespaces import fresh_name, make_namespace, namespace_of, remove_namespace
from stream_app.settings import KafkaSettings, Settings
from stream_app.topics import topic_specs
from tests.support import create_topics


def settings_for(broker: EmbeddedBroker, prefix: str, folder: Path) -> Settings:
    """Settings of one test."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    return Settings(kafka=kafka, prefix=prefix, partitions=2, state_dir=str(folder / "state"), session_timeout_s=6.0)


async def topics_of(settings: Settings) -> dict[str, tuple[int, dict[str, str]]]:
    """Partitions and set configuration of every topic of the namespace."""
    async with admin_client(settings) as admin:
        counts = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        names = [spec.name for spec in topic_specs(settings.prefix, 1) if spec.name in counts]
        found = {}
        for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, one) for one in names]):
            for _, _, _, name, entries in answer.resources:
                found[name] = (counts[name], {entry[0]: entry[1] for entry in entries if entry[3] == 1})
        return found


def plain(settings: Settings) -> dict[str, tuple[int, dict[str, str]]]:
    """`topics_of`, by the names without prefix."""
    return {name.removeprefix(settings.prefix): facts for name, facts in asyncio.run(topics_of(settings)).items()}


def test_a_namespace_has_a_prefix_and_a_folder_of_its_own(tmp_path: Path) -> None:
    own = namespace_of(Settings(prefix="shop.", state_dir=str(tmp_path)), "trial")
    assert (own.prefix, own.state_path) == ("shop.trial-", tmp_path / "namespaces" / "trial")
    assert len({fresh_name() for _ in range(50)}) > 45
    assert namespace_of(Settings(), fresh_name()).prefix.startswith("replay-")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ü", "x" * 81])
def test_a_name_that_no_topic_may_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--namespace"):
        namespace_of(Settings(), name)


@pytest.mark.kafka
def test_it_is_made_like_the_applications_but_keeps_everything(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    # The operator has three partitions, and own ideas about `events` and the changelog.
    running = msgspec.structs.replace(settings, partitions=3)
    events, histories = f"{topic_prefix}events", f"{topic_prefix}user-histories-changelog"

    async def operate() -> None:
        async with admin_client(settings) as admin:
            size = {"max.message.bytes": "9000000"}
            await admin.create_topics(
                [
                    NewTopic(events, 3, 1, topic_configs={**size, "retention.ms": "1000", "compression.type": "zstd"}),
                    NewTopic(histories, 3, 1, topic_configs={**size, "cleanup.policy": "compact"}),
                ]
            )

    asyncio.run(operate())
    ensure_topics(running, create=True)
    before = plain(running)
    own = make_namespace(settings, namespace_of(settings, "trial"))
    made = plain(own)
    assert own.partitions == 3
    assert {name: count for name, (count, _) in made.items()} == {name: count for name, (count, _) in before.items()}
    config = made["events"][1]
    assert (config["compression.type"], config["max.message.bytes"], config["retention.ms"]) == (
        "zstd",
        "9000000",
        "-1",
    )
    assert made["user-histories-changelog"] == before["user-histories-changelog"]
    assert make_namespace(settings, namespace_of(settings, "trial")) == own
    assert remove_namespace(own) == len(made)
    assert (plain(own), plain(running)) == ({}, before)
    assert not own.state_path.exists()


@pytest.mark.kafka
def test_what_no_replay_made_is_neither_used_nor_removed(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    own = namespace_of(settings, "live")
    asyncio.run(create_topics(broker.bootstrap_servers, {f"{own.prefix}slices": 1}))
    with pytest.raises(UsageError, match="live-slices"):
        make_namespace(settings, own)
    with pytest.raises(UsageError, match="No replay made a namespace"):
        remove_namespace(own)
    assert plain(own).keys() == {"slices"}


@pytest.mark.kafka
def test_groups_go_too_and_one_in_use_is_not_removed(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "EMPTY_WITHIN_S", -5.0)
    settings = settings_for(broker, topic_prefix, tmp_path)
    own = make_namespace(settings, namespace_of(settings, "trial"))
    group = group_name(own, "sequence")

    async def groups(admin: Any) -> set[str]:
        return {name for name, _ in await admin.list_consumer_groups()}

    async def refused_while_in_use() -> None:
        consumer = AIOKafkaConsumer(
            f"{own.prefix}events", bootstrap_servers=broker.bootstrap_servers, group_id=group, enable_auto_commit=False
        )
        async with consumer, admin_client(own) as admin:
            await consumer.getmany(timeout_ms=100)
            assert group in await groups(admin)
            with pytest.raises(UsageError, match="sequence of the namespace"):
                await asyncio.to_thread(remove_namespace, own)
            assert group in await groups(admin)

    async def gone() -> bool:
        async with admin_client(own) as admin:
            return group not in await groups(admin)

    asyncio.run(refused_while_in_use())
    assert plain(own)
    monkeypatch.setattr(namespaces, "EMPTY_WITHIN_S", 20.0)
    remove_namespace(own)
    assert asyncio.run(gone())
    assert plain(own) == {}
