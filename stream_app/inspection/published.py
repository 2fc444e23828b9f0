"""Reading what the running system published: a user's records, trends as of an epoch, the activity of items.

Every reading is outside any consumer group, and nothing is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass

import msgspec

from stream_app.inspection.report import Published
from stream_app.inspection.trace import Trace
from stream_app.inspection.user_log import UserLog
from stream_app.inspection.vectors import Revision
from stream_app.kafka import partition_of
from stream_app.records import (
    ActivityRecord,
    Recommendation,
    ScorerRecord,
    SliceRecord,
    SliceVectorRecord,
    TrendEpochRecord,
    TrendRecord,
    is_erased,
)
from stream_app.settings import Settings
from stream_app.stages.learning import Scorer
from stream_app.stages.listing import ScorerInForce
from stream_app.stages.popularity import TrendRule
from stream_app.stages.trend_view import TrendView
from stream_app.topic_reader import StoredRecord, TopicReader
from stream_app.topics import (
    EVENTS,
    ITEM_ACTIVITY,
    ITEM_TRENDS,
    RECOMMENDATIONS,
    SCORER_WEIGHTS,
    SLICE_VECTORS,
    SLICES,
    prefixed,
)

OnRead = Callable[[str], None]
"""Told of progress."""

REPORT_EVERY = 50_000
"""Records between two reports of progress: a second's reading at most."""

_LIST = msgspec.json.Decoder(Recommendation)
_SLICE = msgspec.json.Decoder(SliceRecord)
_VECTOR = msgspec.json.Decoder(SliceVectorRecord)
_TREND = msgspec.json.Decoder(TrendRecord)
_MARKER = msgspec.json.Decoder(TrendEpochRecord)
_ACTIVITY = msgspec.json.Decoder(ActivityRecord)
_SCORER_RECORD = msgspec.json.Decoder(ScorerRecord)
_SCORER = msgspec.json.Decoder(Scorer)


class _Epochs(msgspec.Struct):
    """The epochs of a trend record."""

    epoch: int
    first_epoch: int


_EPOCHS = msgspec.json.Decoder(_Epochs)


@dataclass(frozen=True)
class TrendsAsOf:
    """The newest record of each item up to an epoch, by item id, and how many items' records are gone (compaction)."""

    epoch: int
    records: Mapping[str, TrendRecord]
    num_lost: int = 0

    def view(self, rule: TrendRule, instead: Mapping[str, TrendRecord | None] | None = None) -> TrendView:
        """The trends, with the records of some items replaced (None: the item was never touched)."""
        records = {**self.records, **(instead or {})}
        view = TrendView(rule)
        view.advance(self.epoch, [record for record in records.values() if record is not None])
        return view


class PublishedTopics:
    """Reads the topics of one namespace.

    Args:
        settings: With a Kafka address.
        reader: Open; its deadline holds for each topic.
        on_read: Told of progress.
    """

    def __init__(self, settings: Settings, reader: TopicReader, on_read: OnRead) -> None:
        self._settings = settings
        self._reader = reader
        self._on_read = on_read

    def name_of(self, topic: str) -> str:
        """The full name of a topic."""
        return prefixed(self._settings.prefix, topic)

    async def partition_of_user(self, user_id: str) -> int:
        """The user's partition of `events`, and of all topics that are cut alike."""
        num_partitions = await self._reader.num_partitions(self.name_of(EVENTS))
        return partition_of(user_id.encode("utf-8", "surrogatepass"), num_partitions)

    async def fill(self, log: UserLog, partition: int) -> int:
        """Let `log` take its partition of `events`, as far as it wants; how many records retention has removed."""
        start, _ = (await self._reader.bounds(self.name_of(EVENTS), [partition]))[partition]
        async for record in self._records(EVENTS, [partition]):
            log.take(record.offset, record.key, record.value, record.timestamp_ms, record.headers)
            if log.is_over:
                break
        return start

    async def slices_of(self, user_id: str, partition: int) -> list[SliceRecord]:
        """All slice revisions of a user that were published, behind the newest erasure."""
        return [_SLICE.decode(value) for value in await self._newest_values_of(SLICES, user_id, partition)]

    async def vectors_of(self, user_id: str, partition: int, release: str) -> list[SliceVectorRecord]:
        """All slice vectors of a user that a release published, in order, behind the newest erasure."""
        found = [_VECTOR.decode(value) for value in await self._newest_values_of(SLICE_VECTORS, user_id, partition)]
        return [record for record in found if record.release == release]

    async def lists_of(self, user_id: str, partition: int, offsets: Collection[int]) -> dict[int, Recommendation]:
        """The published lists that answer the user's events at these offsets, as far as they are there."""
        key, found = user_id.encode("utf-8", "surrogatepass"), dict[int, Recommendation]()
        if not offsets:
            return found
        async for record in self._reader.read_backwards(self.name_of(RECOMMENDATIONS), partition):
            if record.key != key or record.value is None:
                continue
            made = _LIST.decode(record.value)
            if made.offset in offsets:
                found.setdefault(made.offset, made)
            if made.offset < min(offsets) or len(found) == len(offsets):
                break
        return found

    async def complete_epoch(self) -> int:
        """The newest epoch that the trends of all partitions are complete up to; -1 where there is none."""
        topic = self.name_of(ITEM_TRENDS)
        epochs = []
        for partition in range(await self._reader.num_partitions(topic)):
            newest = -1
            async for record in self._reader.read_backwards(topic, partition):
                if not record.key and record.value is not None:
                    newest = _MARKER.decode(record.value).epoch
                    break
            epochs.append(newest)
        return min(epochs)

    async def trends_as_of(self, epochs: Collection[int]) -> dict[int, TrendsAsOf]:
        """The trends as of each of these epochs."""
        newest: dict[int, dict[bytes, bytes]] = {epoch: {} for epoch in epochs}
        oldest: dict[bytes, int] = {}
        async for record in self._records(ITEM_TRENDS):
            if not record.key or record.value is None:
                continue
            facts = _EPOCHS.decode(record.value)
            oldest.setdefault(record.key, facts.first_epoch)
            for epoch, kept in newest.items():
                if facts.epoch <= epoch:
                    kept[record.key] = record.value
        return {
            epoch: TrendsAsOf(
                epoch,
                {key.decode("utf-8"): _TREND.decode(value) for key, value in kept.items()},
                # Touched by then, but only later records are there: older ones were compacted away.
                sum(first <= epoch and key not in kept for key, first in oldest.items()),
            )
            for epoch, kept in newest.items()
        }

    async def scorers_as_of(self, epochs: Collection[int], release: str) -> dict[int, ScorerInForce]:
        """The newest scorer of a release up to each of these scorer-epochs; none where there is none any more."""
        found: dict[int, ScorerInForce] = {}
        async for record in self._records(SCORER_WEIGHTS):
            if not record.key or record.value is None:
                continue
            made = _SCORER_RECORD.decode(record.value)
            if made.release == release:
                scorer = ScorerInForce(_SCORER.decode(made.scorer), made.epoch)
                found.update({epoch: scorer for epoch in epochs if made.epoch <= epoch})
        return found

    async def activity_of(self, item_ids: Collection[str]) -> list[ActivityRecord]:
        """All activity with these items, in the order of each partition."""
        if not item_ids:
            return []
        keys = {item_id.encode("utf-8") for item_id in item_ids}
        num_partitions = await self._reader.num_partitions(self.name_of(ITEM_ACTIVITY))
        partitions = {partition_of(key, num_partitions) for key in keys}
        return [
            _ACTIVITY.decode(record.value)
            async for record in self._records(ITEM_ACTIVITY, sorted(partitions))
            if record.key in keys and record.value is not None
        ]

    async def _values_of(self, topic: str, user_id: str, partition: int) -> AsyncIterator[bytes]:
        key = user_id.encode("utf-8", "surrogatepass")
        async for record in self._records(topic, [partition]):
            if record.key == key and record.value is not None:
                yield record.value

    async def _newest_values_of(self, topic: str, user_id: str, partition: int) -> list[bytes]:
        """The user's values behind the newest erasure."""
        found: list[bytes] = []
        async for value in self._values_of(topic, user_id, partition):
            if is_erased(value):
                found.clear()
            else:
                found.append(value)
        return found

    async def _records(self, topic: str, partitions: Collection[int] | None = None) -> AsyncIterator[StoredRecord]:
        num_read = 0
        async for record in self._reader.read_all(self.name_of(topic), partitions):
            num_read += 1
            if num_read % REPORT_EVERY == 0:
                self._on_read(f"{num_read:,} records of {topic} read")
            yield record


def published_of(
    lists: Mapping[int, Recommendation],
    slices: Collection[SliceRecord],
    vectors: Collection[SliceVectorRecord],
    traced: Trace,
) -> tuple[Published, list[str]]:
    """What was published of a user, as far as it is of the same slices; and a note where it is not.

    The order of merging is followed only where every published slice holds the very events that are found now: else the
    log, or the settings, are not those that it was made with.
    """
    known = {(record.seq, record.revision): record for record in traced.revisions}
    differing = [record for record in slices if _differs(record, known.get((record.seq, record.revision)))]
    if differing:
        first = differing[0]
        note = (
            f"slice {first.seq}, revision {first.revision}, was published with other events than `events` gives now "
            f"({len(differing)} of {len(slices)} revisions): records are gone, or settings were changed since"
        )
        return Published(lists), [note]
    order: list[Revision] = [(record.seq, record.revision) for record in vectors]
    return Published(lists, dict(zip(order, vectors, strict=True)), order), []


def _differs(record: SliceRecord, found: SliceRecord | None) -> bool:
    """Whether a revision that is found now is another one; later revisions than those asked for are not found."""
    return found is not None and (record.events, record.closed) != (found.events, found.closed)
