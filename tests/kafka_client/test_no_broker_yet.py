"""A client that connects while the cluster names no broker waits for one, and gives up with an error of Kafka's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.checks import check_topics
from stream_app.kafka_client import mend_clients
from tests.support import create_topics

pytestmark = pytest.mark.kafka

NUM_EMPTY = 3
"""Answers without a broker: the one to the first question, and two more."""


@contextmanager
def without_brokers(monkeypatch: pytest.MonkeyPatch, num_answers: int) -> Iterator[list[int]]:
    """The real broker's first answers as they are while it is no part of its cluster; gives how many there were."""
    seen: list[int] = []
    stock_send = AIOKafkaConnection.send

    def send(connection: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Any:
        answering = stock_send(connection, request, expect_response)
        return emptied(answering) if isinstance(request, MetadataRequest) else answering

    async def emptied(answering: Any) -> Any:
        answer = await answering
        seen.append(len(answer.brokers))
        if len(seen) <= num_answers:
            answer.brokers = []
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(AIOKafkaConnection, "send", send)
        yield seen


def test_a_role_that_starts_then_finds_its_topics(
    broker: EmbeddedBroker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend_clients()
    topic = f"{topic_prefix}events"
    asyncio.run(create_topics(broker.bootstrap_servers, {topic: 2}))
    with without_brokers(monkeypatch, NUM_EMPTY) as seen:
        found = asyncio.run(check_topics({"bootstrap_servers": broker.bootstrap_servers}, [topic], {}))
    assert found.num_partitions == {topic: 2}
    assert len(seen) > NUM_EMPTY


def test_one_that_never_comes_is_told(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    mend_clients()

    async def connect() -> ClusterMetadata:
        client = AIOKafkaClient(bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=300)
        await client.bootstrap()
        return client.cluster

    with without_brokers(monkeypatch, 10**6), pytest.raises(KafkaConnectionError, match=r"no broker for 0\.3 s"):
        asyncio.run(connect())


def test_an_administrator_waits_as_well(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    mend_clients()

    async def topics() -> list[str]:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        try:
            return list(await admin.list_topics())
        finally:
            await admin.close()

    with without_brokers(monkeypatch, NUM_EMPTY):
        assert isinstance(asyncio.run(topics()), list)
