"""Role `trend`: item activity in; decayed counts and transitions out, one record per item and epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from stream_app import tables
from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.records import ActivityRecord, TrendEpochRecord, encode
from stream_app.stages.trend import TrendStage

_ACTIVITY = msgspec.json.Decoder(ActivityRecord)

IDLE_S = 10.0
"""A source that was silent this long is not waited for, unless ticks drive it: an idle partition of `events`
must not hold up the trends of all others."""


@dataclass(frozen=True)
class TrendTopics:
    """Full name of the topic this role writes."""

    trends: str


class TrendProcessor:
    """Handles one partition of `item-activity`.

    Args:
        stage: The pure part.
        topics: Names of topics.
        clock_s: A monotonic clock in seconds; it decides only which sources are idle, never a statistic.
    """

    def __init__(self, stage: TrendStage, topics: TrendTopics, clock_s: Callable[[], float]) -> None:
        self._stage = stage
        self._topics = topics
        self._clock_s = clock_s
        self._heard_s: dict[int, float] = {}
        self._started_s = clock_s()
        self._totals_position = -1

    def opening(self) -> list[OutRecord]:
        """Nothing is published before the first run."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Take up progress, and which items have something pending."""
        for key, stored in items:
            if tables.is_partition_key(key):
                self._stage.totals = tables.TREND_TOTALS.decode(stored.payload)
                self._totals_position = stored.position
            else:
                self._stage.restore_item(key.decode("utf-8"), tables.STATISTICS.decode(stored.payload))

    async def process(self, run: Run, values: Values) -> Effects:
        """Count a run of activity, and fold the epochs it completed."""
        records = [_ACTIVITY.decode(value or b"") for value in run.values]
        self._hear(records)
        stage = self._stage
        stage.begin_run(lambda wanted: tables.load_values(values, wanted, tables.STATISTICS))
        stage.preload({record.item_id for record in records if record.item_id is not None})
        for record, offset in zip(records, run.offsets, strict=True):
            stage.take(record, offset)
        folded, complete = stage.end_run(run.offsets[-1], self._idle())
        outputs = [
            OutRecord(self._topics.trends, run.partition, tables.key_of(record.item_id), encode(record))
            for record in folded
        ]
        if complete is not None:
            outputs.append(OutRecord(self._topics.trends, run.partition, b"", encode(TrendEpochRecord(epoch=complete))))
        changes = {
            tables.key_of(item_id): Stored(position, tables.encode_value(statistics))
            for item_id, (position, statistics) in stage.changed.items()
        }
        # What is read again may end earlier than what the totals reflect already.
        self._totals_position = max(self._totals_position, run.offsets[-1])
        changes[tables.PARTITION_KEY] = Stored(self._totals_position, tables.encode_value(stage.totals))
        return Effects(outputs, changes)

    def _hear(self, records: list[ActivityRecord]) -> None:
        now_s = self._clock_s()
        self._heard_s.update(dict.fromkeys((record.partition for record in records), now_s))

    def _idle(self) -> frozenset[int]:
        now_s = self._clock_s()
        sources = range(self._stage.num_sources)
        return frozenset(q for q in sources if now_s - self._heard_s.get(q, self._started_s) > IDLE_S)
