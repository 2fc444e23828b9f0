"""Decayed counts and transitions of items, folded once per epoch.

Within an epoch everything is counted in integers, so the order in which activity of different partitions
arrives does not matter; when the epoch is complete, one decay and one addition per item bring the statistics
forward. Hence the same log gives the same trends, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from stream_app.records import ActivityRecord, TrendRecord

MILLI = 1000.0


@dataclass(frozen=True)
class TrendRule:
    """How statistics decay.

    Args:
        epoch_ms: Length of an epoch.
        half_lives_ms: Half-lives of the counts; transitions use the second shortest and the longest.
        max_next: Transitions kept for each item.
        max_published: The strongest of them, published.
    """

    epoch_ms: int
    half_lives_ms: tuple[float, ...]
    max_next: int = 50
    max_published: int = 20

    @property
    def next_half_lives_ms(self) -> tuple[float, float]:
        """Half-lives of the short and the long memory of transitions."""
        ordered = sorted(self.half_lives_ms)
        return ordered[min(1, len(ordered) - 1)], ordered[-1]


class Pending(msgspec.Struct, array_like=True):
    """What was counted in one epoch that is not complete yet (thousandths of weight)."""

    touched_milli: int = 0
    next_milli: dict[str, int] = {}


class ItemStatistics(msgspec.Struct, array_like=True):
    """The statistics of one item at the end of `epoch` (-1: nothing folded yet), and what is pending."""

    first_epoch: int = -1
    epoch: int = -1
    counts: list[float] = []
    next_items: list[tuple[str, float, float]] = []
    pending: dict[int, Pending] = {}


class SourceProgress(msgspec.Struct, array_like=True):
    """How far one partition of `events` has come, as its activity told.

    `offset` orders its records: twice the source offset, plus one for a touch. `strict`: ticks drive its clock.
    """

    offset: int = -1
    epoch: int = -1
    strict: bool = False


def count(statistics: ItemStatistics, activity: ActivityRecord, epoch: int) -> None:
    """Add one touch or transition to the pending counts of `epoch` (changed in place)."""
    pending = statistics.pending.get(epoch)
    if pending is None:
        pending = Pending()
        statistics.pending = {**statistics.pending, epoch: pending}
    if activity.next_item is None:
        pending.touched_milli += activity.weight_milli
    else:
        known = pending.next_milli.get(activity.next_item, 0)
        pending.next_milli = {**pending.next_milli, activity.next_item: known + activity.weight_milli}


def fold(item_id: str, statistics: ItemStatistics, epoch: int, rule: TrendRule) -> TrendRecord | None:
    """Bring the statistics to the end of `epoch` with what was pending for it (changed in place).

    Returns:
        The record to publish, or None where nothing was pending for this epoch.
    """
    pending = statistics.pending.pop(epoch, None)
    if pending is None:
        return None
    passed_ms = (epoch - statistics.epoch) * rule.epoch_ms if statistics.epoch >= 0 else 0
    touched = pending.touched_milli / MILLI
    before = statistics.counts or [0.0] * len(rule.half_lives_ms)
    statistics.counts = [
        value * decay(passed_ms, half_life_ms) + touched
        for value, half_life_ms in zip(before, rule.half_lives_ms, strict=True)
    ]
    statistics.next_items = _fold_next(statistics.next_items, pending, passed_ms, rule)
    statistics.epoch = epoch
    if statistics.first_epoch < 0:
        statistics.first_epoch = epoch
    return TrendRecord(
        item_id=item_id,
        epoch=epoch,
        first_epoch=statistics.first_epoch,
        counts=statistics.counts,
        next_items=statistics.next_items[: rule.max_published],
    )


def decay(passed_ms: float, half_life_ms: float) -> float:
    """The factor by which a count shrinks in `passed_ms`."""
    return float(2.0 ** -(passed_ms / half_life_ms))


def complete_epoch(sources: dict[int, SourceProgress], num_sources: int, idle: frozenset[int]) -> int:
    """The newest epoch that no source can add to any more; -1 where there is none.

    Args:
        sources: Progress of each partition of `events` heard of.
        num_sources: How many partitions `events` has.
        idle: Partitions that need not be waited for. One whose clock ticks drive is waited for all the same.
    """
    awaited = [
        sources[number].epoch if number in sources else -1
        for number in range(num_sources)
        if number not in idle or (number in sources and sources[number].strict)
    ]
    known = [progress.epoch for progress in sources.values()]
    if not known:
        return -1
    return max(-1, (min(awaited) if awaited else max(known)) - 1)


def _fold_next(
    known: list[tuple[str, float, float]], pending: Pending, passed_ms: int, rule: TrendRule
) -> list[tuple[str, float, float]]:
    short_ms, long_ms = rule.next_half_lives_ms
    short_kept, long_kept = decay(passed_ms, short_ms), decay(passed_ms, long_ms)
    scores = {item: (short * short_kept, long * long_kept) for item, short, long in known}
    for item, milli in pending.next_milli.items():
        short, long = scores.get(item, (0.0, 0.0))
        scores[item] = (short + milli / MILLI, long + milli / MILLI)
    ordered = sorted(((item, *score) for item, score in scores.items()), key=lambda row: (-(row[1] + row[2]), row[0]))
    return ordered[: rule.max_next]
