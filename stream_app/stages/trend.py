"""What the trend role does with one partition of `item-activity`: count, and fold complete epochs.

Pure. Two kinds of repeats are told apart: a record read twice has an offset its item reflects already; a record
published twice (by a sequence worker that died) has a source position at or below the source's progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from stream_app.records import ActivityRecord, TrendRecord
from stream_app.stages.popularity import (
    ItemStatistics,
    SourceProgress,
    TrendRule,
    complete_epoch,
    count,
    fold,
)


class TrendTotals(msgspec.Struct, array_like=True):
    """Facts of the partition: progress of its sources, and the newest complete epoch."""

    sources: dict[int, SourceProgress] = {}
    complete_epoch: int = -1


Load = Callable[[Sequence[str]], Mapping[str, tuple[int, ItemStatistics]]]
"""Gives positions and statistics of items; items without any are left out."""


class TrendStage:
    """The state of one partition between runs.

    Args:
        num_sources: Partitions of `events`.
        rule: How statistics decay.
    """

    def __init__(self, num_sources: int, rule: TrendRule) -> None:
        self.num_sources = num_sources
        self.totals = TrendTotals()
        self.changed: dict[str, tuple[int, ItemStatistics]] = {}
        self._rule = rule
        self._pending: dict[int, set[str]] = {}
        self._loaded: dict[str, tuple[int, ItemStatistics]] = {}
        self._load: Load = lambda _: {}

    def restore_item(self, item_id: str, statistics: ItemStatistics) -> None:
        """Note for which epochs a kept item has something pending."""
        for epoch in statistics.pending:
            self._pending.setdefault(epoch, set()).add(item_id)

    def begin_run(self, load: Load) -> None:
        """Start a run; `load` reads kept statistics."""
        self._load = load
        self._loaded = {}
        self.changed = {}

    def preload(self, item_ids: Iterable[str]) -> None:
        """Read many items at once, before they are needed."""
        wanted = sorted(item_ids)
        self._loaded.update(self._load(wanted))
        for item_id in wanted:
            self._loaded.setdefault(item_id, (-1, ItemStatistics()))

    def take(self, record: ActivityRecord, offset: int) -> None:
        """Count one touch, or note a mark of progress."""
        progress = self.totals.sources.setdefault(record.partition, SourceProgress())
        progress.epoch = max(progress.epoch, record.epoch)
        progress.strict = record.strict
        if record.item_id is None or record.offset <= progress.offset:
            return
        progress.offset = record.offset
        position, statistics = self._statistics(record.item_id)
        if offset <= position:
            return
        epoch = max(record.epoch, self.totals.complete_epoch + 1)
        count(statistics, record, epoch)
        self._pending.setdefault(epoch, set()).add(record.item_id)
        self._keep(record.item_id, offset, statistics)

    def end_run(self, last_offset: int, idle: frozenset[int]) -> tuple[list[TrendRecord], int | None]:
        """Fold what is complete.

        Returns:
            The records to publish, by epoch and item id; and the newest complete epoch where it moved on.
        """
        newest = complete_epoch(self.totals.sources, self.num_sources, idle)
        if newest <= self.totals.complete_epoch:
            return [], None
        self.totals.complete_epoch = newest
        folded: list[TrendRecord] = []
        for epoch in sorted(epoch for epoch in self._pending if epoch <= newest):
            folded.extend(self._fold_epoch(epoch, last_offset))
        return folded, newest

    def _fold_epoch(self, epoch: int, last_offset: int) -> Iterable[TrendRecord]:
        item_ids = sorted(self._pending.pop(epoch))
        self.preload(set(item_ids) - self._loaded.keys())
        for item_id in item_ids:
            position, statistics = self._statistics(item_id)
            record = fold(item_id, statistics, epoch, self._rule)
            if record is not None:
                self._keep(item_id, max(position, last_offset), statistics)
                yield record

    def _statistics(self, item_id: str) -> tuple[int, ItemStatistics]:
        if item_id not in self._loaded:
            self.preload([item_id])
        return self._loaded[item_id]

    def _keep(self, item_id: str, position: int, statistics: ItemStatistics) -> None:
        self._loaded[item_id] = self.changed[item_id] = (position, statistics)
