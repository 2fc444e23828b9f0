"""Trends as they would be, had a user's activity been another.

Only the items that the difference touches are counted anew, from all users' activity with them; no item's statistics
depend on another's. Others' activity keeps the epochs that it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from stream_app.records import ActivityRecord, TrendRecord
from stream_app.stages.popularity import ItemStatistics, TrendRule, count, fold

Place = tuple[int, int]
"""Source partition and offset, and whether it is a transition: an event causes at most one of each."""


@dataclass(frozen=True)
class ActivityChange:
    """A user's activity that would be gone, and that would be new."""

    gone: frozenset[Place] = frozenset()
    new: tuple[ActivityRecord, ...] = ()
    items: frozenset[str] = field(default_factory=frozenset)


def activity_change(before: Sequence[ActivityRecord], after: Sequence[ActivityRecord]) -> ActivityChange:
    """What differs between a user's activity with and without an event, and the items whose statistics that touches."""
    gone, new = set(before) - set(after), set(after) - set(before)
    items = frozenset(record.item_id for record in gone | new if record.item_id is not None)
    return ActivityChange(frozenset(map(place_of, gone)), tuple(record for record in after if record in new), items)


def place_of(record: ActivityRecord) -> Place:
    """The place of a touch in the log."""
    return record.partition, record.offset


def count_again(activity: Iterable[ActivityRecord], epoch: int, rule: TrendRule) -> dict[str, TrendRecord]:
    """The newest trend records, as of `epoch`, of all items touched, by item id.

    Args:
        activity: All touches of these items, in any order; what is there twice counts once.
        epoch: Later activity is left out.
        rule: How statistics decay.
    """
    statistics: dict[str, ItemStatistics] = {}
    counted: set[Place] = set()
    for record in activity:
        place = place_of(record)
        if record.item_id is None or record.epoch > epoch or place in counted:
            continue
        counted.add(place)
        count(statistics.setdefault(record.item_id, ItemStatistics()), record, record.epoch)
    newest: dict[str, TrendRecord] = {}
    for item_id, kept in statistics.items():
        for pending in sorted(kept.pending):
            made = fold(item_id, kept, pending, rule)
            if made is not None:
                newest[item_id] = made
    return newest


def without_places(activity: Iterable[ActivityRecord], change: ActivityChange) -> list[ActivityRecord]:
    """All activity with the change made: what is gone left out, what is new added."""
    return [*(record for record in activity if place_of(record) not in change.gone), *change.new]
