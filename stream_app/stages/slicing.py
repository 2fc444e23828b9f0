"""Cutting a user's events into slices, in event time only.

A slice closes at `slice_events` events, at a gap of more than `gap_ms`, or when it would span more than
`span_ms`, whichever comes first; a silent user's slice is closed by the watermark. No wall clock decides
anything here, so the same log always gives the same slices.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import msgspec

from stream_app.records import Event, SliceEvent, SliceRecord

DUPLICATE = "duplicate"
"""The event is in the history already: the same event_id, or else the same item, type and time."""

LATE_FULL = "late_slice_full"
"""The event is older than the user's newest, and the slice it belongs to holds `slice_events` already."""

LATE_TOO_OLD = "late_too_old"
"""The event is older than the user's newest, and belongs to no slice that may still be repaired."""


@dataclass(frozen=True)
class SlicingRule:
    """When slices close and how much is kept.

    Args:
        slice_events: Events of a full slice.
        gap_ms: Longest gap inside a slice.
        span_ms: Longest span of a slice.
        history_events: Events kept for each user, in whole slices; more where `events_before` needs them.
        repair_slices: How many of the newest slices a late event may still repair; at least 2.
    """

    slice_events: int
    gap_ms: int
    span_ms: int
    history_events: int
    repair_slices: int = 4


class HistoryEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event as the history keeps it; `offset` is its place on the `events` topic."""

    offset: int
    ts: int
    item_id: str
    type: str
    event_id: str | None = None


class Slice(msgspec.Struct, array_like=True):
    """A run of consecutive events, oldest first.

    `revision` counts the changes of the slice, so the same revision always holds the same events.
    `previous_ts` is the time of the user's last event before the slice, -1 where there was none.
    """

    seq: int
    revision: int
    closed: bool
    previous_ts: int
    events: list[HistoryEvent]

    @property
    def first_ts(self) -> int:
        """Time of the oldest event."""
        return self.events[0].ts

    @property
    def last_ts(self) -> int:
        """Time of the newest event."""
        return self.events[-1].ts

    @property
    def newest_offset(self) -> int:
        """Offset of the event taken in last; closing does not change it, whenever that happens."""
        return max(entry.offset for entry in self.events)


class UserHistory(msgspec.Struct, array_like=True):
    """The rolling history of one user: slices oldest first, only the last of them can be open."""

    next_seq: int = 0
    applied: int = 0
    dropped: dict[str, int] = {}
    slices: list[Slice] = []


@dataclass
class Applied:
    """What one event did: the slices it changed, in order, the one it went into, or why it was dropped."""

    changed: list[Slice] = field(default_factory=list)
    into: Slice | None = None
    dropped: str | None = None


def apply_event(history: UserHistory, event: Event, offset: int, rule: SlicingRule) -> Applied:
    """Take one event into `history` (changed in place), in O(history_events).

    Args:
        history: The user's history; the caller's own copy.
        event: A valid event of this user.
        offset: Its place on the `events` topic; greater than that of any event applied before.
        rule: The slicing rule.
    """
    if _is_duplicate(history, event):
        return _drop(history, DUPLICATE)
    entry = HistoryEvent(offset, event.ts, event.item_id, event.type, event.event_id)
    if history.slices and event.ts < history.slices[-1].last_ts:
        return _repair(history, entry, rule)
    history.applied += 1
    changed = _append(history, entry, rule)
    return Applied(changed, changed[-1])


def close_silent(history: UserHistory, watermark_ms: int, rule: SlicingRule) -> Slice | None:
    """Close the open slice if the watermark has passed its deadline; the closed slice, or None."""
    deadline = close_deadline(history, rule)
    if deadline is None or watermark_ms <= deadline:
        return None
    last = history.slices[-1]
    _touch(last, closed=True)
    return last


def events_before(history: UserHistory, part: Slice, limit: int) -> list[SliceEvent]:
    """The newest `limit` events in front of a slice, newest last; fewer where the user has no more. O(limit).

    Args:
        history: Holds the slice.
        part: One of the slices that may still be repaired: the events in front of older ones may be gone.
        limit: At most `slice_events` of the rule.
    """
    found: list[SliceEvent] = []
    place = part.seq - history.slices[0].seq
    while place > 0 and len(found) < limit:
        place -= 1
        found[:0] = _slice_events(history.slices[place])[len(found) - limit :]
    return found


def close_deadline(history: UserHistory, rule: SlicingRule) -> int | None:
    """The watermark (ms) after which the open slice is closed; None where no slice is open."""
    if not history.slices or history.slices[-1].closed:
        return None
    last = history.slices[-1]
    return min(last.last_ts + rule.gap_ms, last.first_ts + rule.span_ms)


def has_item(history: UserHistory, item_id: str) -> bool:
    """Whether an event on the item is in the user's history. O(events kept)."""
    return any(entry.item_id == item_id for part in history.slices for entry in part.events)


def newest_items(history: UserHistory, num_items: int) -> list[str]:
    """The user's newest items, newest first, each once; `num_items` at most."""
    found: dict[str, None] = {}
    for part in reversed(history.slices):
        for entry in reversed(part.events):
            found.setdefault(entry.item_id)
            if len(found) == num_items:
                return list(found)
    return list(found)


def slice_record(
    user_id: str, part: Slice, before: list[SliceEvent], partition: int, *, fresh: bool, join_epoch: int | None
) -> SliceRecord:
    """The record that publishes one revision of a slice; `before` as of `events_before`."""
    return SliceRecord(
        user_id=user_id,
        seq=part.seq,
        revision=part.revision,
        closed=part.closed,
        fresh=fresh,
        events=_slice_events(part),
        before=before,
        partition=partition,
        offset=part.newest_offset,
        join_epoch=join_epoch,
    )


def _slice_events(part: Slice) -> list[SliceEvent]:
    previous = part.previous_ts
    events = []
    for entry in part.events:
        gap_ms = -1 if previous < 0 else max(0, entry.ts - previous)
        events.append(SliceEvent(entry.item_id, entry.type, entry.ts, gap_ms))
        previous = entry.ts
    return events


def _is_duplicate(history: UserHistory, event: Event) -> bool:
    if not history.slices or (event.event_id is None and event.ts > history.slices[-1].last_ts):
        return False
    for part in reversed(history.slices):
        for known in part.events:
            if event.event_id is not None and known.event_id is not None:
                if known.event_id == event.event_id:
                    return True
            elif known.ts == event.ts and known.item_id == event.item_id and known.type == event.type:
                return True
    return False


def _append(history: UserHistory, entry: HistoryEvent, rule: SlicingRule) -> list[Slice]:
    changed: list[Slice] = []
    last = history.slices[-1] if history.slices else None
    if last is not None and not last.closed and not _fits(last, entry.ts, rule):
        _touch(last, closed=True)
        changed.append(last)
    if last is None or last.closed:
        last = Slice(history.next_seq, 0, False, -1 if last is None else last.last_ts, [])
        history.next_seq += 1
        history.slices.append(last)
    last.events.append(entry)
    _touch(last, closed=len(last.events) >= rule.slice_events)
    changed.append(last)
    _trim(history, rule)
    return changed


def _fits(part: Slice, ts: int, rule: SlicingRule) -> bool:
    return ts - part.last_ts <= rule.gap_ms and ts - part.first_ts <= rule.span_ms


def _repair(history: UserHistory, entry: HistoryEvent, rule: SlicingRule) -> Applied:
    part = _slice_around(history.slices[-rule.repair_slices :], entry.ts, rule)
    if part is None:
        return _drop(history, LATE_TOO_OLD)
    if len(part.events) >= rule.slice_events:
        return _drop(history, LATE_FULL)
    place = bisect_right([known.ts for known in part.events], entry.ts)
    part.events.insert(place, entry)
    _touch(part, closed=part.closed or len(part.events) >= rule.slice_events)
    changed = [part, *_tell_followers(history, part, len(part.events) - place - 1, rule)]
    history.applied += 1
    _trim(history, rule)
    return Applied(changed, part)


def _tell_followers(history: UserHistory, part: Slice, num_behind: int, rule: SlicingRule) -> list[Slice]:
    """Touch the slices after `part` that an event inserted there is before; the slices this changed.

    The next slice must know where `part` ends now: else a later event could go in front of it though it is older
    than that end, and the gap of its first event would be wrong. And in a few slices more the event is one of those
    that are published as the events before, or decides the gap of the oldest of these.

    Args:
        history: Holds the slice.
        part: The slice that was repaired.
        num_behind: Its events behind the inserted one.
        rule: The slicing rule.
    """
    followers = history.slices[part.seq - history.slices[0].seq + 1 :]
    changed: list[Slice] = []
    for follower in followers:
        if num_behind > rule.slice_events:
            break
        if not changed:
            follower.previous_ts = part.last_ts
        _touch(follower, closed=follower.closed)
        changed.append(follower)
        num_behind += len(follower.events)
    return changed


def _slice_around(slices: list[Slice], ts: int, rule: SlicingRule) -> Slice | None:
    """The newest slice that would still obey the rule with an event at `ts` in it."""
    for part in reversed(slices):
        near = part.first_ts - rule.gap_ms <= ts <= part.last_ts + rule.gap_ms
        span = max(part.last_ts, ts) - min(part.first_ts, ts)
        if near and span <= rule.span_ms and ts >= part.previous_ts:
            return part
    return None


def _touch(part: Slice, *, closed: bool) -> None:
    part.revision += 1
    part.closed = closed


def _drop(history: UserHistory, reason: str) -> Applied:
    history.dropped = {**history.dropped, reason: history.dropped.get(reason, 0) + 1}
    return Applied(dropped=reason)


def _trim(history: UserHistory, rule: SlicingRule) -> None:
    """Forget the oldest slices, but none that `events_before` gives for a slice that may still be repaired.

    What is published as the events before a slice may not depend on how much was forgotten when.
    """
    total = sum(len(part.events) for part in history.slices)
    while total > rule.history_events:
        left = sum(len(part.events) for part in history.slices[1 : -rule.repair_slices])
        if left < rule.slice_events:
            break
        total -= len(history.slices.pop(0).events)
