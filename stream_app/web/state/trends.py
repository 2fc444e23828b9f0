"""The newest complete trends of all items, brought forward once a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stream_app.stages.popularity import TrendRule, decay
from stream_app.stages.scoring import half_life_name
from stream_app.stages.trend_view import TrendView
from stream_app.trend_log import TrendLog

VIEW = 0
"""The one view of this process, under the number of a partition."""


class HeldTrends:
    """The trends as the recommenders know them, without any replay's waiting.

    Args:
        connection: Keyword arguments for aiokafka clients.
        topic: Full name of `item-trends`.
        num_partitions: How many partitions it has.
        rule: How statistics decay.
    """

    def __init__(self, connection: dict[str, Any], topic: str, num_partitions: int, rule: TrendRule) -> None:
        self._log = TrendLog(connection, topic, num_partitions, rule)
        self._rule = rule
        self.view = TrendView(rule)

    async def start(self) -> None:
        """Read what is there, and go on reading."""
        await self._log.restart()
        await self.advance()

    async def stop(self) -> None:
        """Stop reading."""
        await self._log.stop()

    async def advance(self) -> None:
        """Bring the view to the newest complete epoch."""
        self.view = await self._log.view_for(VIEW, None)

    def counts(self, item_id: str) -> dict[str, float]:
        """Decayed touches of an item as of the newest complete epoch, by half-life; zeros for one never touched."""
        names = [half_life_name(half_life_ms / 1000) for half_life_ms in self._rule.half_lives_ms]
        record = self.view.record_of(item_id)
        if record is None:
            return dict.fromkeys(names, 0.0)
        passed_ms = (self.view.epoch - record.epoch) * self._rule.epoch_ms
        faded = [
            count * decay(passed_ms, half_life_ms)
            for count, half_life_ms in zip(record.counts, self._rule.half_lives_ms, strict=True)
        ]
        return dict(zip(names, (round(count, 4) for count in faded), strict=True))

    def first_touch_ms(self, item_id: str) -> int | None:
        """Start of the epoch in which an item was first touched; None for one never touched."""
        record = self.view.record_of(item_id)
        return None if record is None else record.first_epoch * self._rule.epoch_ms

    def newest(self, count: int) -> list[str]:
        """The items that were touched first most lately, newest first, then by id."""
        return self._in_order(self.view.log_age(np.arange(len(self.view))), count)

    def popular(self, count: int) -> list[str]:
        """The items touched most, by the half-life in the middle."""
        middle = (len(self._rule.half_lives_ms) - 1) // 2
        return [self.view.item_ids[row] for row in self.view.top(middle, count).tolist()]

    def followers(self, item_id: str, count: int) -> list[tuple[str, float]]:
        """What users touched after an item most often, with shares of its touches (long memory)."""
        found = self.view.after([item_id])
        order = np.argsort(-found.shares_MK[1], kind="stable")[:count]
        return [
            (self.view.item_ids[row], round(float(share), 4))
            for row, share in zip(found.rows_K[order].tolist(), found.shares_MK[1, order], strict=True)
        ]

    def led_to(self, item_ids: Sequence[str], listed: Sequence[str]) -> dict[str, dict[str, float]]:
        """For each listed item, by each of `item_ids`: how often users touched it after that one (long memory)."""
        found = self.view.after(item_ids)
        wanted = {row: item_id for item_id, row in zip(listed, self.view.rows_of(listed).tolist(), strict=True)}
        shares: dict[str, dict[str, float]] = {}
        for place, row, share in zip(found.places_K, found.rows_K.tolist(), found.shares_MK[1], strict=True):
            if row in wanted:
                shares.setdefault(wanted[row], {})[item_ids[place]] = float(share)
        return shares

    def _in_order(self, keys_N: np.ndarray[Any, np.dtype[np.float64]], count: int) -> list[str]:
        if not len(keys_N):
            return []
        limit = np.partition(keys_N, min(count, len(keys_N)) - 1)[min(count, len(keys_N)) - 1]
        rows = np.flatnonzero(keys_N <= limit).tolist()
        best = sorted(rows, key=lambda row: (keys_N[row], self.view.item_ids[row]))
        return [self.view.item_ids[row] for row in best[:count]]
