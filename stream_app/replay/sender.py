"""Sends records in whole batches, in order within each partition, each acknowledged by all replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer

from stream_app.errors import LogFormatError
from stream_app.kafka import as_unreachable, connection
from stream_app.replay.planning import PlannedRecord
from stream_app.settings import Settings

MAX_BATCH_BYTES: Final = 512 * 1024
"""Largest record batch that is built; half of what brokers take where nobody set a limit."""

MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
"""Largest produce request: one row may be longer than a batch, never longer than this."""


class BatchSender:
    """An idempotent producer of record batches; use it as an asynchronous context manager.

    Args:
        settings: With a Kafka address.
        topic: The topic's full name.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._producer: Any = None

    async def __aenter__(self) -> Self:
        """Connect. Raises KafkaUnreachableError where no broker answers."""
        self._producer = AIOKafkaProducer(
            **connection(self._settings),
            enable_idempotence=True,
            acks="all",
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
            linger_ms=0,
        )
        with as_unreachable(self._settings):
            await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect; what is on its way is waited for."""
        await self._producer.stop()

    async def send(self, records: Iterable[PlannedRecord]) -> dict[int, int]:
        """Send records and wait until every one is acknowledged.

        Returns:
            The offset behind the last record of each partition that got one.

        Raises:
            KafkaUnreachableError: A batch was not acknowledged.
            LogFormatError: A record is larger than the broker takes.
        """
        by_partition: dict[int, list[PlannedRecord]] = {}
        for record in records:
            by_partition.setdefault(record.partition, []).append(record)
        with as_unreachable(self._settings):
            sends = [self._send_partition(number, listed) for number, listed in by_partition.items()]
            return dict(zip(by_partition, await asyncio.gather(*sends), strict=True))

    async def _send_partition(self, partition: int, records: Sequence[PlannedRecord]) -> int:
        acknowledgements = []
        start = taken = 0
        while start < len(records):
            batch, taken = self._fill(records, start)
            acknowledgements.append(await self._producer.send_batch(batch, self._topic, partition=partition))
            start += taken
        placed = await asyncio.gather(*acknowledgements)
        return int(placed[-1].offset) + taken

    def _fill(self, records: Sequence[PlannedRecord], start: int) -> tuple[Any, int]:
        """One batch with as many of `records[start:]` as fit, and how many those are."""
        batch = self._producer.create_batch()
        taken = 0
        for record in islice(records, start, None):
            if record.value is not None and len(record.value) > MAX_REQUEST_BYTES // 2:
                raise LogFormatError(
                    f"A row has {len(record.value)} bytes, more than Kafka takes.", mend="cut the log's rows"
                )
            # A batch always takes its first record, however long.
            added = batch.append(
                timestamp=record.timestamp_ms, key=record.key, value=record.value, headers=record.headers
            )
            if added is None:
                break
            taken += 1
        return batch, taken
