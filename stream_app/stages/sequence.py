"""What the sequence role does with one partition of `events`: histories, slices, activity, timers, totals.

Pure: histories are loaded through a function the caller gives, results are returned. Everything depends on the
records in offset order alone, not on how they are cut into runs, with one stated exception: the open slice of a
user is published once per run. In a replay that does not hold for the users that the scorer learns from: what it
learns must not depend on runs, so each of their events is published.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from stream_app.records import (
    ActivityRecord,
    ErasedRecord,
    Event,
    ProgressRecord,
    SliceEvent,
    SliceRecord,
    StatusRecord,
)
from stream_app.stages.clock import PartitionClock
from stream_app.stages.popularity import NUM_BEFORE
from stream_app.stages.score_rule import ScoreRule
from stream_app.stages.slicing import (
    Slice,
    SlicingRule,
    UserHistory,
    apply_event,
    close_deadline,
    close_silent,
    events_before,
    has_item,
    newest_items,
    slice_record,
)


class PartitionTotals(msgspec.Struct, array_like=True):
    """Facts of the partition that belong to no user: its clock, and what was dead-lettered, by reason.

    `applied` and `dropped` count what no history counts any more: the events of histories that were erased, and the
    erasures.
    """

    clock: PartitionClock = msgspec.field(default_factory=PartitionClock)
    dead_lettered: dict[str, int] = {}
    applied: int = 0
    dropped: dict[str, int] = {}


@dataclass
class KeptHistory:
    """A history with the source position it reflects (-1: new)."""

    history: UserHistory
    position: int = -1


Load = Callable[[Sequence[str]], Mapping[str, KeptHistory]]
"""Gives the kept histories of users; users without one are left out."""


@dataclass
class SequenceEffects:
    """What a run caused, in order of publication, and the histories it changed, and those it `removed`.

    `erased` stand between the slices, by their offsets. `progress` is to be published behind the slices, where the
    partition has come to another scorer-epoch.
    """

    slices: list[SliceRecord] = field(default_factory=list)
    erased: list[ErasedRecord] = field(default_factory=list)
    progress: ProgressRecord | None = None
    activity: list[ActivityRecord] = field(default_factory=list)
    changed: dict[str, KeptHistory] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def published(self) -> list[SliceRecord | ErasedRecord]:
        """What is to be published for users, in order."""
        return sorted([*self.slices, *self.erased], key=lambda record: record.offset)


@dataclass
class _Touched:
    """A user's slices that changed in this run, and slice and clock of the event applied last.

    `before` are the events before each of them. They are taken when the slice is touched, not when the run ends: by
    then a long run may have forgotten them. While nothing in front of the slice is repaired they stay the same.
    """

    slices: dict[int, Slice] = field(default_factory=dict)
    before: dict[int, list[SliceEvent]] = field(default_factory=dict)
    fresh: Slice | None = None
    join_epoch: int | None = None


class SequenceStage:
    """The state of one partition between runs.

    Args:
        partition: Number of the partition.
        rule: The slicing rule.
        epoch_ms: Length of an epoch of trends.
        allowed_lateness_ms: How far the watermark stays behind.
        weights_milli: Weight of each event type in thousandths.
        score: Scorer-epochs, and whom the scorer learns from.
    """

    def __init__(
        self,
        partition: int,
        rule: SlicingRule,
        *,
        epoch_ms: int,
        allowed_lateness_ms: int,
        weights_milli: Mapping[str, int],
        score: ScoreRule,
    ) -> None:
        self.partition = partition
        self.totals = PartitionTotals()
        self.num_users = 0
        self.applied = 0
        self.dropped: dict[str, int] = {}
        self._rule = rule
        self._epoch_ms = epoch_ms
        self._allowed_lateness_ms = allowed_lateness_ms
        self._weights_milli = weights_milli
        self._score = score
        self._timers: list[tuple[int, str]] = []
        self._timed: dict[str, int] = {}
        self._marked: tuple[int, bool] | None = None
        self._progress: ProgressRecord | None = None
        self._begin({}, lambda _: {})

    def restore(self, histories: Iterable[tuple[str, UserHistory]], totals: PartitionTotals | None) -> None:
        """Take up the kept state: count totals and set the timers of open slices."""
        self.totals = totals or PartitionTotals()
        self.applied, self.dropped = self.totals.applied, dict(self.totals.dropped)
        for user_id, history in histories:
            self.num_users += 1
            self.applied += history.applied
            self.dropped = _sum_of(self.dropped, history.dropped)
            self._set_timer(user_id, history)

    def begin_run(self, users: Sequence[str], load: Load) -> None:
        """Start a run whose events belong to `users`."""
        self._begin(dict(load(users)), load)

    def take_event(self, event: Event, offset: int, *, strict: bool, is_counted: bool = False) -> None:
        """Apply one valid event; one whose offset its user's history reflects already changes nothing. Nor does one
        that `is_counted` in the totals: if its user has no history, that was erased.

        A `strict` event (of a replay) moves no clock, only ticks do: else whether a late event finds its slice
        closed would depend on who else is in the partition.
        """
        if not strict:
            self.totals.clock.advance(event.ts)
        if not is_counted and offset > (kept := self._kept(event.user_id)).position:
            self._apply(event, offset, kept, strict=strict)
        self._close_silent(offset)

    def take_erasure(self, user_id: str, offset: int, *, is_counted: bool = False) -> None:
        """Forget a user, unless the history is one that began behind this erasure. It moves no clock."""
        kept = self._found(user_id)
        if kept is not None and kept.position < offset:
            self._forget(user_id, kept.history, is_counted=is_counted)
        if not is_counted:
            self.applied += 1
            self.totals.applied += 1
            self._effects.erased.append(ErasedRecord(user_id=user_id, partition=self.partition, offset=offset))

    def take_tick(self, ts_ms: int, offset: int, *, last: bool) -> None:
        """Event time has come to `ts_ms`: all events before it were sent. The last tick lets go of the clock."""
        self.totals.clock.advance(ts_ms)
        self.totals.clock.strict = not last
        self._close_silent(offset)

    def take_dead_letter(self, reason: str) -> None:
        """Count a record that is no valid event."""
        known = self.totals.dead_lettered
        self.totals.dead_lettered = {**known, reason: known.get(reason, 0) + 1}

    def end_run(self, last_offset: int, num_activity_partitions: int) -> SequenceEffects:
        """What the run caused. One mark of progress for each activity partition is added when time moved on."""
        effects = self._effects
        records = self._sampled + [
            record for user_id, touched in self._touched.items() for record in self._records_of(user_id, touched)
        ]
        # In order of their newest events: a user's fresh slice comes last, so its list knows of all others; and the
        # epochs that lists join never go back, wherever a reader's runs begin.
        effects.slices.extend(sorted(records, key=lambda record: (record.offset, record.seq)))
        effects.removed.extend(user_id for user_id in self._forgotten if user_id not in effects.changed)
        self._effects.progress = self._new_progress()
        mark = (self.totals.clock.epoch(self._epoch_ms), self.totals.clock.strict)
        if mark != self._marked:
            self._marked = mark
            effects.activity.extend(
                ActivityRecord(partition=self.partition, offset=last_offset, epoch=mark[0], strict=mark[1])
                for _ in range(num_activity_partitions)
            )
        return effects

    def status(self, offset: int) -> StatusRecord:
        """The totals up to and including `offset`."""
        dead_lettered = sum(self.totals.dead_lettered.values())
        return StatusRecord(
            partition=self.partition,
            offset=offset,
            events=self.applied + dead_lettered + sum(self.dropped.values()),
            applied=self.applied,
            dead_lettered=dead_lettered,
            dropped=dict(sorted(self.dropped.items())),
            users=self.num_users,
            watermark_ms=self.totals.clock.watermark_ms(self._allowed_lateness_ms),
        )

    def _new_progress(self) -> ProgressRecord | None:
        """The mark of progress, where it says something new."""
        clock = self.totals.clock
        progress = ProgressRecord(
            partition=self.partition, epoch=self._score.epoch_at(clock.newest_ms), strict=clock.strict
        )
        if progress == self._progress or clock.newest_ms < 0:
            return None
        self._progress = progress
        return progress

    def _begin(self, loaded: dict[str, KeptHistory], load: Load) -> None:
        self._loaded = loaded
        self._load = load
        self._touched: dict[str, _Touched] = {}
        self._forgotten: dict[str, None] = {}
        self._sampled: list[SliceRecord] = []
        self._effects = SequenceEffects()

    def _kept(self, user_id: str) -> KeptHistory:
        kept = self._found(user_id)
        if kept is None:
            kept = KeptHistory(UserHistory())
            self.num_users += 1
            self._loaded[user_id] = kept
        return kept

    def _found(self, user_id: str) -> KeptHistory | None:
        kept = self._loaded.get(user_id)
        if kept is None and user_id not in self._forgotten:
            kept = self._load([user_id]).get(user_id)
            if kept is not None:
                self._loaded[user_id] = kept
        return kept

    def _forget(self, user_id: str, history: UserHistory, *, is_counted: bool) -> None:
        """Forget a history and all that it caused in this run but what the scorer learns from.

        Of an erasure `is_counted` in the totals the worker before died before the history was gone: it was counted
        twice since.
        """
        if is_counted:
            self.applied -= history.applied
            self.dropped = _sum_of(self.dropped, {reason: -num for reason, num in history.dropped.items()})
        else:
            self.totals.applied += history.applied
            self.totals.dropped = _sum_of(self.totals.dropped, history.dropped)
        self.num_users -= 1
        self._forgotten[user_id] = None
        for known in (self._loaded, self._touched, self._timed, self._effects.changed):
            known.pop(user_id, None)

    def _apply(self, event: Event, offset: int, kept: KeptHistory, *, strict: bool) -> None:
        history = kept.history
        newest_ts = history.slices[-1].last_ts if history.slices else -1
        before = newest_items(history, NUM_BEFORE) if event.ts >= newest_ts else []
        is_new_item = not has_item(history, event.item_id)
        outcome = apply_event(history, event, offset, self._rule)
        self._changed(event.user_id, kept, offset)
        if outcome.dropped is not None:
            self.dropped[outcome.dropped] = self.dropped.get(outcome.dropped, 0) + 1
            return
        self.applied += 1
        epoch = self.totals.clock.epoch(self._epoch_ms)
        is_sampled = strict and self._score.is_sampled(event.user_id.encode("utf-8", "surrogatepass"))
        touched = _Touched() if is_sampled else self._touched.setdefault(event.user_id, _Touched())
        touched.fresh, touched.join_epoch = outcome.into, epoch - 1 if strict else None
        is_repair = outcome.into is not history.slices[-1]
        for part in outcome.changed:
            self._touch(history, part, touched, has_other_past=is_repair)
        if is_sampled:
            self._publish_now(event.user_id, touched)
        if is_new_item:
            # Only then: lists offer what is new to their users, and repeats say nothing of that.
            self._effects.activity.append(self._activity(event, offset, epoch, before))
        self._set_timer(event.user_id, history)

    def _publish_now(self, user_id: str, touched: _Touched) -> None:
        """Publish what one event of a sampled user changed; at the end of the run these slices need it no more."""
        self._sampled.extend(self._records_of(user_id, touched, sampled=True))
        if (known := self._touched.get(user_id)) is not None:
            known.fresh = None
            for seq in touched.slices:
                known.slices.pop(seq, None)
                known.before.pop(seq, None)

    def _activity(self, event: Event, offset: int, epoch: int, before: list[str]) -> ActivityRecord:
        return ActivityRecord(
            partition=self.partition,
            offset=offset,
            epoch=epoch,
            strict=self.totals.clock.strict,
            item_id=event.item_id,
            weight_milli=self._weights_milli.get(event.type, 1000),
            before=tuple(before),
        )

    def _changed(self, user_id: str, kept: KeptHistory, offset: int) -> None:
        kept.position = offset
        self._effects.changed[user_id] = kept

    def _set_timer(self, user_id: str, history: UserHistory) -> None:
        deadline = close_deadline(history, self._rule)
        # A later deadline is looked up when the timer goes off; an earlier one (a late event came in front of
        # the slice) needs a timer of its own.
        if deadline is not None and deadline < self._timed.get(user_id, deadline + 1):
            self._timed[user_id] = deadline
            heapq.heappush(self._timers, (deadline, user_id))

    def _close_silent(self, offset: int) -> None:
        watermark_ms = self.totals.clock.watermark_ms(self._allowed_lateness_ms)
        while self._timers and self._timers[0][0] < watermark_ms:
            deadline, user_id = heapq.heappop(self._timers)
            if self._timed.get(user_id) != deadline:
                continue
            del self._timed[user_id]
            kept = self._kept(user_id)
            closed = close_silent(kept.history, watermark_ms, self._rule)
            if closed is None:
                self._set_timer(user_id, kept.history)
                continue
            self._changed(user_id, kept, offset)
            touched = self._touched.setdefault(user_id, _Touched())
            self._touch(kept.history, closed, touched, has_other_past=False)

    def _touch(self, history: UserHistory, part: Slice, touched: _Touched, *, has_other_past: bool) -> None:
        touched.slices[part.seq] = part
        if has_other_past or part.seq not in touched.before:
            touched.before[part.seq] = events_before(history, part, self._rule.slice_events)

    def _records_of(self, user_id: str, touched: _Touched, *, sampled: bool = False) -> Iterable[SliceRecord]:
        for part in touched.slices.values():
            fresh = part is touched.fresh
            join_epoch = touched.join_epoch if fresh else None
            before = touched.before[part.seq]
            record = slice_record(user_id, part, before, self.partition, fresh=fresh, join_epoch=join_epoch)
            yield msgspec.structs.replace(record, sampled=True) if sampled and fresh else record


def _sum_of(counts: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    """The counts together."""
    return {**counts, **{name: counts.get(name, 0) + num for name, num in others.items()}}
