"""Role `sequence`: events in; slices, item activity, dead letters and totals out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stream_app import tables
from stream_app.dead_letters import dead_letter
from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.kafka import partition_of
from stream_app.records import MARK_KEY, ActivityRecord, Event, encode
from stream_app.stages.clean import CleanRules, Rejection
from stream_app.stages.intake import Content, read_record, take_record
from stream_app.stages.sequence import PartitionTotals, SequenceEffects, SequenceStage
from stream_app.stages.slicing import UserHistory


@dataclass(frozen=True)
class SequenceTopics:
    """Full names of the topics this role writes, and the partition count of `item-activity`."""

    slices: str
    activity: str
    dead_letter: str
    status: str
    num_partitions: int


class SequenceProcessor:
    """Handles one partition of `events`."""

    def __init__(self, stage: SequenceStage, rules: CleanRules, topics: SequenceTopics) -> None:
        self._stage = stage
        self._rules = rules
        self._topics = topics
        self._totals_position = -1

    def opening(self) -> list[OutRecord]:
        """Nothing is published before the first run."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Count totals and set timers from the kept histories."""
        totals: PartitionTotals | None = None
        histories: list[tuple[str, UserHistory]] = []
        for key, stored in items:
            if tables.is_partition_key(key):
                totals = tables.SEQUENCE_TOTALS.decode(stored.payload)
                self._totals_position = stored.position
            else:
                histories.append((key.decode("utf-8"), tables.HISTORY.decode(stored.payload)))
        self._stage.restore(histories, totals)

    async def process(self, run: Run, values: Values) -> Effects:
        """Clean, apply and publish one run."""
        contents = [self._read(run, place) for place in range(len(run))]
        users = list(dict.fromkeys(content.user_id for content in contents if isinstance(content, Event)))
        self._stage.begin_run(users, lambda wanted: tables.load_histories(values, wanted))
        dead_letters = []
        for place, content in enumerate(contents):
            offset = run.offsets[place]
            is_counted = offset <= self._totals_position
            take_record(self._stage, content, offset, run.headers[place], is_counted=is_counted)
            if isinstance(content, Rejection):
                dead_letters.append(dead_letter(self._topics.dead_letter, run, place, content))
        last_offset = run.offsets[-1]
        effects = self._stage.end_run(last_offset, self._topics.num_partitions)
        self._totals_position = max(self._totals_position, last_offset)
        return self._effects(effects, dead_letters, run.partition)

    def _read(self, run: Run, place: int) -> Content:
        return read_record(
            run.keys[place], run.values[place], run.timestamps_ms[place], run.headers[place], self._rules
        )

    def _effects(self, effects: SequenceEffects, dead_letters: list[OutRecord], partition: int) -> Effects:
        topics = self._topics
        outputs = [
            OutRecord(topics.slices, partition, tables.key_of(record.user_id), encode(record))
            for record in effects.published()
        ]
        if effects.progress is not None:
            outputs.append(OutRecord(topics.slices, partition, MARK_KEY, encode(effects.progress)))
        outputs += self._activity_records(effects.activity)
        outputs += dead_letters
        status = OutRecord(topics.status, 0, b"%d" % partition, encode(self._stage.status(self._totals_position)))
        changes = {
            tables.key_of(user_id): Stored(kept.position, tables.encode_value(kept.history))
            for user_id, kept in effects.changed.items()
        }
        # Last, so that in the changelog it vouches for everything before it.
        changes[tables.PARTITION_KEY] = Stored(self._totals_position, tables.encode_value(self._stage.totals))
        return Effects(outputs, changes, removed=[tables.key_of(user) for user in effects.removed], facts=[status])

    def _activity_records(self, activity: Sequence[ActivityRecord]) -> Iterable[OutRecord]:
        topic, num_partitions = self._topics.activity, self._topics.num_partitions
        mark = 0
        for record in activity:
            if record.item_id is None:
                yield OutRecord(topic, mark, b"", encode(record))
                mark += 1
            else:
                key = tables.key_of(record.item_id)
                yield OutRecord(topic, partition_of(key, num_partitions), key, encode(record))
