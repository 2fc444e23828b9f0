"""Decayed counts of items and of what came before them, folded once per epoch.

Within an epoch everything is counted in integers, so the order in which activity of different partitions
arrives does not matter; when the epoch is complete, one decay and one addition per item bring the statistics
forward. Hence the same log gives the same trends, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from stream_app.records import ActivityRecord, TrendRecord

MILLI = 1000.0

PLACE_WEIGHTS_MILLI = (1000, 800, 640, 512, 410, 328, 262, 210, 168, 134)
"""How much an item counts as a predecessor, by the number of other items that the user touched in between
(thousandths)."""

NUM_BEFORE = len(PLACE_WEIGHTS_MILLI)
"""Newest items of a user that a touch is counted with."""


@dataclass(frozen=True)
class TrendRule:
    """How statistics decay.

    Args:
        epoch_ms: Length of an epoch.
        half_lives_ms: Half-lives of the counts; predecessors use the middle one and the longest.
        max_predecessors: Predecessors kept for each item.
        max_published: The strongest of them, published.
    """

    epoch_ms: int
    half_lives_ms: tuple[float, ...]
    max_predecessors: int = 50
    max_published: int = 30

    @property
    def pair_half_lives_ms(self) -> tuple[float, float]:
        """Half-lives of the short and the long memory of predecessors."""
        ordered = sorted(self.half_lives_ms)
        return ordered[(len(ordered) - 1) // 2], ordered[-1]


class Pending(msgspec.Struct, array_like=True):
    """What was counted in one epoch that is not complete yet (thousandths of weight)."""

    touched_milli: int = 0
    before_milli: dict[str, int] = {}


class ItemStatistics(msgspec.Struct, array_like=True):
    """The statistics of one item at the end of `epoch` (-1: nothing folded yet), and what is pending."""

    first_epoch: int = -1
    epoch: int = -1
    counts: list[float] = []
    predecessors: list[tuple[str, float, float]] = []
    pending: dict[int, Pending] = {}


class SourceProgress(msgspec.Struct, array_like=True):
    """How far one partition of `events` has come, as its activity told.

    `offset` is that of the newest touch. `strict`: ticks drive its clock.
    """

    offset: int = -1
    epoch: int = -1
    strict: bool = False


def count(statistics: ItemStatistics, touch: ActivityRecord, epoch: int) -> None:
    """Add one touch to the pending counts of `epoch` (changed in place)."""
    pending = statistics.pending.get(epoch)
    if pending is None:
        pending = Pending()
        statistics.pending = {**statistics.pending, epoch: pending}
    pending.touched_milli += touch.weight_milli
    before_milli = dict(pending.before_milli)
    for item_id, place_milli in zip(touch.before, PLACE_WEIGHTS_MILLI, strict=False):
        before_milli[item_id] = before_milli.get(item_id, 0) + touch.weight_milli * place_milli // 1000
    pending.before_milli = before_milli


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
    statistics.predecessors = _fold_pairs(statistics.predecessors, pending.before_milli, passed_ms, rule)
    statistics.epoch = epoch
    if statistics.first_epoch < 0:
        statistics.first_epoch = epoch
    return TrendRecord(
        item_id=item_id,
        epoch=epoch,
        first_epoch=statistics.first_epoch,
        counts=statistics.counts,
        predecessors=statistics.predecessors[: rule.max_published],
    )


def decay(passed_ms: float, half_life_ms: float) -> float:
    """The factor by which a count shrinks in `passed_ms`."""
    return float(2.0 ** -(passed_ms / half_life_ms))


def complete_epoch(sources: dict[int, SourceProgress], num_sources: int, idle: frozenset[int]) -> int:
    """The newest epoch that no source can add to any more; -1 where there is none.

    Args:
        sources: Progress of each partition of `events` heard of.
        num_sources: How many partitions `events` has.
        idle: Partitions that need not be waited for, unless ticks drive the clock of any: a replay sends them to every
            partition, so from each of them something will come, however late.
    """
    is_replay = any(progress.strict for progress in sources.values())
    awaited = [
        sources[number].epoch if number in sources else -1
        for number in range(num_sources)
        if is_replay or number not in idle
    ]
    known = [progress.epoch for progress in sources.values()]
    if not known:
        return -1
    return max(-1, (min(awaited) if awaited else max(known)) - 1)


def _fold_pairs(
    known: list[tuple[str, float, float]], counted_milli: dict[str, int], passed_ms: int, rule: TrendRule
) -> list[tuple[str, float, float]]:
    short_ms, long_ms = rule.pair_half_lives_ms
    short_kept, long_kept = decay(passed_ms, short_ms), decay(passed_ms, long_ms)
    scores = {item: (short * short_kept, long * long_kept) for item, short, long in known}
    for item, milli in counted_milli.items():
        short, long = scores.get(item, (0.0, 0.0))
        scores[item] = (short + milli / MILLI, long + milli / MILLI)
    ordered = sorted(((item, *score) for item, score in scores.items()), key=lambda row: (-(row[1] + row[2]), row[0]))
    return ordered[: rule.max_predecessors]
