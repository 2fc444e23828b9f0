"""A connection to Kafka that is lost at the moment of a send: an error of Kafka's client, on every event loop.

asyncio lets one write to a connection that has just been lost, and the wait for the answer then fails with
aiokafka's own ``KafkaConnectionError``, after which the send is tried again. uvloop refuses the write itself, with a
``RuntimeError`` that aiokafka does not expect: the worker would end, or a fetcher, each time a broker goes away in
that instant.
"""

from __future__ import annotations

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

stock_send = AIOKafkaConnection.send
"""As aiokafka has it."""


def expect_lost_connections() -> None:
    """Have every connection of this process tell its loss as aiokafka's clients expect it; again does no harm."""
    AIOKafkaConnection.send = _send_unless_lost


def _send_unless_lost(connection: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Any:
    writer = connection._writer
    if writer is not None and writer.transport.is_closing():
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {connection.host}:{connection.port} was lost")
    return stock_send(connection, request, expect_response)
