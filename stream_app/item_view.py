"""The items as a recommender holds them whole: their index and the catalogue, filled from topics."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from index.checked import GivenVector, upsert_good
from index.contract import ItemIndex
from stream_app.faustkit import Follower, Run
from stream_app.item_contents import read_item
from stream_app.item_search import tell_availability
from stream_app.records import Item, ItemVectorRecord, VectorsCompleteRecord, unpack_vector
from stream_app.stages.clean import Rejection
from stream_app.stages.listing import index_version

log = logging.getLogger("sliceflow.views")

REPORT_S = 5.0
"""How often a wait is reported."""

CATALOGUE_WAIT_S = 5.0
"""Longest wait of a replayed event for the catalogue without any item coming: compaction or a transaction may leave
the end of the topic without a record, which then is never read."""

VECTORS_WAIT_S = 60.0
"""Longest wait of a replayed event for the vectors of the catalogue without any coming: the encode role may have been
restarted, and a text model takes seconds for the few hundred texts that are published at once."""

NO_ITEM_KEY = b"\xff"
"""Begins the keys of records of `item-vectors` that are no item's."""

NO_VECTOR = "no vector record"
"""Reason of a refusal: the record cannot be read."""

OnRefused = Callable[[Run, int, str], None]
"""Told of a record that did not enter the index: its run, its place there, and the reason."""

Tell = Callable[[ItemIndex, Mapping[str, Item | None]], None]

_ITEM_VECTOR = msgspec.json.Decoder(ItemVectorRecord)
_VECTORS_COMPLETE = msgspec.json.Decoder(VectorsCompleteRecord)


def take_no_note(run: Run, place: int, reason: str) -> None:
    """For those to whom a refusal means nothing more than the count."""


@dataclass(frozen=True, slots=True)
class ViewPlace:
    """How far a view has read `item-vectors`.

    Args:
        next_offsets: The offset to go on from, by partition.
        items_offsets: Up to where `items` is reflected, by partition, for those that hold all trained items.
    """

    next_offsets: dict[int, int] = field(default_factory=dict)
    items_offsets: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Given:
    """A record of a vector, and its place in its run."""

    place: int
    value: bytes


class ItemView:
    """The item index and the catalogue, filled from `item-vectors` and `items`.

    A vector that is no good does not enter the index, and the item keeps the one it has; `refused` counts them by
    reason.

    Args:
        index: An empty index of the release.
        num_partitions: Partitions of `item-vectors`.
        on_refused: Told of each vector that is refused.
        tell: Tells the index what the catalogue says of items, by id, None for those that are deleted; by default only
            whether they are available.
    """

    def __init__(
        self,
        index: ItemIndex,
        num_partitions: int,
        on_refused: OnRefused = take_no_note,
        tell: Tell | None = None,
    ) -> None:
        self.index = index
        self._tell = tell or _tell_availability
        self.refused: Counter[str] = Counter()
        self._on_refused = on_refused
        self._num_partitions = num_partitions
        self._place = ViewPlace()
        self._available: dict[str, bool] = {}
        self.num_item_changes = 0
        """Runs of the catalogue taken so far: `is_available` may answer otherwise after each."""
        self._changed = asyncio.Event()
        self._next_offsets: dict[int, int] = {}
        self._read_offsets: dict[int, int] = {}
        self._items_read = asyncio.Event()

    def is_available(self, item_id: str) -> bool:
        """Whether an item may be listed; items the catalogue does not know may."""
        return self._available.get(item_id, True)

    def followers(
        self,
        connection: dict[str, Any],
        vectors_topic: str,
        items_topic: str,
        take_items_too: Callable[[Run], None] = lambda _: None,
    ) -> list[Follower]:
        """The followers that fill this view; vectors are read from its place on.

        Args:
            connection: Keyword arguments for aiokafka clients.
            vectors_topic: Full name of `item-vectors`.
            items_topic: Full name of `items`.
            take_items_too: Takes the runs of `items` as well, for those that know more of items than this view.
        """

        def take_items(run: Run) -> None:
            self._take_items(run)
            take_items_too(run)

        return [
            Follower(connection, vectors_topic, self._take_vectors, start=self._place.next_offsets),
            Follower(connection, items_topic, take_items),
        ]

    @property
    def place(self) -> ViewPlace:
        """How far `item-vectors` is in the index; a copy."""
        return ViewPlace(dict(self._place.next_offsets), dict(self._place.items_offsets))

    def resume(self, place: ViewPlace) -> None:
        """Go on at a place up to which the index holds everything already; before anything is followed."""
        self._place = place

    @property
    def is_complete(self) -> bool:
        """Whether all vectors of the release's trained items are in the index."""
        return len(self._place.items_offsets) == self._num_partitions

    async def wait_complete(self, report: Callable[[str], None]) -> None:
        """Wait until all vectors of the release are in the index."""
        while not self.is_complete:
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

    async def catch_up_vectors(self) -> None:
        """Wait until the vectors are read that follow from the catalogue as far as it is read now."""
        wanted = dict(self._read_offsets)
        while any(self._place.items_offsets.get(partition, 0) < offset for partition, offset in wanted.items()):
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), VECTORS_WAIT_S)
            except TimeoutError:
                log.warning(
                    "no more vectors of items come; lists use what is there: %s of %s",
                    self._place.items_offsets,
                    wanted,
                )
                for partition, offset in wanted.items():
                    self._place.items_offsets[partition] = max(offset, self._place.items_offsets.get(partition, 0))

    @property
    def version(self) -> str:
        """Names what is in the index: its release, how many items, and up to where the catalogue is reflected."""
        offset = sum(self._place.items_offsets.values())
        return index_version(self.index.release, len(self.index)) + (f"@{offset}" if offset else "")

    def _take_vectors(self, run: Run) -> None:
        refused: dict[int, str] = {}
        removed: list[str] = []
        given: dict[str, list[_Given]] = {}
        for place, (key, value) in enumerate(zip(run.keys, run.values, strict=True)):
            if (key or b"").startswith(NO_ITEM_KEY):
                self._take_marker(run.partition, value)
                continue
            item_id = (key or b"").decode("utf-8", "replace")
            if value is not None:
                given.setdefault(item_id, []).append(_Given(place, value))
                continue
            if item_id in given:  # what was removed comes before what was given
                refused |= self._apply(removed, given)
                removed, given = [], {}
            removed.append(item_id)
        refused |= self._apply(removed, given)
        self._place.next_offsets[run.partition] = run.next_offset
        for place, reason in sorted(refused.items()):
            self.refused[reason] += 1
            self._on_refused(run, place, reason)
        self._changed.set()

    def _take_marker(self, partition: int, value: bytes | None) -> None:
        if value is None:
            return
        marker = _VECTORS_COMPLETE.decode(value)
        if marker.release == self.index.release:
            self._place.items_offsets[partition] = marker.items_offset

    def _apply(self, removed: Sequence[str], records_of: Mapping[str, Sequence[_Given]]) -> dict[int, str]:
        """Remove items, then take the good vectors into the index; reasons of the others, by place in the run."""
        self.index.remove(removed)
        refused: dict[int, str] = {}
        given: dict[int, GivenVector] = {}
        for item_id, records in records_of.items():
            for one in records:
                try:
                    record = _ITEM_VECTOR.decode(one.value)
                    vector_D = unpack_vector(record.vector)
                except ValueError:
                    refused[one.place] = NO_VECTOR
                    continue
                is_own = record.item_id == item_id
                given[one.place] = GivenVector(item_id if is_own else "", vector_D, record.release)
        places = list(given)
        refused |= {places[bad.place]: bad.reason for bad in upsert_good(self.index, given.values())}
        return refused

    def _take_items(self, run: Run) -> None:
        news: dict[str, Item | None] = {}
        for key, value in zip(run.keys, run.values, strict=True):
            read = read_item(key, value)
            if not isinstance(read, Rejection):  # the encode role makes a dead letter of it
                news.update([read])
        self._available |= {item_id: _may_be_listed(item) for item_id, item in news.items()}
        self.num_item_changes += 1
        self._tell(self.index, news)
        self._read_offsets[run.partition] = run.next_offset
        self._next_offsets[run.partition] = max(run.next_offset, self._next_offsets.get(run.partition, 0))
        self._items_read.set()


def _tell_availability(index: ItemIndex, items: Mapping[str, Item | None]) -> None:
    tell_availability(index, {item_id: _may_be_listed(item) for item_id, item in items.items()})


def _may_be_listed(item: Item | None) -> bool:
    return item is not None and item.available
