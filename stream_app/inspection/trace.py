"""What became of each of a user's events, and why slices closed: the sequence stage, watched record by record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from stream_app.inspection.user_log import Entry
from stream_app.records import STRICT_HEADER, ActivityRecord, Erasure, Event, SliceRecord
from stream_app.settings import Settings
from stream_app.settings_rules import sequence_stage, slicing_rule
from stream_app.stages.clean import Rejection
from stream_app.stages.intake import Content, take_record
from stream_app.stages.sequence import KeptHistory, SequenceEffects
from stream_app.stages.slicing import SlicingRule

APPLIED, APPLIED_LATE, DEAD_LETTER, ERASED = "applied", "applied_late", "dead_letter", "erased"
"""Outcomes of a record; the other ones are the names under which dropped events are counted. `erased` is that of an
erasure: all before it is forgotten."""

FULL, GAP, SPAN, SILENCE = "full", "gap", "span", "silence"
"""Why a slice closed: it was full, the user's next event was too far from its end or its start, or the partition's
watermark passed the time up to which it could have grown."""

_STRICT = ((STRICT_HEADER, b"1"),)


class TracedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One of the user's records and what became of it.

    `slice` is the number of the slice that it went into. A dead letter has no fields of an event; `detail` says why.
    """

    offset: int
    outcome: str
    ts: int | None = None
    item_id: str | None = None
    type: str | None = None
    event_id: str | None = None
    slice: int | None = None
    detail: str | None = None


@dataclass
class Trace:
    """What the sequence role makes of one user's records. But for `events` and `activity` this begins behind the newest
    erasure.

    Args:
        events: Each record with its outcome, in order of offset.
        revisions: Every revision of every slice, in order.
        closed_by: Why each closed slice ended, by its number.
        kept: Numbers of the slices still in the history.
        activity: The user's touches and transitions.
        answered: The revision that the newest event went into; a list answers it.
    """

    events: list[TracedEvent] = field(default_factory=list)
    revisions: list[SliceRecord] = field(default_factory=list)
    closed_by: dict[int, str] = field(default_factory=dict)
    kept: frozenset[int] = frozenset()
    activity: list[ActivityRecord] = field(default_factory=list)
    answered: SliceRecord | None = None


def trace(user_id: str, partition: int, entries: Sequence[Entry], settings: Settings) -> Trace:
    """Follow a user through the sequence stage.

    Args:
        user_id: The user.
        partition: The user's partition of `events`.
        entries: The user's log.
        settings: How the stream is cut.
    """
    tracer = _Tracer(user_id, partition, settings)
    for entry in entries:
        tracer.take(entry)
    made = tracer.trace
    made.kept = frozenset(part.seq for part in tracer.kept.history.slices) if tracer.kept is not None else frozenset()
    return made


class _Tracer:
    """The stage, its state, and what was seen of it so far."""

    def __init__(self, user_id: str, partition: int, settings: Settings) -> None:
        self.trace = Trace()
        self.kept: KeptHistory | None = None
        self._user_id = user_id
        self._rule = slicing_rule(settings)
        self._stage = sequence_stage(settings, partition)
        self._stage.restore([], None)

    def take(self, entry: Entry) -> None:
        """One record as a run of its own, so that everything seen is its doing."""
        slices = self.kept.history.slices if self.kept is not None else []
        newest_ms = slices[-1].last_ts if slices else -1
        dropped = dict(self._stage.dropped)
        self._stage.begin_run([], self._load)
        headers = _STRICT if entry.is_strict else ()
        take_record(self._stage, entry.content, entry.offset, headers, is_counted=False)
        effects = self._stage.end_run(entry.offset, 0)
        self.kept = effects.changed.get(self._user_id, self.kept)
        if effects.erased:
            self._begin_anew(entry)
            return
        reasons = [name for name, num in self._stage.dropped.items() if num > dropped.get(name, 0)]
        self._note(entry, effects, reasons[0] if reasons else None, newest_ms)

    def _begin_anew(self, entry: Entry) -> None:
        """Forget what was seen of the user's slices."""
        made, self.kept = self.trace, None
        made.revisions, made.closed_by, made.answered = [], {}, None
        ts = entry.content.ts if isinstance(entry.content, Erasure) else None
        made.events.append(TracedEvent(offset=entry.offset, outcome=ERASED, ts=ts))

    def _load(self, users: Sequence[str]) -> dict[str, KeptHistory]:
        return {user: self.kept for user in users if self.kept is not None}

    def _note(self, entry: Entry, effects: SequenceEffects, dropped: str | None, newest_ms: int) -> None:
        made, content = self.trace, entry.content
        fresh = next((record for record in effects.slices if record.fresh), None)
        if isinstance(content, Rejection):
            detail = f"{content.reason}: {content.detail}"
            made.events.append(TracedEvent(offset=entry.offset, outcome=DEAD_LETTER, detail=detail))
        elif isinstance(content, Event):
            late = APPLIED_LATE if content.ts < newest_ms else APPLIED
            made.events.append(_traced(content, entry.offset, dropped or late, None if fresh is None else fresh.seq))
        for record in effects.slices:
            if record.closed and record.seq not in made.closed_by:
                made.closed_by[record.seq] = _why_closed(record, content, fresh, self._rule)
        made.revisions.extend(effects.slices)
        made.activity.extend(effects.activity)
        made.answered = fresh or made.answered


def _traced(event: Event, offset: int, outcome: str, seq: int | None) -> TracedEvent:
    return TracedEvent(
        offset=offset,
        outcome=outcome,
        ts=event.ts,
        item_id=event.item_id,
        type=event.type,
        event_id=event.event_id,
        slice=seq,
    )


def _why_closed(record: SliceRecord, content: Content, fresh: SliceRecord | None, rule: SlicingRule) -> str:
    """Why this revision is the first closed one of its slice; `content` is the record that caused it."""
    if len(record.events) >= rule.slice_events:
        return FULL
    gave_way = isinstance(content, Event) and fresh is not None and record.seq != fresh.seq
    if not gave_way or not isinstance(content, Event):
        return SILENCE
    return GAP if content.ts - record.events[-1].ts > rule.gap_ms else SPAN
