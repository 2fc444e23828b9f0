"""Publishing whole record batches, and knowing when all of them are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer

from stream_app.faustkit.effects import OutRecord

MAX_BATCH_BYTES = 1024 * 1024
"""Largest record batch we build. Below the brokers' usual limit of 1 MiB + overhead for topics that set none."""

MAX_REQUEST_BYTES = 16 * 1024 * 1024
"""Largest produce request; one record (a big history) may exceed a batch, never this."""


class SendError(Exception):
    """A record batch was not acknowledged; the input that caused it must not be committed."""


class Outbox:
    """Builds record batches per partition and sends them with an idempotent producer (acks=all).

    Args:
        connection: Keyword arguments for aiokafka clients.
    """

    def __init__(self, connection: dict[str, Any], *, client_id: str) -> None:
        self._connection = connection
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(
            **self._connection,
            client_id=self._client_id,
            enable_idempotence=True,
            acks="all",
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
            linger_ms=0,
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Disconnect; waits for what is on its way."""
        if self._producer is not None:
            await self._producer.stop()

    async def publish(self, records: Iterable[OutRecord]) -> dict[tuple[str, int], int]:
        """Send records, in order within each partition, and wait until every one is acknowledged.

        Returns:
            The offset of the last acknowledged record for each (topic, partition).

        Raises:
            SendError: Some batch was not acknowledged.
        """
        grouped: dict[tuple[str, int], list[OutRecord]] = {}
        for record in records:
            grouped.setdefault((record.topic, record.partition), []).append(record)
        sends = [self._send_partition(target, group) for target, group in grouped.items()]
        try:
            offsets = await asyncio.gather(*sends)
        except Exception as error:
            raise SendError(f"Kafka did not acknowledge a record batch: {error!r}") from error
        return dict(zip(grouped, offsets, strict=True))

    async def _send_partition(self, target: tuple[str, int], records: list[OutRecord]) -> int:
        producer = self._producer
        assert producer is not None, "publish before start"
        acknowledgements: list[asyncio.Future[Any]] = []
        last_batch_size = 0
        start = 0
        while start < len(records):
            batch, taken = _fill_batch(producer, records, start)
            acknowledgements.append(await producer.send_batch(batch, target[0], partition=target[1]))
            start += taken
            last_batch_size = taken
        metadata = await asyncio.gather(*acknowledgements)
        return int(metadata[-1].offset) + last_batch_size - 1


def _fill_batch(producer: AIOKafkaProducer, records: list[OutRecord], start: int) -> tuple[Any, int]:
    """One batch with as many of `records[start:]` as fit, and how many those are (at least one)."""
    batch = producer.create_batch()
    append = batch.append
    taken = 0
    for record in islice(records, start, None):
        if append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers)) is None:
            break
        taken += 1
    if not taken:
        size = len(records[start].value or b"")
        raise SendError(f"A record of {size} bytes for {records[start].topic} is larger than a batch may be.")
    return batch, taken
