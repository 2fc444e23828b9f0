"""What every recommender holds in full, by following topics: trends, the item index, the catalogue."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from index.contract import ItemIndex
from stream_app.faustkit import Follower, Run
from stream_app.records import (
    Item,
    ItemVectorRecord,
    TrendEpochRecord,
    TrendRecord,
    VectorsCompleteRecord,
    unpack_vector,
)
from stream_app.stages.listing import index_version
from stream_app.stages.popularity import TrendRule
from stream_app.stages.trend_view import TrendView

log = logging.getLogger("sliceflow.views")

EPOCH_WAIT_S = 60.0
"""Longest wait of a replayed event for its epoch of trends. A role that died is back within seconds; a replay
that was broken off never completes its epoch, and its last lists must come all the same (they say which epoch
they used)."""

MAX_KEPT_BYTES = 256 * 1024 * 1024
"""Trend records kept until every partition's lists have passed their epoch. Beyond: in a replay nothing more is read
than is waited for; otherwise epochs are merged, and only the newest can be joined exactly."""

MAX_DECODED_EPOCHS = 64
"""Epochs kept decoded: about ten times as large as their bytes."""

STRICT_S = 60.0
"""A replay is going on while the last replayed event is less than this ago."""

REPORT_S = 5.0
"""How often a wait is reported."""

CATALOGUE_WAIT_S = 5.0
"""Longest wait of a replayed event for the catalogue without any item coming: compaction or a transaction may leave
the end of the topic without a record, which then is never read."""

_TREND = msgspec.json.Decoder(TrendRecord)
_TREND_EPOCH = msgspec.json.Decoder(TrendEpochRecord)
_ITEM = msgspec.json.Decoder(Item)
_ITEM_VECTOR = msgspec.json.Decoder(ItemVectorRecord)
_VECTORS_COMPLETE = msgspec.json.Decoder(VectorsCompleteRecord)


class TrendLog:
    """The epochs of trends that some partition may still need, and a view for each partition.

    Each partition of `slice-vectors` is at its own epoch, so each has its own view; what they read is shared.
    `on_progress` is called when the trends that somebody waits for have come nearer.
    """

    def __init__(
        self,
        connection: dict[str, Any],
        topic: str,
        num_partitions: int,
        rule: TrendRule,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._on_progress = on_progress
        self._topic = topic
        self._num_partitions = num_partitions
        self._rule = rule
        self._follower: Follower | None = None
        self._reset()

    def _reset(self) -> None:
        self._epochs: dict[int, dict[bytes, bytes]] = {}
        self._sorted_epochs: list[int] = []
        self._decoded: dict[int, list[TrendRecord]] = {}
        self._complete: dict[int, int] = {}
        self._views: dict[int, TrendView] = {}
        self._kept_bytes = 0
        self._dropped_up_to = -1
        self._moved = asyncio.Event()
        self._waited_epoch = -1
        self._strict_s: float | None = None
        self._enough = asyncio.Event()

    async def restart(self) -> None:
        """Read the topic from its beginning, with fresh views; returns when caught up, or as much as may be is kept."""
        await self.stop()
        self._reset()
        self._follower = Follower(self._connection, self._topic, self._take, hold=self._held)
        await self._follower.start()
        waits = [asyncio.ensure_future(self._follower.wait_caught_up()), asyncio.ensure_future(self._enough.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def stop(self) -> None:
        """Stop following."""
        if self._follower is not None:
            await self._follower.stop()

    @property
    def complete_epoch(self) -> int:
        """The newest epoch that all partitions of the topic are complete up to; -1 where there is none."""
        if len(self._complete) < self._num_partitions:
            return -1
        return min(self._complete.values())

    async def view_for(self, partition: int, join_epoch: int | None) -> TrendView:
        """The trends for events of `partition`: exactly as of `join_epoch`, or the newest complete ones for None.

        Waits for the epoch, at most `EPOCH_WAIT_S` after the last progress. A view never goes back: an older
        `join_epoch` than it has gets what it has.
        """
        view = self._views.setdefault(partition, TrendView(self._rule))
        if join_epoch is not None:
            self._strict_s = time.monotonic()
            await self._wait_for(join_epoch)
        else:
            await self._wait_newest()
        wanted = self.complete_epoch if join_epoch is None else min(join_epoch, self.complete_epoch)
        if wanted > view.epoch:
            view.advance(wanted, self._records(view.epoch, wanted))
            self._drop_read()
        return view

    def _records(self, after: int, up_to: int) -> Iterator[TrendRecord]:
        """The records of the epochs after `after` up to `up_to`, oldest first."""
        start, end = bisect_right(self._sorted_epochs, after), bisect_right(self._sorted_epochs, up_to)
        for epoch in self._sorted_epochs[start:end]:
            yield from self._decoded_epoch(epoch)

    def _decoded_epoch(self, epoch: int) -> list[TrendRecord]:
        """The records of an epoch; decoded once for all partitions, which mostly come to it one after the other."""
        decoded = self._decoded.get(epoch)
        if decoded is None:
            decoded = [_TREND.decode(value) for value in self._epochs[epoch].values()]
            if len(self._decoded) < MAX_DECODED_EPOCHS:
                self._decoded[epoch] = decoded
        return decoded

    async def _wait_newest(self) -> None:
        if self._strict_s is None:
            self._strict_s = -math.inf
        if self._follower is not None:
            await self._follower.wait_caught_up()

    async def _wait_for(self, epoch: int) -> None:
        self._waited_epoch = max(self._waited_epoch, epoch)
        while self.complete_epoch < epoch:
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), EPOCH_WAIT_S)
                self._on_progress()
            except TimeoutError:
                log.warning("epoch %d of trends did not come; lists use epoch %d", epoch, self.complete_epoch)
                return

    def _take(self, run: Run) -> None:
        for key, value in zip(run.keys, run.values, strict=True):
            if value is None:
                continue
            epoch = _TREND_EPOCH.decode(value).epoch
            if key:
                self._keep(epoch, key, value)
            else:
                self._complete[run.partition] = max(epoch, self._complete.get(run.partition, -1))
        self._moved.set()
        if self._kept_bytes > MAX_KEPT_BYTES:
            self._enough.set()
            if not self._in_replay():
                self._merge_epochs()

    def _keep(self, epoch: int, key: bytes, value: bytes) -> None:
        if epoch <= self._dropped_up_to:
            return
        kept = self._epochs.get(epoch)
        if kept is None:
            kept = self._epochs[epoch] = {}
            insort(self._sorted_epochs, epoch)
        self._kept_bytes += len(value) - len(kept.get(key, b""))
        kept[key] = value
        self._decoded.pop(epoch, None)

    def _in_replay(self) -> bool:
        """Whether lists join exact epochs now; also while nothing has been asked for yet."""
        return self._strict_s is None or time.monotonic() - self._strict_s < STRICT_S

    def _held(self) -> set[int]:
        """Partitions not to be read for now: those that are further than any waiting list, while too much is kept."""
        if self._kept_bytes <= MAX_KEPT_BYTES or not self._in_replay():
            return set()
        return {number for number, epoch in self._complete.items() if epoch >= self._waited_epoch}

    def _merge_epochs(self) -> None:
        """Keep of all complete epochs only the newest record of each item, as if it were of the newest epoch."""
        complete = self.complete_epoch
        end = bisect_right(self._sorted_epochs, complete)
        if end < 2:
            return
        self._decoded.clear()
        merged: dict[bytes, bytes] = {}
        for epoch in self._sorted_epochs[:end]:
            merged.update(self._epochs.pop(epoch))
        self._sorted_epochs[:end] = [complete]
        self._epochs[complete] = merged
        self._kept_bytes = sum(len(value) for kept in self._epochs.values() for value in kept.values())

    def _drop_read(self) -> None:
        oldest = min(view.epoch for view in self._views.values())
        end = bisect_right(self._sorted_epochs, oldest)
        for epoch in self._sorted_epochs[:end]:
            self._kept_bytes -= sum(map(len, self._epochs.pop(epoch).values()))
            self._decoded.pop(epoch, None)
        del self._sorted_epochs[:end]
        self._dropped_up_to = max(self._dropped_up_to, oldest)

    def add_view(self, partition: int) -> None:
        """Keep every epoch for this partition until its view has passed it."""
        self._views.setdefault(partition, TrendView(self._rule))


class ItemView:
    """The item index and the catalogue, filled from `item-vectors` and `items`.

    Args:
        index: An empty index of the release.
        num_partitions: Partitions of `item-vectors`.
    """

    def __init__(self, index: ItemIndex, num_partitions: int) -> None:
        self.index = index
        self._num_partitions = num_partitions
        self._complete: set[int] = set()
        self._available: dict[str, bool] = {}
        self._changed = asyncio.Event()
        self._next_offsets: dict[int, int] = {}
        self._items_read = asyncio.Event()

    def is_available(self, item_id: str) -> bool:
        """Whether an item may be listed; items the catalogue does not know may."""
        return self._available.get(item_id, True)

    def followers(self, connection: dict[str, Any], vectors_topic: str, items_topic: str) -> list[Follower]:
        """The followers that fill this view."""
        return [
            Follower(connection, vectors_topic, self._take_vectors),
            Follower(connection, items_topic, self._take_items),
        ]

    async def wait_complete(self, report: Callable[[str], None]) -> None:
        """Wait until all vectors of the release are in the index."""
        while len(self._complete) < self._num_partitions:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), REPORT_S)
            except TimeoutError:
                report(
                    f"waiting for the item vectors of release {self.index.release} "
                    f"({len(self.index)} so far): is the encode role running, with the same model?"
                )

    async def catch_up(self, ends: Mapping[int, int]) -> None:
        """Wait until the catalogue is read up to these ends of `items`, by partition.

        A replay sends the catalogue before its events; so all of it is known before the first list.
        """
        while any(self._next_offsets.get(partition, 0) < end for partition, end in ends.items()):
            self._items_read.clear()
            try:
                await asyncio.wait_for(self._items_read.wait(), CATALOGUE_WAIT_S)
            except TimeoutError:
                log.warning("nothing more of the catalogue came; lists use what is known up to %s", self._next_offsets)
                for partition, end in ends.items():
                    self._next_offsets[partition] = max(end, self._next_offsets.get(partition, 0))

    @property
    def version(self) -> str:
        """Names what is in the index, the same for the same content."""
        return index_version(self.index.release, len(self.index))

    def _take_vectors(self, run: Run) -> None:
        ids: list[str] = []
        vectors: list[Any] = []
        for key, value in zip(run.keys, run.values, strict=True):
            if value is None:
                continue
            if key and key.startswith(b"\xff"):
                marker = _VECTORS_COMPLETE.decode(value)
                if marker.release == self.index.release:
                    self._complete.add(run.partition)
                continue
            record = _ITEM_VECTOR.decode(value)
            if record.release == self.index.release:
                ids.append(record.item_id)
                vectors.append(unpack_vector(record.vector))
        if ids:
            self.index.upsert(ids, np.stack(vectors))
        self._changed.set()

    def _take_items(self, run: Run) -> None:
        for key, value in zip(run.keys, run.values, strict=True):
            item_id = (key or b"").decode("utf-8", "replace")
            if value is None:
                self._available[item_id] = False
                continue
            try:
                self._available[item_id] = _ITEM.decode(value).available
            except msgspec.MsgspecError as error:
                log.warning("an item record at offset %d of %s is refused: %s", run.offsets[0], run.topic, error)
        self._next_offsets[run.partition] = max(run.next_offset, self._next_offsets.get(run.partition, 0))
        self._items_read.set()


class TopicEnds:
    """Asks where a topic ends, over a connection of its own: others wait behind their own fetches.

    Args:
        connection: Keyword arguments for aiokafka clients.
        topic: Full name of the topic.
        num_partitions: How many partitions it has.
    """

    def __init__(self, connection: dict[str, Any], topic: str, num_partitions: int) -> None:
        self._connection = connection
        self._partitions = [TopicPartition(topic, number) for number in range(num_partitions)]
        self._consumer: Any = None

    async def start(self) -> None:
        """Connect."""
        self._consumer = AIOKafkaConsumer(**self._connection, enable_auto_commit=False)
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        self._consumer.pause(*self._partitions)

    async def ends(self) -> dict[int, int]:
        """The offset behind the last record of each partition, now."""
        found = await self._consumer.end_offsets(self._partitions)
        return {tp.partition: end for tp, end in found.items()}
