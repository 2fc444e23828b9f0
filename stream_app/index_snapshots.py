"""Snapshots of a role's item index in the state folder: a start loads the newest good one and follows on from there.

A snapshot is believed when the topic is the one that it was made from and still has everything behind its place. Nulls
are what must not be missed: Kafka keeps them for a day after compaction (``delete.retention.ms``), so older snapshots
are left alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from index import snapshot
from index.contract import ItemIndex
from index.errors import ItemIndexError
from stream_app.faustkit.topic_id import topic_id
from stream_app.item_view import ItemView, ViewPlace
from stream_app.settings import Settings

log = logging.getLogger("sliceflow.views")

MAX_AGE_S: Final = 12 * 3600.0
"""Oldest snapshot that is used: half of what Kafka keeps nulls for, unless somebody changed it."""

EVERY_S: Final = 300.0
"""Time between two snapshots. One of a million items takes some seconds to write, beside everything else."""


BUILT_FOLDER: Final = "built"
"""Beside the folders of the processes: what `sliceflow index build` writes."""


def index_folder(settings: Settings) -> Path:
    """Where the snapshots of a namespace lie, in a folder for each process."""
    return settings.state_path / "index" / (settings.prefix.strip(".-_") or "default")


class SnapshotMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot's manifest says of where it comes from."""

    topic: str
    topic_id: str
    written_s: float
    place: ViewPlace


class IndexSnapshots:
    """The snapshots of one process.

    Args:
        folder: Theirs; no other process writes there.
        topic: Full name of `item-vectors`.
        topic_id: Its id, empty where the broker knows none.
        others: Folders whose snapshots are used where the own one has none that may be.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        topic: str,
        topic_id: str,
        others: Sequence[Path] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._others = others
        self._topic = topic
        self._topic_id = topic_id
        self._clock = clock
        self._saved_version = -1

    def load(self, view: ItemView, ends: Mapping[int, int]) -> str:
        """Fill an empty view from the newest good snapshot, where there is one that may be believed.

        Args:
            view: Follows nothing yet.
            ends: Where the topic ends now, by partition.

        Returns:
            A line for people.
        """
        lines: list[str] = []
        for folder in (self._folder, *self._others):
            is_used, line = self._load_from(folder, view, ends)
            lines.append(line)
            if is_used:
                return line
        return "; ".join(lines)

    def _load_from(self, folder: Path, view: ItemView, ends: Mapping[int, int]) -> tuple[bool, str]:
        try:
            loaded = snapshot.load_newest(folder, view.index.release)
            meta = msgspec.convert(dict(loaded.positions), SnapshotMeta, strict=False)
        except (ItemIndexError, msgspec.ValidationError) as error:
            return False, f"no snapshot of the index is used: {error}"
        if doubt := self._doubt(meta, ends):
            return False, f"the snapshot {loaded.name} is not used: {doubt}"
        for damaged in loaded.damaged:
            log.warning("%s", damaged)
        view.index.swap(loaded.contents)
        view.resume(meta.place)
        self._saved_version = view.index.version
        return True, f"{len(view.index)} items from {loaded.name}"

    def save(self, index: ItemIndex, place: ViewPlace) -> None:
        """Write a snapshot, where anything changed since the last one.

        Args:
            index: Goes on changing meanwhile.
            place: The view's, taken before this call.

        Raises:
            OSError: The disk is full, or the like.
        """
        version = index.version
        if version == self._saved_version:
            return
        meta = SnapshotMeta(topic=self._topic, topic_id=self._topic_id, written_s=self._clock(), place=place)
        snapshot.save(index, self._folder, msgspec.to_builtins(meta, str_keys=True))
        self._saved_version = version

    def _doubt(self, meta: SnapshotMeta, ends: Mapping[int, int]) -> str:
        """Why a snapshot cannot be believed; empty where it can."""
        if (meta.topic, meta.topic_id) != (self._topic, self._topic_id):
            return f"it was made from another topic ({meta.topic} {meta.topic_id})"
        if self._clock() - meta.written_s > MAX_AGE_S:
            return f"it is older than {MAX_AGE_S / 3600:g} hours"
        if any(offset > ends.get(partition, 0) for partition, offset in meta.place.next_offsets.items()):
            return "it holds more than the topic"
        return ""


async def open_snapshots(
    connection: dict[str, Any], topic: str, folder: Path, others: Sequence[Path] = ()
) -> tuple[IndexSnapshots, dict[int, int]]:
    """The snapshots of a folder, and where the topic that they are made from ends now, by partition.

    Args:
        connection: Keyword arguments for aiokafka clients.
        topic: Full name of `item-vectors`; it exists.
        folder: See `IndexSnapshots`.
        others: See `IndexSnapshots`.
    """
    async with AIOKafkaConsumer(**connection, enable_auto_commit=False) as consumer:
        number = await topic_id(consumer._client, topic)
        await consumer._client._wait_on_metadata(topic)
        partitions = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        ends = {tp.partition: end for tp, end in (await consumer.end_offsets(partitions)).items()}
    return IndexSnapshots(folder, topic, "" if number is None else str(number), others), ends


async def keep_saving(view: ItemView, snapshots: IndexSnapshots) -> None:
    """Write a snapshot now and then, in a thread of its own; a failed one is told, and tried again."""
    while True:
        place = view.place
        try:
            await asyncio.to_thread(snapshots.save, view.index, place)
        except OSError as error:
            log.warning("the index could not be written: %s", error)
        await asyncio.sleep(EVERY_S)
