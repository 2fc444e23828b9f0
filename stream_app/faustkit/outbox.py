"""The outbox: publishing records of many partitions at once, and knowing when all of them are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

from stream_app.faustkit.effects import OutRecord
from stream_app.faustkit.meter import Meter, NoMeter
from stream_app.faustkit.producing import BatchClient, Writer
from stream_app.faustkit.request_line import Target

DELIVERY_REQUESTS = 3
"""A batch may take as long as so many requests that are never answered: time for a broker to be started again."""

DEFAULT_REQUEST_TIMEOUT_MS = 40_000
"""aiokafka's."""


class Outbox:
    """Builds record batches and sends them, in order within each partition and writer.

    Args:
        connection: Keyword arguments for aiokafka clients.
        client_id: How the broker's logs and quotas name this client.
        meter: Told of everything that was acknowledged.
    """

    def __init__(self, connection: dict[str, Any], *, client_id: str, meter: Meter | None = None) -> None:
        request_s = connection.get("request_timeout_ms", DEFAULT_REQUEST_TIMEOUT_MS) / 1000
        self._client = BatchClient(connection, client_id=client_id, delivery_s=DELIVERY_REQUESTS * request_s)
        self._own: Writer | None = None
        self._meter = meter or NoMeter()

    async def start(self) -> None:
        """Connect."""
        await self._client.start()
        self._own = await self._client.new_writer()

    async def stop(self) -> None:
        """Disconnect."""
        await self._client.stop()

    async def claim(self, name: str) -> Writer:
        """A writer that fences off all earlier ones of the same name.

        Each partition that it is to hold against them must get a record from it first: only then does Kafka know.

        Raises:
            SendError: Kafka gave no producer id.
        """
        return await self._client.new_writer(name)

    async def publish(self, records: Iterable[OutRecord], writer: Writer | None = None) -> dict[Target, int]:
        """Send records, in order within each partition, and wait until every one is acknowledged.

        Args:
            records: What to send.
            writer: In whose name; None: this process's own.

        Returns:
            The offset of the last acknowledged record for each (topic, partition).

        Raises:
            FencedError: `writer` has been replaced.
            SendError: Some batch was not acknowledged.
        """
        writer = writer or self._own
        assert writer is not None, "publish before start"
        groups = _by_target(records)
        if not groups:
            return {}
        # In a task of its own, shielded: broken off half-way, the numbers of the batches would have a gap.
        return await asyncio.shield(asyncio.create_task(self._publish(groups, writer)))

    async def _publish(self, groups: dict[Target, list[OutRecord]], writer: Writer) -> dict[Target, int]:
        done = dict.fromkeys(groups, 0)
        last_offsets: dict[Target, int] = {}
        async with AsyncExitStack() as held:
            for target in sorted(groups):  # in the same order by all, so that no two wait for each other
                await held.enter_async_context(writer.lock(target))
            while unsent := [target for target, records in groups.items() if done[target] < len(records)]:
                batches = [writer.batch(target, groups[target], done[target]) for target in unsent]
                offsets = await self._client.send(batches)
                for batch in batches:
                    done[batch.target] += batch.num_records
                    last_offsets[batch.target] = offsets[batch.target] + batch.num_records - 1
                    self._meter.note_published(batch.target[0], batch.num_records)
        return last_offsets


def _by_target(records: Iterable[OutRecord]) -> dict[Target, list[OutRecord]]:
    groups: dict[Target, list[OutRecord]] = {}
    target: Target | None = None
    group: list[OutRecord] = []
    for record in records:
        # Most follow one for the same partition.
        if target is None or record.partition != target[1] or record.topic != target[0]:
            target = (record.topic, record.partition)
            group = groups.setdefault(target, [])
        group.append(record)
    return groups
