"""The trends of all items as of one epoch, in arrays, as ranking needs them.

Shapes: N items seen, H half-lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from stream_app.records import TrendRecord
from stream_app.stages.popularity import TrendRule, decay

NEVER = -1e18
"""Log score of an item that was never touched."""

MAX_BEHIND = 1e6
"""Largest distance from the most popular item, in halvings: 28 years at a half-life of 15 minutes."""

MAX_SUCCESSORS = 100
"""Successors of one item that are told of."""

Floats = npt.NDArray[np.float64]


class TrendView:
    """Trends up to and including `epoch`; it only moves forward.

    A decayed count c at epoch e is kept as ``log2(c) + e * epoch_ms / half_life``: a number that stays the same
    while the item rests, so the order of all items changes only where something was touched.
    """

    def __init__(self, rule: TrendRule) -> None:
        self.rule = rule
        self.epoch = -1
        self.item_ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._records: dict[str, TrendRecord] = {}
        # By predecessor and item the row of the item's record: the rows themselves are shared with other views.
        self._followers: dict[str, dict[str, tuple[str, float, float]]] = {}
        self._followed: dict[str, list[tuple[str, float, float]]] = {}
        self._log_scores_NH: Floats = np.full((256, len(rule.half_lives_ms)), NEVER)
        self._first_epochs_N: Floats = np.zeros(256)
        self._tie_breaks_N: npt.NDArray[np.uint64] = np.zeros(256, dtype=np.uint64)
        self._tops: dict[int, tuple[int, npt.NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return len(self.item_ids)

    def advance(self, epoch: int, records: Iterable[TrendRecord]) -> None:
        """Take in the records of all epochs after the present one up to `epoch`."""
        newest = {record.item_id: record for record in records}
        for record in newest.values():
            self._set_followers(record)
        if newest:
            self._set_rows(list(newest.values()))
            self._tops.clear()
        self._records.update(newest)
        if newest or epoch > self.epoch:
            self._followed.clear()
        self.epoch = max(self.epoch, epoch)

    def top(self, half_life_index: int, num_items: int) -> npt.NDArray[np.int64]:
        """Rows of the most popular items, best first; ties by a hash of the item id, not by arrival."""
        asked, rows = self._tops.get(half_life_index, (0, None))
        if rows is None or asked < num_items:
            asked = max(num_items, 300)
            rows = self._sorted_top(half_life_index, asked)
            self._tops[half_life_index] = (asked, rows)
        return rows[:num_items]

    def rows_of(self, item_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Rows of items, -1 for those never touched."""
        return np.fromiter((self._rows.get(item_id, -1) for item_id in item_ids), dtype=np.int64)

    def popularity(self, rows_C: npt.NDArray[np.int64]) -> Floats:
        """How far items are behind the most popular one, shape (C, H): ``-log(1 + d)`` with d the distance in halvings.

        0 at the top. The logarithm keeps the whole order: where events are rare, items that rested for hundreds of
        half-lives still differ, and the item touched last is often the next one taken.
        """
        log_scores = np.full((len(rows_C), len(self.rule.half_lives_ms)), NEVER)
        behind = np.full(log_scores.shape, MAX_BEHIND)
        if len(self):
            known = rows_C >= 0
            log_scores[known] = self._log_scores_NH[rows_C[known]]
            behind = np.clip(self._log_scores_NH[: len(self)].max(axis=0) - log_scores, 0.0, MAX_BEHIND)
        result: Floats = -np.log1p(behind)
        return result

    def log_age(self, rows_C: npt.NDArray[np.int64]) -> Floats:
        """Log of 1 + hours since the first touch, shape (C,); 0 for items never touched."""
        hours = (self.epoch - self._first_epochs_N[rows_C]) * self.rule.epoch_ms / 3.6e6
        return np.where(rows_C >= 0, np.log1p(np.maximum(hours, 0.0)), 0.0)

    def successors(self, item_id: str) -> list[tuple[str, float, float]]:
        """What users touched after `item_id`: [item, share of short memory, share of long memory], greatest first.

        The share is of the touches of `item_id`; `MAX_SUCCESSORS` at most, ties by item id.
        """
        known = self._followed.get(item_id)
        if known is None:
            known = self._followed[item_id] = self._shares(item_id)
        return known

    def _shares(self, item_id: str) -> list[tuple[str, float, float]]:
        followers = self._followers.get(item_id)
        if not followers:
            return []
        # One pseudo-count keeps a single old pair from counting as certainty.
        short_sum, long_sum = (1.0 + count for count in self._touches(item_id))
        rows = []
        for follower, (_, short, long) in followers.items():
            short_kept, long_kept = self._kept(self._records[follower])
            rows.append((follower, short * short_kept / short_sum, long * long_kept / long_sum))
        rows.sort(key=lambda row: (-(row[1] + row[2]), row[0]))
        return rows[:MAX_SUCCESSORS]

    def _touches(self, item_id: str) -> tuple[float, float]:
        """Decayed touches of an item, of short and long memory."""
        record = self._records.get(item_id)
        if record is None:
            return 0.0, 0.0
        short_ms, long_ms = self.rule.pair_half_lives_ms
        by_half_life = dict(zip(self.rule.half_lives_ms, record.counts, strict=True))
        short_kept, long_kept = self._kept(record)
        return by_half_life[short_ms] * short_kept, by_half_life[long_ms] * long_kept

    def _kept(self, record: TrendRecord) -> tuple[float, float]:
        """What is left of short and long memory since the epoch of a record."""
        passed_ms = (self.epoch - record.epoch) * self.rule.epoch_ms
        short_ms, long_ms = self.rule.pair_half_lives_ms
        return decay(passed_ms, short_ms), decay(passed_ms, long_ms)

    def _set_followers(self, record: TrendRecord) -> None:
        """Note the item under each of its predecessors, and no longer under those that it has no more."""
        known = self._records.get(record.item_id)
        if known is not None:
            for gone in {row[0] for row in known.predecessors} - {row[0] for row in record.predecessors}:
                del self._followers[gone][record.item_id]
        for row in record.predecessors:
            self._followers.setdefault(row[0], {})[record.item_id] = row

    def _set_rows(self, records: Sequence[TrendRecord]) -> None:
        rows = [self._row_of(record.item_id) for record in records]
        epochs = np.array([record.epoch for record in records], dtype=np.float64)
        with np.errstate(divide="ignore"):
            logs = np.log2(np.array([record.counts for record in records]))
        offsets = epochs[:, None] * self.rule.epoch_ms / np.array(self.rule.half_lives_ms)
        self._log_scores_NH[rows] = np.maximum(logs + offsets, NEVER)
        self._first_epochs_N[rows] = [record.first_epoch for record in records]

    def _row_of(self, item_id: str) -> int:
        row = self._rows.get(item_id)
        if row is None:
            row = self._rows[item_id] = len(self.item_ids)
            self.item_ids.append(item_id)
            self._grow()
            digest = blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            self._tie_breaks_N[row] = int.from_bytes(digest, "big")
        return row

    def _grow(self) -> None:
        size = len(self._first_epochs_N)
        if len(self.item_ids) > size:
            blank = np.full_like(self._log_scores_NH, NEVER)
            self._log_scores_NH = np.concatenate([self._log_scores_NH, blank])
            self._first_epochs_N = np.concatenate([self._first_epochs_N, np.zeros(size)])
            self._tie_breaks_N = np.concatenate([self._tie_breaks_N, np.zeros(size, dtype=np.uint64)])

    def _sorted_top(self, half_life_index: int, num_items: int) -> npt.NDArray[np.int64]:
        scores = self._log_scores_NH[: len(self), half_life_index]
        rows = np.arange(len(scores))
        if len(scores) > num_items:
            # All items that tie with the last place are kept, so that the cut does not depend on row order.
            threshold = np.partition(scores, len(scores) - num_items)[len(scores) - num_items]
            rows = np.flatnonzero(scores >= threshold)
        rows = rows[scores[rows] > NEVER]
        order = np.lexsort((self._tie_breaks_N[rows], -scores[rows]))
        return rows[order][:num_items]
