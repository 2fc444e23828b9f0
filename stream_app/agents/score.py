"""Role `score`: choices in; the scorer of each scorer-epoch out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from stream_app import tables
from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.records import MARK_KEY, ChoiceRecord, ProgressRecord, ScorerEpochRecord, encode
from stream_app.stages.scorer_epochs import Learned, ScorerStage, ScorerTotals, WaitingChoice

_CHOICE = msgspec.json.Decoder(ChoiceRecord)
_PROGRESS = msgspec.json.Decoder(ProgressRecord)

SCORER_KEY = b"scorer"
"""Key of all scorers on `scorer-weights`: compaction leaves the newest."""


@dataclass(frozen=True)
class ScoreTopics:
    """Full name of the topic this role writes; it has one partition."""

    scorer_weights: str


class ScoreProcessor:
    """Handles the one partition of `choices`."""

    def __init__(self, stage: ScorerStage, topics: ScoreTopics) -> None:
        self._stage = stage
        self._topics = topics
        self._position = -1
        self._saved_epoch = -1

    def opening(self) -> list[OutRecord]:
        """Nothing is published before the first run."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Take up progress, what was learned, and what waits.

        A choice newer than the totals was kept by a worker that died before it could keep those: it is read again.
        """
        stored = dict(items)
        totals = ScorerTotals()
        if (kept := stored.get(tables.PARTITION_KEY)) is not None:
            totals = tables.SCORER_TOTALS.decode(kept.payload)
            self._position = kept.position
        learned: Learned | None = None
        if (kept := stored.get(tables.LEARNED_KEY)) is not None:
            learned = tables.LEARNED.decode(kept.payload)
        slots: list[tuple[int, WaitingChoice | None]] = []
        for key, kept in stored.items():
            if (slot := tables.slot_of(key)) is not None:
                is_known = kept.payload and kept.position <= self._position
                slots.append((slot, tables.WAITING_CHOICE.decode(kept.payload) if is_known else None))
        self._stage.restore(totals, learned, slots)
        self._saved_epoch = self._stage.saved.epoch

    async def process(self, run: Run, values: Values) -> Effects:
        """Collect choices, and learn from those of each epoch that became complete."""
        stage = self._stage
        stage.begin_run(lambda slots: _load(values, slots))
        complete = stage.totals.complete_epoch
        outputs: list[OutRecord] = []
        for offset, key, value, now_ms in zip(run.offsets, run.keys, run.values, run.timestamps_ms, strict=True):
            if offset <= self._position:
                continue
            if key == MARK_KEY:
                for epoch in stage.take_progress(_PROGRESS.decode(value or b""), now_ms):
                    outputs += await self._learn(epoch)
            else:
                stage.take_choice(_CHOICE.decode(value or b""), now_ms)
        self._position = max(self._position, run.offsets[-1])
        if stage.totals.complete_epoch > complete:
            marker = encode(ScorerEpochRecord(epoch=stage.totals.complete_epoch))
            outputs.append(OutRecord(self._topics.scorer_weights, 0, MARK_KEY, marker))
        return Effects(outputs, self._changes())

    async def _learn(self, epoch: int) -> list[OutRecord]:
        made = await asyncio.to_thread(self._stage.learn, epoch)
        return [] if made is None else [OutRecord(self._topics.scorer_weights, 0, SCORER_KEY, encode(made))]

    def _changes(self) -> dict[bytes, Stored]:
        """What the run changed. What was learned stands in front of the slots that it freed, and the totals last: after
        a crash that kept only the first of them, no choice is lost and none learned from twice.
        """
        stage, position = self._stage, self._position
        changes: dict[bytes, Stored] = {}
        if stage.saved.epoch > self._saved_epoch:
            self._saved_epoch = stage.saved.epoch
            changes[tables.LEARNED_KEY] = Stored(position, tables.encode_value(stage.saved))
        for slot, choice in stage.changed.items():
            payload = b"" if choice is None else tables.encode_value(choice)
            changes[tables.slot_key(slot)] = Stored(position, payload)
        changes[tables.PARTITION_KEY] = Stored(position, tables.encode_value(stage.totals))
        return changes


def _load(values: Values, slots: Sequence[int]) -> dict[int, WaitingChoice]:
    found = values.get_many([tables.slot_key(slot) for slot in slots])
    return {
        slot: tables.WAITING_CHOICE.decode(stored.payload)
        for slot, stored in zip(slots, found, strict=True)
        if stored is not None and stored.payload
    }
