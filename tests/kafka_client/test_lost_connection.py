"""A broker that goes away in the instant of a send: aiokafka's clients are told so, on uvloop as on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from stream_app.broker import EmbeddedBroker
from stream_app.kafka_client import lost_connection

pytestmark = pytest.mark.kafka

Send = Callable[[AIOKafkaConnection, Any], Any]


async def send_when_lost(broker: EmbeddedBroker, send: Send) -> None:
    """Send on a connection that has been lost, but not been put away yet."""
    host, port = broker.bootstrap_servers.split(":")
    connection = await create_conn(host, int(port))
    connection._writer.transport.abort()
    async with asyncio.timeout(10):
        while connection.connected():
            await asyncio.sleep(0)
    await send(connection, MetadataRequest([]))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_send_on_a_lost_connection_fails_as_aiokafka_expects(broker: EmbeddedBroker, run: Callable[..., Any]) -> None:
    lost_connection.expect_lost_connections()
    with pytest.raises(KafkaConnectionError):
        run(send_when_lost(broker, AIOKafkaConnection.send))


def test_stock_on_uvloop_it_is_an_error_nobody_expects(broker: EmbeddedBroker) -> None:
    with pytest.raises(RuntimeError, match="the handler is closed"):
        uvloop.run(send_when_lost(broker, lost_connection.stock_send))
