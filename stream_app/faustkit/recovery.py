"""Bringing the stores up to their changelogs, before any input is read.

It replaces Faust's recovery, which can wait for ever (a deletion or control record at the tail of a changelog)
and writes records of unknown partitions into whatever table came last. Ours reads each changelog with a
consumer of its own up to the end it had at the start, then it is done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from mode import Service

from stream_app.faustkit.changelog import ChangelogReader, RecoveryError
from stream_app.faustkit.failure import ending_process
from stream_app.faustkit.store import PartitionStore

log = logging.getLogger("sliceflow.recovery")

STALLED_S = 60.0
"""A changelog that does not get on for this long is given up: a healthy broker answers a fetch in milliseconds, and
another replica takes over from a dead one within seconds."""

FETCH_MS = 500
"""Longest wait of one fetch, in milliseconds."""

PARTITION_BYTES = 1024 * 1024
"""Most bytes of one partition in one fetch; more at once measured no faster."""

FETCH_BYTES = 16 * 1024 * 1024
"""Most bytes of one fetch over all partitions: several times this is held in memory while they are unpacked."""

REPORT_S = 2.0
"""Longest time without a line about how far a recovery has come."""


class BatchTableManager(TableManager):
    """Faust's table manager with our recovery, and without its second of waiting at the start."""

    @property
    def recovery(self) -> Recovery:
        """The recovery service."""
        if self._recovery is None:
            self._recovery = ChangelogRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    async def on_start(self) -> None:
        """Register the tables and start the recovery service."""
        await self._update_channels()
        await self.recovery.start()


class ChangelogRecovery(Recovery):
    """Opens and fills the stores of assigned partitions at each rebalance, then lets the streams go on."""

    app: Any  # A BatchApp; Faust's interface does not know its methods.

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start):  # type: ignore[arg-type]
                return
            self.signal_recovery_start.clear()
            generation_id = self._generation_id
            with ending_process("The stores could not be recovered"):
                is_open = await self.app.open_partitions()
            if is_open:
                await self._resume_streams(generation_id=generation_id)

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Nothing: changelogs are read by `recover`."""

    @Service.task
    async def _publish_stats(self) -> None:
        """Nothing: progress is logged by `recover`."""


class Breakable:
    """Work that another task may break off: a rebalance comes while the stores are still being filled."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def run(self, work: Coroutine[Any, Any, None]) -> bool:
        """Await `work`; False if it was broken off. Whatever it raises is raised."""
        task = asyncio.create_task(work)
        self._task = task
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await self.break_off()
            raise
        if task.cancelled():
            return False
        task.result()
        return True

    async def break_off(self) -> None:
        """End the work where it stands, if there is any, and wait until it has let go of what it held."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


class Progress:
    """Tells how far a recovery has come.

    Args:
        changelog: Name of the changelog topic.
        num_missing: Offsets to get through.
        now_s: The time, in seconds of any clock.
    """

    def __init__(self, changelog: str, num_missing: int, now_s: float) -> None:
        self._changelog = changelog
        self._num_missing = num_missing
        self._num_left = num_missing
        self._start_s = self._told_s = self._moved_s = now_s

    def stalled_s(self, num_left: int, now_s: float) -> float:
        """How long it has not got on, now that `num_left` offsets are left."""
        if num_left != self._num_left:
            self._num_left, self._moved_s = num_left, now_s
        return now_s - self._moved_s

    def line(self, now_s: float) -> str | None:
        """A line to log, where one is due."""
        if now_s - self._told_s < REPORT_S:
            return None
        self._told_s = now_s
        num_done = self._num_missing - self._num_left
        rate = num_done / (now_s - self._start_s)
        remaining = f"about {self._num_left / rate:.0f} s to go" if num_done else "no end in sight"
        share = 100 * num_done / self._num_missing
        return (
            f"recovering {self._changelog}: {num_done:,} of {self._num_missing:,} offsets ({share:.0f} %), "
            f"{rate:,.0f}/s, {remaining}"
        )


async def recover(
    connection: Mapping[str, Any],
    changelog: str,
    stores: Mapping[int, PartitionStore],
    *,
    stalled_s: float = STALLED_S,
) -> int:
    """Bring each store up to the end its partition of the changelog has now, all partitions at once.

    A crash or a break leaves every store as some earlier record of its changelog left it, with that offset.

    Args:
        connection: Keyword arguments for aiokafka clients.
        changelog: Name of the changelog topic.
        stores: The open store of each partition.
        stalled_s: Give up when it does not get on for this many seconds.

    Returns:
        How many changelog records were read.

    Raises:
        RecoveryError: The changelog is not there, was truncated or recreated, or stopped yielding records.
    """
    if not stores:
        return 0
    limits = {"partition_bytes": PARTITION_BYTES, "fetch_bytes": FETCH_BYTES}
    async with ChangelogReader(connection, changelog, stores, **limits) as reader:
        num_records = await _read_to_end(reader, changelog, stalled_s)
        reader.finish()
        return num_records


async def _read_to_end(reader: ChangelogReader, changelog: str, stalled_s: float) -> int:
    num_records = 0
    missing = await reader.num_missing()
    progress = Progress(changelog, sum(missing.values()), time.monotonic())
    while missing:
        num_records += await reader.read(FETCH_MS)
        missing = await reader.num_missing()
        if progress.stalled_s(sum(missing.values()), time.monotonic()) > stalled_s:
            names = ", ".join(f"{changelog}[{partition}]" for partition in missing)
            raise RecoveryError(
                f"{names} yielded nothing for {stalled_s:.0f} s, with {sum(missing.values())} offsets to go. "
                "To mend it: see whether the broker is well."
            )
        if line := progress.line(time.monotonic()):
            log.info("%s", line)
    return num_records
