"""Role `encode`: slices in; slice vectors and user vectors out. The encoder runs in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from stream_app import tables
from stream_app.batching import SliceBatcher
from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.records import SliceRecord, encode
from stream_app.stages.encoding import newest_revisions

_SLICE = msgspec.json.Decoder(SliceRecord)


@dataclass(frozen=True)
class EncodeTopics:
    """Full name of the topic this role writes for users."""

    slice_vectors: str


class EncodeProcessor:
    """Handles one partition of `slices`.

    Args:
        batcher: Encodes, together with what other partitions ask for.
        topics: Names of topics.
        item_vectors: The records that put this partition's share of the trained items on `item-vectors`.
    """

    def __init__(self, batcher: SliceBatcher, topics: EncodeTopics, item_vectors: list[OutRecord]) -> None:
        self._batcher = batcher
        self._topics = topics
        self._item_vectors = item_vectors

    def opening(self) -> list[OutRecord]:
        """The vectors of the trained items, so that a recommender that waits for them can start."""
        return self._item_vectors

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing is held in memory, so nothing is read."""

    async def process(self, run: Run, values: Values) -> Effects:
        """Encode the newest revision of each slice of the run, merge, and publish."""
        records = newest_revisions(_SLICE.decode(value or b"") for value in run.values)
        kept = tables.load_values(values, list(dict.fromkeys(r.user_id for r in records)), tables.MEMORY)
        memories = {user_id: memory for user_id, (_, memory) in kept.items()}
        vectors = await self._batcher.encode(records, memories)
        outputs = [
            OutRecord(self._topics.slice_vectors, run.partition, tables.key_of(vector.user_id), encode(vector))
            for vector in vectors
        ]
        changed = dict.fromkeys(vector.user_id for vector in vectors)
        position = run.offsets[-1]
        changes = {tables.key_of(user): Stored(position, tables.encode_value(memories[user])) for user in changed}
        return Effects(outputs, changes)
