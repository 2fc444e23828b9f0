"""Bringing the stores up to their changelogs, before any input is read.

It replaces Faust's recovery, which can wait for ever (a deletion or control record at the tail of a changelog)
and writes records of unknown partitions into whatever table came last. Ours reads each changelog with a
consumer of its own up to the end it had at the start, then it is done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from mode import Service

from stream_app.faustkit.failure import end_process
from stream_app.faustkit.store import PartitionStore, unseal

log = logging.getLogger("sliceflow.recovery")

STALLED_S = 60.0
"""A changelog that yields nothing for this long is given up: a healthy broker answers a fetch in milliseconds."""

FETCH_MS = 500
"""Longest wait of one fetch, in milliseconds."""


class RecoveryError(Exception):
    """A store cannot be brought up to its changelog; says what was seen and what mends it."""


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
            try:
                await self.app.open_partitions()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                end_process(f"The stores could not be recovered: {error}", error)
            await self._resume_streams(generation_id=generation_id)

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Nothing: changelogs are read by `recover`."""

    @Service.task
    async def _publish_stats(self) -> None:
        """Nothing: progress is logged by `recover`."""


async def recover(
    connection: dict[str, Any],
    changelog: str,
    stores: dict[int, PartitionStore],
    *,
    stalled_s: float = STALLED_S,
) -> int:
    """Apply the changelog of each partition to its store, up to the end the changelog has now.

    Where store and record differ in age, the greater source position stays: a process that was paused and woke
    may have written an old value late.

    Args:
        connection: Keyword arguments for aiokafka clients.
        changelog: Name of the changelog topic.
        stores: The open store of each partition.
        stalled_s: Give up when nothing arrives for this many seconds.

    Returns:
        How many changelog records were read.

    Raises:
        RecoveryError: The changelog was truncated or recreated, or stopped yielding records.
    """
    if not stores:
        return 0
    consumer = AIOKafkaConsumer(**connection, enable_auto_commit=False, auto_offset_reset="none", max_poll_records=5000)
    await consumer.start()
    try:
        partitions = {TopicPartition(changelog, partition): store for partition, store in stores.items()}
        consumer.assign(list(partitions))
        ends = await _seek_to_stored(consumer, partitions)
        return await _read_up_to(consumer, partitions, ends, stalled_s)
    finally:
        await consumer.stop()


async def _seek_to_stored(
    consumer: AIOKafkaConsumer, partitions: dict[TopicPartition, PartitionStore]
) -> dict[TopicPartition, int]:
    begins = await consumer.beginning_offsets(list(partitions))
    ends = await consumer.end_offsets(list(partitions))
    for tp, store in partitions.items():
        stored = store.changelog_offset
        start = 0 if stored is None else stored + 1
        if start > ends[tp]:
            raise RecoveryError(
                f"{store.path} reflects offset {stored} of {tp.topic}[{tp.partition}], which ends at {ends[tp]}: "
                f"the changelog was recreated. To mend it: restore the topic, or remove {store.path} and let the "
                "role's group read its input from the beginning."
            )
        if begins[tp] > start:
            raise RecoveryError(
                f"{tp.topic}[{tp.partition}] begins at offset {begins[tp]}, but {start} is needed: the changelog was "
                "truncated. To mend it: set its cleanup.policy to compact, and rebuild the role from its input."
            )
        consumer.seek(tp, start)
    return {
        tp: end
        for tp, end in ends.items()
        if end > consumer._subscription.subscription.assignment.state_value(tp).position
    }


async def _read_up_to(
    consumer: AIOKafkaConsumer,
    partitions: dict[TopicPartition, PartitionStore],
    ends: dict[TopicPartition, int],
    stalled_s: float,
) -> int:
    num_records = 0
    waiting = dict(ends)
    last_progress = last_report = time.monotonic()
    while waiting:
        fetched = await consumer.getmany(*waiting, timeout_ms=FETCH_MS)
        for tp, records in fetched.items():
            _apply(partitions[tp], records)
            num_records += len(records)
        now = time.monotonic()
        if fetched:
            last_progress = now
        for tp in [tp for tp, end in waiting.items() if await consumer.position(tp) >= end]:
            del waiting[tp]
        if now - last_progress > stalled_s:
            names = ", ".join(f"{tp.topic}[{tp.partition}]" for tp in waiting)
            raise RecoveryError(
                f"{names} yielded nothing for {stalled_s:.0f} s. To mend it: see whether the broker is well."
            )
        if now - last_report > 2:
            log.info("recovering: %d changelog records read, %d partitions to go", num_records, len(waiting))
            last_report = now
    return num_records


def _apply(store: PartitionStore, records: Sequence[Any]) -> None:
    newest: dict[bytes, bytes] = {}
    deleted: set[bytes] = set()
    for record in records:
        if record.value is None:
            newest.pop(record.key, None)
            deleted.add(record.key)
            continue
        deleted.discard(record.key)
        known = newest.get(record.key)
        if known is None or unseal(known).position <= unseal(record.value).position:
            newest[record.key] = record.value
    keys = list(newest)
    for key, stored in zip(keys, store.get_many(keys), strict=True):
        if stored is not None and stored.position > unseal(newest[key]).position:
            del newest[key]
    if deleted:
        store.delete(deleted)
    store.write(newest, records[-1].offset)
