"""A cluster that names none of its brokers: waited for, where aiokafka takes that for an answer.

A broker on a machine that is too busy to let it be heard of in time is no part of its cluster for a moment. Where it is
the only one, the cluster then has none, and a client that connects in that moment would send its first request to the
node ``None``: a role would end with ``NodeNotReadyError`` as it starts. A client that has connected keeps the brokers
it knows.
"""

from __future__ import annotations

import asyncio

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError

stock_bootstrap = AIOKafkaClient.bootstrap
"""As aiokafka has it."""


def wait_for_brokers() -> None:
    """Have every client of this process connect only once a broker is named; again does no harm."""
    AIOKafkaClient.bootstrap = _bootstrap_and_wait


async def _bootstrap_and_wait(client: AIOKafkaClient) -> None:
    await stock_bootstrap(client)
    within_s = client._request_timeout_ms / 1000
    try:
        async with asyncio.timeout(within_s):
            while not client.cluster.brokers():
                await asyncio.sleep(client._retry_backoff)
                await client.force_metadata_update()
    except TimeoutError as error:
        await client.close()
        raise KafkaConnectionError(f"Kafka answers, but has named no broker for {within_s:g} s") from error
