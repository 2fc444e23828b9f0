"""The id that Kafka gives a topic when it is created: a topic made again under the same name has another.

Offsets alone cannot tell a recreated changelog that has grown past the place where a store stands. aiokafka speaks
no version of the metadata request that carries ids, so version 10 of it is spelt out here (KIP-516).
"""

from __future__ import annotations

import asyncio
import uuid
from io import BytesIO
from typing import Any

from aiokafka.errors import KafkaError, KafkaTimeoutError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

METADATA_KEY = 3
"""Kafka's number of the metadata request."""

UUID_BYTES = 16

RETRY_S = 0.1
"""Time between two tries: a broker knows a new topic a moment later than the one that made it."""


class Uuid:
    """A UUID on the wire: its 16 bytes."""

    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        """The bytes of a UUID."""
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        """The UUID that comes next."""
        return uuid.UUID(bytes=data.read(UUID_BYTES))

    @classmethod
    def repr(cls, value: uuid.UUID) -> str:
        """For logs."""
        return str(value)


NO_UUID = uuid.UUID(int=0)
"""What stands where there is no id: a topic is then asked for by its name."""

_BROKER = Schema(
    ("node_id", Int32),
    ("host", CompactString("utf-8")),
    ("port", Int32),
    ("rack", CompactString("utf-8")),
    ("tags", TaggedFields),
)

_PARTITION = Schema(
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", CompactArray(Int32)),
    ("in_sync_replicas", CompactArray(Int32)),
    ("offline_replicas", CompactArray(Int32)),
    ("tags", TaggedFields),
)

_TOPIC = Schema(
    ("error_code", Int16),
    ("name", CompactString("utf-8")),
    ("topic_id", Uuid),
    ("is_internal", Boolean),
    ("partitions", CompactArray(_PARTITION)),
    ("authorized_operations", Int32),
    ("tags", TaggedFields),
)


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = METADATA_KEY
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(_BROKER)),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        ("topics", CompactArray(_TOPIC)),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = METADATA_KEY
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(Schema(("id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataStruct]):  # type: ignore[misc]
    """Asks for one topic by name."""

    API_KEY = METADATA_KEY

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        """The request as it is sent."""
        return request_struct_class([(NO_UUID, self._topic, {})], False, False, False, {})


async def topic_id(client: Any, topic: str) -> uuid.UUID | None:
    """The id of a topic, or None where the broker knows no ids (Kafka before 2.8).

    Args:
        client: A connected `AIOKafkaClient`. Its request timeout bounds the wait.
        topic: Name of a topic that exists.

    Raises:
        KafkaError: The topic is not there, or Kafka does not answer.
    """
    try:
        async with asyncio.timeout(client._request_timeout_ms / 1000):
            return await _ask_until_known(client, topic)
    except TimeoutError as error:
        raise KafkaTimeoutError(f"the topic {topic} is missing") from error


async def _ask_until_known(client: Any, topic: str) -> uuid.UUID | None:
    while True:
        try:
            return await _ask(client, topic)
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(RETRY_S)


async def _ask(client: Any, topic: str) -> uuid.UUID | None:
    try:
        answer = await client.send(client.get_random_node(), _MetadataRequest(topic))
    except NotImplementedError:  # what aiokafka says of a request that the broker does not speak
        return None
    error_code, _, number, *_ = answer.topics[0]
    if error_code:
        raise for_code(error_code)
    return None if number == NO_UUID else number
