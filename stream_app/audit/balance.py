"""Every event is accounted for: applied, a dead letter, or dropped under a name.

Three independent counts are held against each other: the events on the topic, the totals of the role (`status`), and
what the kept histories and dead letters say themselves.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from stream_app.audit.findings import Check
from stream_app.records import StatusRecord
from stream_app.stages.intake import Content, Tick

NOTHING_READ = StatusRecord(
    partition=-1, offset=-1, events=0, applied=0, dead_lettered=0, dropped={}, users=0, watermark_ms=-1
)
"""Of a partition that nothing was read of yet."""


class EventCounter:
    """Counts the events of one partition (ticks are none) up to and including each of some offsets (at least one)."""

    def __init__(self, offsets: Iterable[int]) -> None:
        self._offsets = sorted(set(offsets))
        self._num = [0] * (len(self._offsets) + 1)

    def take(self, offsets: Sequence[int], contents: Sequence[Content]) -> None:
        """Take consecutive records."""
        for offset, content in zip(offsets, contents, strict=True):
            if not isinstance(content, Tick):
                # Counts for the first of the asked offsets that is not below it, and so for all after that.
                self._num[bisect_left(self._offsets, offset)] += 1

    @property
    def newest(self) -> int:
        """The greatest of the asked offsets."""
        return self._offsets[-1]

    def counts(self) -> dict[int, int]:
        """Events at or below each of the asked offsets."""
        return dict(zip(self._offsets, accumulate(self._num), strict=False))


@dataclass(frozen=True)
class Sums:
    """What the kept histories and totals of a partition add up to, and the source position that they reflect.

    `is_settled` tells that no kept value reflects anything beyond `position`, and nothing below it can be missing;
    while the role is at work the values are of several moments, and their sum means nothing.
    """

    position: int
    applied: int
    dead_lettered: Mapping[str, int]
    dropped: Mapping[str, int]
    is_settled: bool

    @property
    def events(self) -> int:
        """All of them."""
        return self.applied + sum(self.dead_lettered.values()) + sum(self.dropped.values())


@dataclass(frozen=True)
class Intake:
    """What is known of one partition of `events`.

    Args:
        topic: Full name of the topic.
        partition: The partition.
        begin: Its first offset that is still there.
        committed: Offset of the next event that the role will read; None where it committed none.
        status: The newest totals that the role published.
        sums: What it kept; None where it kept nothing.
        num_events: Events on the topic at or below some offsets: those of `status` and `sums`.
        letters: Dead letters of this partition up to the position of `sums`, by reason, each event once.
        letters_begin: First offset of the dead letters that is still there.
    """

    topic: str
    partition: int
    begin: int
    committed: int | None = None
    status: StatusRecord | None = None
    sums: Sums | None = None
    num_events: Mapping[int, int] = field(default_factory=dict)
    letters: Mapping[str, int] = field(default_factory=dict)
    letters_begin: int = 0


def judge_intake(check: Check, intakes: Sequence[Intake]) -> None:
    """Hold the counts of all partitions against each other; the figures go to the facts of `check`."""
    rows = []
    for intake in intakes:
        check.num_checked += 1
        rows.append(_judge(check, intake))
    total = _total(rows)
    check.facts = {"partitions": rows, "total": total}
    dropped = ", ".join(f"{reason} {num}" for reason, num in total["dropped"].items())
    check.summary = (
        f"{total['in']:,} events = {total['applied']:,} applied + {total['dead_lettered']:,} dead letters + "
        f"{sum(total['dropped'].values()):,} dropped{f' ({dropped})' if dropped else ''}; missing {total['missing']:,}"
    )


def _judge(check: Check, intake: Intake) -> dict[str, Any]:
    where: dict[str, Any] = {"topic": intake.topic, "partition": intake.partition}
    _judge_removed(check, intake, where)
    status, sums = intake.status, intake.sums
    if status is None:
        if intake.committed or sums is not None:
            check.breach(f"no status, committed up to {intake.committed}", "totals of all that was worked off", **where)
        return _row(intake.partition, NOTHING_READ)
    position = -1 if sums is None else sums.position
    if intake.committed is not None and position < intake.committed - 1:
        seen = f"kept totals of offset {position}, committed up to {intake.committed}"
        check.breach(seen, "commits only of what is kept", **where)
    row = _judge_status(check, intake, status, position, where)
    if sums is not None:
        _judge_sums(check, intake, sums, row["removed"], where)
        _judge_letters(check, intake, sums, where)
    return row


def _judge_removed(check: Check, intake: Intake, where: dict[str, Any]) -> None:
    unread = intake.begin - (intake.committed or 0)
    if intake.committed is not None and unread > 0:
        seen = f"the log begins at {intake.begin}, but only what is below {intake.committed} was worked off"
        check.breach(f"{seen}: {unread} offsets were removed unread", "no retention before an event is read", **where)


def _judge_status(
    check: Check, intake: Intake, status: StatusRecord, position: int, where: dict[str, Any]
) -> dict[str, Any]:
    accounted = status.applied + status.dead_lettered + sum(status.dropped.values())
    if status.events != accounted:
        seen = f"status of offset {status.offset}: {status.events} events, but {accounted} accounted for"
        check.breach(seen, "events = applied + dead letters + drops", **where)
    # A role that reads some events again after a crash tells the totals of all it has kept with the offset it is at.
    found = intake.num_events[status.offset]
    if position > status.offset and intake.num_events[position] == accounted:
        found = accounted
    removed = accounted - found
    missing = -removed
    if intake.begin and 0 <= removed <= intake.begin:
        check.note(
            f"{intake.topic}[{intake.partition}]: retention removed what is below offset {intake.begin}; "
            f"by the totals {removed:,} events were there"
        )
        missing = 0
    elif missing:
        seen = f"{found} events up to offset {status.offset}, {accounted} accounted for: missing {missing}"
        check.breach(seen, "missing 0", offset=status.offset, **where)
    return _row(intake.partition, status, removed=removed if not missing else 0, missing=missing)


def _judge_sums(check: Check, intake: Intake, sums: Sums, removed: int, where: dict[str, Any]) -> None:
    if not sums.is_settled:
        what = f"the sum of the histories of {intake.topic}[{intake.partition}]"
        check.leave_out(what, "the role is at work, so they are of several moments; its own totals were checked")
        return
    found = intake.num_events[sums.position] + removed
    if sums.events != found:
        parts = f"{sums.applied} applied, {sum(sums.dead_lettered.values())} dead letters, {dict(sums.dropped)} dropped"
        check.breach(
            f"the kept histories hold {sums.events} events up to offset {sums.position} ({parts})",
            f"{found}, as on the topic",
            offset=sums.position,
            **where,
        )


def _judge_letters(check: Check, intake: Intake, sums: Sums, where: dict[str, Any]) -> None:
    if intake.letters_begin:
        what = f"the number of dead letters of {intake.topic}[{intake.partition}]"
        check.leave_out(what, f"retention removed those below offset {intake.letters_begin} of their topic")
        return
    for reason in sorted({*intake.letters, *sums.dead_lettered}):
        counted, found = sums.dead_lettered.get(reason, 0), intake.letters.get(reason, 0)
        if counted != found:
            seen = f"{found} dead letters for {reason} up to offset {sums.position}"
            check.breach(seen, f"{counted}, as the totals count", **where)


def _row(partition: int, status: StatusRecord, *, removed: int = 0, missing: int = 0) -> dict[str, Any]:
    accounted = status.applied + status.dead_lettered + sum(status.dropped.values())
    return {
        "partition": partition,
        "in": accounted + missing,
        "applied": status.applied,
        "dead_lettered": status.dead_lettered,
        "dropped": dict(status.dropped),
        "removed": removed,
        "missing": missing,
    }


def _total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    for row in rows:
        dropped.update(row["dropped"])
    names = ("in", "applied", "dead_lettered", "removed", "missing")
    return {**{name: sum(row[name] for row in rows) for name in names}, "dropped": dict(sorted(dropped.items()))}
