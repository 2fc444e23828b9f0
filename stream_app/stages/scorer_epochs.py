"""What the score role does with choices: collect those of a scorer-epoch, and learn from them once it is complete.

Pure. What waits lies in numbered slots of the table, of which only the index is held in memory. Every choice is judged
with the scorer of the epochs before its own (predict first, learn after), and what is learned from depends neither on
the order in which partitions arrive nor on how many there are: the choices of an epoch with the smallest hashes, in
order of time, user and item.

Shapes: C candidates, F features.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from stream_app.records import ChoiceRecord, ProgressRecord, ScorerRecord, unpack_vector
from stream_app.stages import learning
from stream_app.stages.choices import MAX_NEGATIVES, choice_hash
from stream_app.stages.popularity import SourceProgress, complete_epoch
from stream_app.stages.score_rule import ScoreRule

IDLE_MS = 10_000
"""A source that was silent this long, by the times of records, is not waited for, unless ticks drive it."""

DAY_MS = 86_400_000

KEPT_DAYS = 31
"""Newest days whose quality is kept."""

SAVED_AFTER = 1024
"""What was learned is saved once so many choices were learned from: it takes some MB, a choice some KB. Until then the
choices stay in their slots, and after a crash they are learned from again."""

LEARNED_FROM = learning.BATCH_CHOICES // 2
"""Choices that it takes to learn: those of epochs with fewer wait for the next. A step costs the same for few as for
many, and says little."""

ALL_DAYS = -1
"""Where the quality of all days stands among the days."""


class ScorerTotals(msgspec.Struct, array_like=True):
    """How far each partition of `events` is, when it was heard of last, and what is complete. Times are of records."""

    sources: dict[int, SourceProgress] = {}
    heard_ms: dict[int, int] = {}
    started_ms: int = -1
    now_ms: int = -1
    complete_epoch: int = -1


class QualitySums(msgspec.Struct, array_like=True):
    """Choices judged, and the sums of HR@10 and NDCG@10 over them."""

    num: int = 0
    hr_10: float = 0.0
    ndcg_10: float = 0.0


class Learned(msgspec.Struct, array_like=True):
    """All that was learned up to and including `epoch`, under one release; quality by day since 1970."""

    release: str
    epoch: int
    state: learning.ScorerState
    quality: dict[int, QualitySums] = {}


class WaitingChoice(msgspec.Struct, array_like=True):
    """A choice in its slot; `epoch` is the scorer-epoch that it is counted in."""

    epoch: int
    record: ChoiceRecord


LoadSlots = Callable[[Sequence[int]], Mapping[int, WaitingChoice]]
"""Gives the choices in slots as they were before the run."""


@dataclass(frozen=True)
class ServedScorer:
    """What a model brings: its release, and what is learned before anything was (`begin` makes it anew)."""

    release: str
    begin: Callable[[], learning.ScorerState]


class ScorerStage:
    """The state of the one partition of `choices` between runs.

    Args:
        num_sources: Partitions of `events`.
        rule: Scorer-epochs, and how many choices each may have.
        served: The model in force; what was learned under another release is forgotten.
        saved_after: After how many choices what was learned is to be saved.
        learned_from: How many choices are learned from together, at least.
    """

    def __init__(
        self,
        num_sources: int,
        rule: ScoreRule,
        served: ServedScorer,
        *,
        saved_after: int = SAVED_AFTER,
        learned_from: int = LEARNED_FROM,
    ) -> None:
        self.totals = ScorerTotals()
        self.learned = Learned(served.release, -1, served.begin())
        self.saved = self.learned
        self.changed: dict[int, WaitingChoice | None] = {}
        self._num_sources = num_sources
        self._rule = rule
        self._served = served
        # By epoch a heap of (-hash, slot): the choice with the greatest hash comes first.
        self._waiting: dict[int, list[tuple[int, int]]] = {}
        self._free: list[int] = []
        self._saved_after = saved_after
        self._learned_from = learned_from
        self._unsaved: list[int] = []
        self._stale: list[int] = []
        self._num_slots = 0
        self._load: LoadSlots = lambda _: {}

    def restore(
        self,
        totals: ScorerTotals,
        learned: Learned | None,
        slots: Iterable[tuple[int, WaitingChoice | None]],
    ) -> None:
        """Take up the kept state; None is a slot that is free."""
        self.totals = totals
        if learned is not None and learned.release == self._served.release:
            self.learned = self.saved = learned
        taken = dict(slots)
        self._num_slots = max(taken, default=-1) + 1
        for slot in range(self._num_slots):
            choice = taken.get(slot)
            if choice is None:
                heapq.heappush(self._free, slot)
            elif choice.epoch <= self.learned.epoch:
                self._stale.append(slot)  # a crash kept what was learned from it, but not that it is free
            else:
                heapq.heappush(self._waiting.setdefault(choice.epoch, []), (-_hash_of(choice.record), slot))

    def begin_run(self, load: LoadSlots) -> None:
        """Start a run."""
        self._load = load
        self.changed = {}
        self._set_free(self._stale)
        self._stale = []

    def take_choice(self, record: ChoiceRecord, now_ms: int) -> None:
        """Put a choice in a slot; one that was published twice, or under another release, is left out."""
        progress = self._hear(record.partition, now_ms)
        if record.offset <= progress.offset or record.release != self._served.release:
            return
        progress.offset = record.offset
        epoch = max(record.epoch, self.totals.complete_epoch + 1)
        if epoch <= self.learned.epoch:
            return  # read again after a crash that kept what was learned from it
        waiting = self._waiting.setdefault(epoch, [])
        priority = -_hash_of(record)
        if len(waiting) < self._rule.choices_per_epoch:
            slot = self._new_slot()
            heapq.heappush(waiting, (priority, slot))
        elif priority > waiting[0][0]:
            slot = waiting[0][1]
            heapq.heapreplace(waiting, (priority, slot))
        else:
            return
        self.changed[slot] = WaitingChoice(epoch, record)

    def take_progress(self, record: ProgressRecord, now_ms: int) -> list[int]:
        """Note how far a partition is; the complete epochs up to each of which is to be learned now, oldest first."""
        progress = self._hear(record.partition, now_ms)
        progress.epoch = max(progress.epoch, record.epoch)
        progress.strict = record.strict
        self.totals.complete_epoch = max(
            self.totals.complete_epoch, complete_epoch(self.totals.sources, self._num_sources, self._idle())
        )
        due: list[int] = []
        num = 0
        for epoch in sorted(epoch for epoch in self._waiting if epoch <= self.totals.complete_epoch):
            num += len(self._waiting[epoch])
            if num >= self._learned_from:
                due.append(epoch)
                num = 0
        return due

    def learn(self, up_to: int) -> ScorerRecord | None:
        """Learn from the choices of the epochs up to one, which then wait no longer. Not for an event loop: takes long.

        Returns:
            The record to publish; None where another release told of all the choices.
        """
        epochs = [epoch for epoch in self._waiting if epoch <= up_to]
        slots = sorted(slot for epoch in epochs for _, slot in self._waiting.pop(epoch))
        kept = [one.record for one in self._choices_in(slots) if one.record.release == self._served.release]
        if not kept:
            self._set_free(slots)
            return None
        records = sorted(kept, key=_order)
        self.learned = learn_epoch(self.learned, up_to, records)
        self._unsaved += slots
        if len(self._unsaved) >= self._saved_after:
            self.saved = self.learned
            self._set_free(self._unsaved)
            self._unsaved = []
        return scorer_record(self.learned, records)

    def _set_free(self, slots: Iterable[int]) -> None:
        for slot in slots:
            self.changed[slot] = None
            heapq.heappush(self._free, slot)

    def _choices_in(self, slots: Sequence[int]) -> list[WaitingChoice]:
        kept = self._load([slot for slot in slots if slot not in self.changed])
        found = (self.changed.get(slot) or kept.get(slot) for slot in slots)
        return [choice for choice in found if choice is not None]

    def _hear(self, partition: int, now_ms: int) -> SourceProgress:
        if self.totals.started_ms < 0:
            self.totals.started_ms = now_ms
        self.totals.now_ms = max(self.totals.now_ms, now_ms)
        self.totals.heard_ms[partition] = self.totals.now_ms
        return self.totals.sources.setdefault(partition, SourceProgress())

    def _idle(self) -> frozenset[int]:
        totals = self.totals
        since_ms = totals.now_ms - IDLE_MS
        heard_ms = totals.heard_ms
        return frozenset(q for q in range(self._num_sources) if heard_ms.get(q, totals.started_ms) < since_ms)

    def _new_slot(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self._num_slots += 1
        return self._num_slots - 1


def learn_epoch(learned: Learned, epoch: int, records: Sequence[ChoiceRecord]) -> Learned:
    """Judge the scorer on the choices of an epoch, then let it learn from them."""
    scorer = learning.scorer_of(learned.state)
    quality = dict(learned.quality)
    examples: list[learning.Example] = []
    for record in records:
        features_CF = _features_of(record, len(learned.state.feature_names))
        if features_CF is None:
            continue
        if record.is_whole:
            _judge(quality, record, scorer, features_CF)
        if record.chosen >= 0:
            examples.append(_example(record, features_CF))
    days = sorted(day for day in quality if day != ALL_DAYS)
    for day in days[:-KEPT_DAYS]:
        del quality[day]
    return Learned(learned.release, epoch, learning.learn(learned.state, examples), quality)


def scorer_record(learned: Learned, records: Sequence[ChoiceRecord]) -> ScorerRecord:
    """The record that publishes what was learned up to the epoch of `records`."""
    rows = {"all": learned.quality.get(ALL_DAYS), "day": learned.quality.get(records[-1].event_ts // DAY_MS)}
    return ScorerRecord(
        epoch=learned.epoch,
        release=learned.release,
        num_choices=sum(record.chosen >= 0 for record in records),
        scorer=msgspec.Raw(msgspec.json.encode(learning.scorer_of(learned.state))),
        quality={name: _means(sums) for name, sums in rows.items() if sums is not None},
    )


def rank_of(chosen: int, scores_C: npt.NDArray[np.float64]) -> int | None:
    """The place (from 1) of the row `chosen` by score, ties in front of it; None where there is no such row."""
    if chosen < 0:
        return None
    rounded = np.round(scores_C, 6)
    return int((rounded >= rounded[chosen]).sum())


def _judge(
    quality: dict[int, QualitySums],
    record: ChoiceRecord,
    scorer: learning.Scorer,
    features_CF: npt.NDArray[np.float64],
) -> None:
    rank = rank_of(record.chosen, learning.scores(scorer, features_CF))
    hr_10, ndcg_10 = (1.0, 1.0 / math.log2(rank + 1)) if rank is not None and rank <= 10 else (0.0, 0.0)
    for day in (record.event_ts // DAY_MS, ALL_DAYS):
        sums = quality.get(day, QualitySums())
        quality[day] = QualitySums(sums.num + 1, sums.hr_10 + hr_10, sums.ndcg_10 + ndcg_10)


def _example(record: ChoiceRecord, features_CF: npt.NDArray[np.float64]) -> learning.Example:
    if record.is_whole:
        return learning.sample(features_CF, record.chosen, MAX_NEGATIVES)
    return learning.Example(features_CF, record.chosen, record.num_spread, record.weight)


def _features_of(record: ChoiceRecord, num_features: int) -> npt.NDArray[np.float64] | None:
    """The features (C, F) of a choice; None where it has others than the scorer knows."""
    features = unpack_vector(record.features)
    if features.size != record.num_candidates * num_features or record.chosen >= record.num_candidates:
        return None
    return features.reshape(record.num_candidates, num_features).astype(np.float64)


def _means(sums: QualitySums) -> dict[str, float]:
    return {"choices": sums.num, "HR@10": sums.hr_10 / sums.num, "NDCG@10": sums.ndcg_10 / sums.num}


def _order(record: ChoiceRecord) -> tuple[int, str, str]:
    return record.event_ts, record.user_id, record.item_id


def _hash_of(record: ChoiceRecord) -> int:
    return choice_hash(record.user_id, record.event_ts, record.item_id)
