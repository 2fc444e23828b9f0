"""The items as a recommender holds them whole: their index and the catalogue, filled from topics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from index.contract import ItemIndex
from stream_app.faustkit import Follower, Run
from stream_app.records import Item, ItemVectorRecord, VectorsCompleteRecord, unpack_vector
from stream_app.stages.listing import index_version

log = logging.getLogger("sliceflow.views")

REPORT_S = 5.0
"""How often a wait is reported."""

CATALOGUE_WAIT_S = 5.0
"""Longest wait of a replayed event for the catalogue without any item coming: compaction or a transaction may leave
the end of the topic without a record, which then is never read."""

_ITEM = msgspec.json.Decoder(Item)
_ITEM_VECTOR = msgspec.json.Decoder(ItemVectorRecord)
_VECTORS_COMPLETE = msgspec.json.Decoder(VectorsCompleteRecord)


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
