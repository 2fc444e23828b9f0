"""Topics preflight: the judgement of one topic, and creating, refusing and racing against a broker."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream_app.broker import EmbeddedBroker
from stream_app.errors import KafkaUnreachableError, TopicMismatchError
from stream_app.preflight import TopicState, ensure_topics, inspect_topics, judge
from stream_app.settings import KafkaSettings, Settings
from stream_app.topics import EVENTS, ITEMS, MAX_RECORD_BYTES, SLICES, TopicSpec, topic_specs

GOOD_CONFIG = {"cleanup.policy": "delete", "max.message.bytes": str(MAX_RECORD_BYTES)}
SPEC = TopicSpec("events", 4, "delete", "user", {"max.message.bytes": str(MAX_RECORD_BYTES)})


@pytest.fixture
def unused_address() -> str:
    """An address of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def settings_of(broker: EmbeddedBroker, prefix: str, *, partitions: int = 2, replication: int = 1) -> Settings:
    """Settings for a namespace of its own on the session's broker."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    return Settings(kafka=kafka, prefix=prefix, partitions=partitions, replication=replication)


def has_leaders(topic: dict[str, Any]) -> bool:
    """Whether every partition in this metadata has a leader."""
    return bool(topic["partitions"]) and all(part["leader"] >= 0 for part in topic["partitions"])


def create(broker: EmbeddedBroker, *topics: NewTopic) -> None:
    """Create topics as an operator would, and wait until they can be seen: the broker answers before that."""
    names = {topic.name for topic in topics}

    async def run() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        try:
            answer = await admin.create_topics(list(topics))
            assert all(one[1] == 0 for one in answer.topic_errors), answer
            async with asyncio.timeout(30):
                while not names <= {one["topic"] for one in await admin.describe_topics() if has_leaders(one)}:
                    await asyncio.sleep(0)
        finally:
            await admin.close()

    asyncio.run(run())


def test_a_topic_in_shape_has_nothing_to_say() -> None:
    state = judge(SPEC, 4, GOOD_CONFIG)
    assert (state.is_missing, state.problems, state.notes) == (False, (), ())


@pytest.mark.parametrize(
    ("num_partitions", "config", "said"),
    [
        (6, {}, ("events has 6 partitions", "expected 4", "set partitions = 6")),
        (4, {"cleanup.policy": "compact"}, ("cleanup.policy=compact", "expected delete", "alter")),
        (4, {"cleanup.policy": ""}, ("cleanup.policy=none", "expected delete", "alter")),
        (
            4,
            {"max.message.bytes": "1048588"},
            ("max.message.bytes=1048588", f"at least {MAX_RECORD_BYTES}", "alter"),
        ),
    ],
)
def test_each_problem_says_what_was_seen_expected_and_mends(
    num_partitions: int, config: dict[str, str], said: tuple[str, ...]
) -> None:
    (problem,) = judge(SPEC, num_partitions, {**GOOD_CONFIG, **config}).problems
    for part in said:
        assert part in problem


def test_a_policy_part_too_many_is_only_noted() -> None:
    state = judge(SPEC, 4, {**GOOD_CONFIG, "cleanup.policy": "compact,delete"})
    assert state.problems == ()
    assert "compact" in state.notes[0]


def test_a_topic_alone_may_have_any_number_of_partitions() -> None:
    alone = TopicSpec("status", 1, "delete", "", SPEC.config)
    assert judge(alone, 9, GOOD_CONFIG).problems == ()


def test_what_the_broker_does_not_tell_of_is_missing() -> None:
    assert judge(SPEC, None, None) == TopicState(SPEC, None)
    assert judge(SPEC, None, None).is_missing


def test_no_broker_is_told(unused_address: str) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=unused_address))
    with pytest.raises(KafkaUnreachableError, match=unused_address):
        inspect_topics(settings)


@pytest.mark.kafka
def test_missing_topics_are_refused_or_created_and_stay(broker: EmbeddedBroker, topic_prefix: str) -> None:
    settings = settings_of(broker, topic_prefix)
    assert all(state.is_missing for state in inspect_topics(settings))
    with pytest.raises(TopicMismatchError, match="20 topics are missing") as caught:
        ensure_topics(settings, create=False)
    assert "--create" in caught.value.mend

    states = ensure_topics(settings, create=True)
    assert all(state.created and not state.problems and not state.notes for state in states)
    wanted = {spec.name: spec for spec in topic_specs(topic_prefix, 2)}
    assert {state.name: (state.num_partitions, state.cleanup) for state in states} == {
        name: (spec.num_partitions, spec.cleanup) for name, spec in wanted.items()
    }
    assert not any(state.created for state in ensure_topics(settings, create=False))


@pytest.mark.kafka
def test_many_may_create_at_once(broker: EmbeddedBroker, topic_prefix: str) -> None:
    settings = settings_of(broker, topic_prefix)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: ensure_topics(settings, create=True), range(4)))
    for states in runs:
        assert not any(state.is_missing or state.problems for state in states)
    for name in (state.name for state in runs[0]):
        creators = [state for states in runs for state in states if state.name == name and state.created]
        assert len(creators) == 1, name


@pytest.mark.kafka
def test_all_mismatches_come_in_one_message_and_nothing_is_created(broker: EmbeddedBroker, topic_prefix: str) -> None:
    big = {"max.message.bytes": str(MAX_RECORD_BYTES)}
    create(
        broker,
        NewTopic(topic_prefix + EVENTS, 3, 1, topic_configs=big),
        NewTopic(topic_prefix + ITEMS, 2, 1, topic_configs=big),
        NewTopic(topic_prefix + SLICES, 2, 1, topic_configs={"max.message.bytes": "1000"}),
    )
    settings = settings_of(broker, topic_prefix)
    with pytest.raises(TopicMismatchError) as caught:
        ensure_topics(settings, create=True)
    for part in (
        "events has 3 partitions",
        "items has cleanup.policy=delete",
        "slices has max.message.bytes=1000",
    ):
        assert part in caught.value.message
    present = [state.name for state in inspect_topics(settings) if not state.is_missing]
    assert sorted(present) == sorted(topic_prefix + name for name in (EVENTS, ITEMS, SLICES))


@pytest.mark.kafka
def test_what_the_broker_refuses_is_told(broker: EmbeddedBroker, topic_prefix: str) -> None:
    with pytest.raises(TopicMismatchError, match="refused to create") as caught:
        ensure_topics(settings_of(broker, topic_prefix, replication=3), create=True)
    assert "replication" in caught.value.mend
