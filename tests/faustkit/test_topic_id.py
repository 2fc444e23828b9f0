"""The ids of topics: another one for a topic that was made again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.topic_id import _MetadataRequest, topic_id
from tests.support import create_topics, delete_topics, wait_until

pytestmark = pytest.mark.kafka


def ask(servers: str, topic: str, *, timeout_ms: int = 20_000) -> Any:
    """The id of a topic."""

    async def scenario() -> Any:
        async with AIOKafkaConsumer(bootstrap_servers=servers, request_timeout_ms=timeout_ms) as consumer:
            return await topic_id(consumer._client, topic)

    return asyncio.run(scenario())


def test_each_topic_has_one_and_a_recreated_one_another(broker: EmbeddedBroker, topic_prefix: str) -> None:
    servers, topic = broker.bootstrap_servers, topic_prefix + "topic"
    asyncio.run(create_topics(servers, {topic: 2, topic_prefix + "other": 1}))
    first = ask(servers, topic)
    assert first == ask(servers, topic) != ask(servers, topic_prefix + "other")
    asyncio.run(delete_topics(servers, [topic]))

    def made_again() -> bool:
        try:
            asyncio.run(create_topics(servers, {topic: 2}))
        except KafkaError:
            return False
        return True

    wait_until(made_again, what="the topic to be gone and made again")
    assert ask(servers, topic) not in (None, first)


def test_a_topic_that_is_not_there_is_named(broker: EmbeddedBroker, topic_prefix: str) -> None:
    with pytest.raises(KafkaError, match=r"the topic t-.* is missing"):
        ask(broker.bootstrap_servers, topic_prefix + "none", timeout_ms=1000)


def test_a_broker_that_knows_no_ids_is_not_asked() -> None:
    # What `topic_id` relies on to say None: aiokafka refuses to send what the broker does not speak.
    with pytest.raises(NotImplementedError):
        _MetadataRequest("topic").prepare({3: (0, 9)})
    assert _MetadataRequest("topic").prepare({3: (0, 13)}).API_VERSION == 10
