"""Standby copies: the stores of partitions that other workers own, kept warm by following their changelogs.

A copy lies where the partition's own store would lie. When the partition is assigned to this worker, its recovery
opens the copy and reads only what came since.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from stream_app.faustkit.changelog import ChangelogReader
from stream_app.faustkit.failure import ending_process
from stream_app.faustkit.store import PartitionStore

log = logging.getLogger("sliceflow.standby")

FETCH_MS = 500
"""Longest wait of one fetch, in milliseconds; records that are there come at once."""

PARTITION_BYTES = 256 * 1024
"""Most bytes of one partition in one fetch: a copy has time, the partitions of this worker have not."""

FETCH_BYTES = 1024 * 1024
"""Most bytes of one fetch over all partitions: unpacked in a few milliseconds, for which nothing else is done."""


class Standby:
    """Follows the changelog of one table into the copies of some of its partitions, from now on.

    Args:
        connection: Keyword arguments for aiokafka clients.
        changelog: Name of the changelog topic.
        stores: The open store of each partition; closed by who opened them, after `stop`.
    """

    def __init__(self, connection: Mapping[str, Any], changelog: str, stores: Mapping[int, PartitionStore]) -> None:
        self._connection = connection
        self._changelog = changelog
        self._stores = stores
        self._task = asyncio.create_task(self._follow(), name=f"standby of {changelog}") if stores else None

    async def stop(self) -> None:
        """Leave the copies as they are."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        with ending_process(f"The standby copies of {self._changelog} could not be kept"):
            await self._read()

    async def _read(self) -> None:
        limits = {"partition_bytes": PARTITION_BYTES, "fetch_bytes": FETCH_BYTES}
        async with ChangelogReader(self._connection, self._changelog, self._stores, **limits) as reader:
            num_records = 0
            while await reader.num_missing():
                num_records += await reader.read(FETCH_MS)
            reader.finish()
            partitions = sorted(self._stores)
            log.info(
                "%s: standby for partitions %s, %d changelog records read", self._changelog, partitions, num_records
            )
            while True:
                await reader.read(FETCH_MS)
