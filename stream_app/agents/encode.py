"""Role `encode`: slices in; slice vectors and user vectors out. The encoder runs in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from stream_app import tables
from stream_app.batching import SliceBatcher
from stream_app.drift_meter import DriftMeter
from stream_app.erasing import Erasures, erasures_in
from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.marks import last_mark
from stream_app.records import MARK_KEY, ErasedRecord, SliceRecord, SliceVectorRecord, encode
from stream_app.stages.encoding import newest_revisions

_SLICE = msgspec.json.Decoder(SliceRecord)


@dataclass(frozen=True)
class EncodeTopics:
    """Full names of the topics this role writes for users, and for the figures of the drift meter."""

    slice_vectors: str
    drift: str


class EncodeProcessor:
    """Handles one partition of `slices`.

    Args:
        batcher: Encodes, together with what other partitions ask for.
        topics: Names of topics.
        meter: Checks a sample of the users; None where nothing is published.
    """

    def __init__(
        self,
        batcher: SliceBatcher,
        topics: EncodeTopics,
        meter: DriftMeter | None = None,
    ) -> None:
        self._batcher = batcher
        self._topics = topics
        self._meter = meter

    def opening(self) -> list[OutRecord]:
        """Nothing is published before the first run."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing is held in memory, so nothing is read."""

    async def process(self, run: Run, values: Values) -> Effects:
        """Encode the newest revision of each slice of the run, merge, and publish; forget who is erased."""
        erasures = erasures_in(run, values)
        records = newest_revisions(_SLICE.decode(value) for _, value in erasures.others(run))
        kept = tables.load_values(values, list(dict.fromkeys(r.user_id for r in records)), tables.MEMORY)
        memories = {user_id: memory for user_id, (_, memory) in kept.items()}
        vectors = await self._batcher.encode(records, memories)
        made: list[SliceVectorRecord | ErasedRecord] = [*vectors, *erasures.news]
        made.sort(key=lambda record: record.offset)
        outputs = [
            OutRecord(self._topics.slice_vectors, run.partition, tables.key_of(record.user_id), encode(record))
            for record in made
        ]
        if (mark := last_mark(run)) is not None:
            # Behind the vectors of the whole run: whatever it vouches for must lie in front of it.
            outputs.append(OutRecord(self._topics.slice_vectors, run.partition, MARK_KEY, mark))
        changed = dict.fromkeys(vector.user_id for vector in vectors)
        position = run.offsets[-1]
        changes = {tables.key_of(user): Stored(position, tables.encode_value(memories[user])) for user in changed}
        changes |= erasures.changes()
        facts = self._drift_facts(run.partition, records, vectors, erasures)
        return Effects(outputs, changes, erasures.removed, facts=facts)

    def _drift_facts(
        self,
        partition: int,
        records: Sequence[SliceRecord],
        vectors: Sequence[SliceVectorRecord],
        erasures: Erasures,
    ) -> list[OutRecord]:
        if self._meter is None:
            return []
        self._meter.erase(record.user_id for record in erasures.news)
        figures = self._meter.take(partition, records, vectors)
        if figures is None:
            return []
        key = f"{figures.release} {figures.instance}".encode()
        return [OutRecord(self._topics.drift, 0, key, encode(figures))]
