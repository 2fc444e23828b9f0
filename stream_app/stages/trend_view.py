"""The trends of all items as of one epoch, in arrays, as ranking needs them.

Shapes: N items seen, H half-lives, C items asked for, K neighbours of an item, M = 2 memories (short and long).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from stream_app.records import TrendRecord
from stream_app.stages.followers import Followers
from stream_app.stages.popularity import TrendRule

NEVER = -1e18
"""Log score of an item that was never touched."""

MAX_BEHIND = 1e6
"""Largest distance from the most popular item, in halvings: 28 years at a half-life of 15 minutes."""

NO_FOLLOWERS = Followers()

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """Items touched after some items, or before them: of each of these in turn, its neighbours in no order.

    Args:
        places_K: Which of the items it is a neighbour of, int64, rising.
        rows_K: The neighbours' rows, int64, each once for one item.
        shares_KM: How often, as shares of the touches of the item: float64, of short and of long memory.
    """

    places_K: Ints
    rows_K: Ints
    shares_KM: Floats


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
        self._pair_columns = [rule.half_lives_ms.index(half_life_ms) for half_life_ms in rule.pair_half_lives_ms]
        self._pair_half_lives_M = np.array(rule.pair_half_lives_ms) / rule.epoch_ms
        self._followers: dict[str, Followers] = {}
        self._highest_H: Floats | None = None
        self._log_scores_NH: Floats = np.full((256, len(rule.half_lives_ms)), NEVER)
        self._first_epochs_N: Floats = np.zeros(256)
        self._tie_breaks_N: npt.NDArray[np.uint64] = np.zeros(256, dtype=np.uint64)
        self._tops: dict[int, tuple[int, npt.NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return len(self.item_ids)

    def advance(self, epoch: int, records: Iterable[TrendRecord]) -> None:
        """Take in the records of all epochs after the present one up to `epoch`."""
        newest = {record.item_id: record for record in records}
        if newest:
            self._set_rows(list(newest.values()))
            self._tops.clear()
            self._highest_H = None
        for record in newest.values():
            self._set_followers(record)
        self._records.update(newest)
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
            if self._highest_H is None:
                self._highest_H = self._log_scores_NH[: len(self)].max(axis=0)
            behind = np.clip(self._highest_H - log_scores, 0.0, MAX_BEHIND)
        result: Floats = -np.log1p(behind)
        return result

    def by_score(self, rows_C: Ints, scores_C: Floats) -> Ints:
        """The rows, greatest score first; ties by a hash of the item id, not by arrival."""
        return rows_C[np.lexsort((self._tie_breaks_N[rows_C], -scores_C))]

    def log_age(self, rows_C: npt.NDArray[np.int64]) -> Floats:
        """Log of 1 + hours since the first touch, shape (C,); 0 for items never touched."""
        hours = (self.epoch - self._first_epochs_N[rows_C]) * self.rule.epoch_ms / 3.6e6
        return np.where(rows_C >= 0, np.log1p(np.maximum(hours, 0.0)), 0.0)

    def after(self, item_ids: Sequence[str]) -> Neighbours:
        """What users touched after each item, among the ten items after it."""
        followers = [self._followers.get(item_id, NO_FOLLOWERS) for item_id in item_ids]
        places_K = np.repeat(np.arange(len(followers)), [len(one) for one in followers])
        rows_K = np.concatenate([NO_FOLLOWERS.rows_K, *(one.rows_K for one in followers)])
        counts_KM = np.concatenate([NO_FOLLOWERS.counts_KM, *(one.counts_KM for one in followers)])
        epochs_K = np.concatenate([NO_FOLLOWERS.epochs_K, *(one.epochs_K for one in followers)])
        return Neighbours(places_K, rows_K, counts_KM * self._kept(epochs_K) / self._touches(item_ids)[places_K])

    def before(self, item_ids: Sequence[str]) -> Neighbours:
        """What users touched before each item, among the ten items before it; the strongest alone are known."""
        records = [self._records.get(item_id) for item_id in item_ids]
        pairs = [pair for record in records if record is not None for pair in record.predecessors]
        lengths = [0 if record is None else len(record.predecessors) for record in records]
        places_K = np.repeat(np.arange(len(records)), lengths)
        epochs = np.array([-1 if record is None else record.epoch for record in records], dtype=np.float64)
        rows_K = self.rows_of(pair[0] for pair in pairs)
        counts_KM = np.array([pair[1:] for pair in pairs]).reshape(-1, 2)
        shares_KM = counts_KM * self._kept(epochs[places_K]) / self._touches(item_ids)[places_K]
        is_known_K = rows_K >= 0
        return Neighbours(places_K[is_known_K], rows_K[is_known_K], shares_KM[is_known_K])

    def _touches(self, item_ids: Sequence[str]) -> Floats:
        """Decayed touches of items (C, M), and one more: so that a single old pair is not taken for certainty."""
        rows_C = self.rows_of(item_ids)
        logs_CM = np.where(rows_C[:, None] >= 0, self._log_scores_NH[rows_C][:, self._pair_columns], NEVER)
        return np.asarray(1.0 + np.exp2(logs_CM - self.epoch / self._pair_half_lives_M))

    def _kept(self, epochs_K: Floats) -> Floats:
        """What is left (K, M) of short and long memory since the ends of epochs."""
        return np.asarray(np.exp2((epochs_K[:, None] - self.epoch) / self._pair_half_lives_M))

    def _set_followers(self, record: TrendRecord) -> None:
        """Note the item under each of its predecessors, and no longer under those that it has no more."""
        row = self._rows[record.item_id]
        known = self._records.get(record.item_id)
        if known is not None:
            for gone in {before[0] for before in known.predecessors} - {before[0] for before in record.predecessors}:
                self._followers[gone].drop(row)
        for item_id, short, long in record.predecessors:
            self._followers.setdefault(item_id, Followers()).put(row, short, long, record.epoch)

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
        return self.by_score(rows, scores[rows])[:num_items]
