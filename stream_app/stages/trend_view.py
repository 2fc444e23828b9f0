"""The trends of all items as of one epoch, in arrays, as ranking needs them.

Shapes: N items seen, H half-lives, C items asked for, K neighbours of an item, M = 2 memories (short and long).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import repeat

import numpy as np
import numpy.typing as npt

from stream_app.records import TrendRecord
from stream_app.stages.followers import EPOCH, LONG, ROW, SHORT, Followers
from stream_app.stages.popularity import TrendRule
from stream_app.stages.row_numbers import RowNumbers
from stream_app.stages.tops import NEVER, Top, changed_top, top_of

MAX_BEHIND = 1e6
"""Largest distance from the most popular item, in halvings: 28 years at a half-life of 15 minutes."""

TOP_ITEMS = 300
"""So many of the most popular items are known at least, at each half-life."""

SPARE_ITEMS = 50
"""More of them than were asked for: an item that falls out leaves a gap."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

IsWanted = Callable[[Ints], npt.NDArray[np.bool_]]
"""Which of some rows (K,) are wanted."""

NOTHING_NEAR: Floats = np.zeros((4, 0))


@dataclass(frozen=True)
class Neighbours:
    """Items touched after some items, or before them: of each of these in turn, its neighbours in no order.

    Args:
        places_K: Which of the items it is a neighbour of, int64, rising.
        rows_K: The neighbours' rows, int64, each once for one item.
        shares_MK: How often, as shares of the touches of the item: float64, of short and of long memory.
    """

    places_K: Ints
    rows_K: Ints
    shares_MK: Floats


class TrendView:
    """Trends up to and including `epoch`; it only moves forward.

    A decayed count c at epoch e is kept as ``log2(c) + e * epoch_ms / half_life``: a number that stays the same
    while the item rests, so the order of all items changes only where something was touched.
    """

    def __init__(self, rule: TrendRule) -> None:
        self.rule = rule
        self.epoch = -1
        self.item_ids: list[str] = []
        self.numbers = RowNumbers()
        """Numbers rows of this view, and others that were reserved."""
        self._rows: dict[str, int] = {}
        self._records: dict[str, TrendRecord] = {}
        self._pair_columns = [rule.half_lives_ms.index(half_life_ms) for half_life_ms in rule.pair_half_lives_ms]
        self._pair_half_lives_M = np.array(rule.pair_half_lives_ms) / rule.epoch_ms
        self._followers: dict[str, Followers] = {}
        self._predecessors: dict[str, Floats] = {}
        self._highest_H: Floats | None = None
        self._log_scores_NH: Floats = np.full((256, len(rule.half_lives_ms)), NEVER)
        self._first_epochs_N: Floats = np.zeros(256)
        self._tie_breaks_N: npt.NDArray[np.uint64] = np.zeros(256, dtype=np.uint64)
        self._tops: dict[int, Top] = {}
        self._top_items = TOP_ITEMS

    def __len__(self) -> int:
        return len(self.item_ids)

    def advance(self, epoch: int, records: Iterable[TrendRecord]) -> None:
        """Take in the records of all epochs after the present one up to `epoch`."""
        newest = {record.item_id: record for record in records}
        if newest:
            self._change_tops(self._set_rows(list(newest.values())))
            self._highest_H = None
        for record in newest.values():
            self._set_followers(record)
            self._predecessors.pop(record.item_id, None)
        self._records.update(newest)
        self.epoch = max(self.epoch, epoch)

    def record_of(self, item_id: str) -> TrendRecord | None:
        """The newest record of an item; None for one never touched."""
        return self._records.get(item_id)

    def top(self, half_life_index: int, num_items: int) -> npt.NDArray[np.int64]:
        """Rows of the most popular items, best first; ties by a hash of the item id, not by arrival."""
        top = self._tops.get(half_life_index)
        if top is None or not top.reaches(num_items):
            self._top_items = max(num_items + SPARE_ITEMS, self._top_items)
            top = top_of(self._log_scores_NH[: len(self), half_life_index], self._top_items, self.by_score)
            self._tops[half_life_index] = top
        return top.rows_T[:num_items]

    def rows_of(self, item_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Rows of items, -1 for those never touched."""
        return np.fromiter(map(self._rows.get, item_ids, repeat(-1)), dtype=np.int64)

    def popularity(self, rows_C: npt.NDArray[np.int64]) -> Floats:
        """How far items are behind the most popular one, shape (C, H): ``-log(1 + d)`` with d the distance in halvings.

        0 at the top. The logarithm keeps the whole order: where events are rare, items that rested for hundreds of
        half-lives still differ, and the item touched last is often the next one taken.
        """
        log_scores = self._log_scores_NH.take(rows_C, axis=0)
        log_scores[rows_C < 0] = NEVER
        behind = np.minimum(np.maximum(self._highest() - log_scores, 0.0), MAX_BEHIND)
        if not len(self):
            behind[:] = MAX_BEHIND
        return np.negative(np.log1p(behind))

    def by_score(self, rows_C: Ints, scores_C: Floats) -> Ints:
        """The rows, greatest score first; ties by a hash of the item id, not by arrival."""
        return rows_C[np.lexsort((self._tie_breaks_N[rows_C], -scores_C))]

    def best(self, rows_C: Ints, scores_C: Floats, num_rows: int) -> Ints:
        """The first `num_rows` of `by_score`, without sorting those that are far from it."""
        if len(rows_C) > num_rows:
            place = len(rows_C) - num_rows
            is_near_C = scores_C >= np.partition(scores_C, place)[place]
            rows_C, scores_C = rows_C[is_near_C], scores_C[is_near_C]
        return self.by_score(rows_C, scores_C)[:num_rows]

    def log_age(self, rows_C: npt.NDArray[np.int64]) -> Floats:
        """Log of 1 + hours since the first touch, shape (C,); 0 for items never touched."""
        hours = (self.epoch - self._first_epochs_N[rows_C]) * self.rule.epoch_ms / 3.6e6
        return np.where(rows_C >= 0, np.log1p(np.maximum(hours, 0.0)), 0.0)

    def after(self, item_ids: Sequence[str], is_wanted: IsWanted | None = None) -> Neighbours:
        """What users touched after each item, among the ten items after it; as far as it is wanted."""
        return self._neighbours(item_ids, self._followers_of(item_ids), is_wanted)

    def before(self, item_ids: Sequence[str]) -> Neighbours:
        """What users touched before each item, among the ten items before it; the strongest alone are known."""
        return self._neighbours(item_ids, [self._predecessors_of(item_id) for item_id in item_ids])

    def near(self, item_ids: Sequence[str]) -> tuple[Neighbours, Neighbours]:
        """`after` and `before` of the same items."""
        tables = [*self._followers_of(item_ids), *(self._predecessors_of(item_id) for item_id in item_ids)]
        both = self._neighbours([*item_ids, *item_ids], tables)
        end = int(np.searchsorted(both.places_K, len(item_ids)))
        after = Neighbours(both.places_K[:end], both.rows_K[:end], both.shares_MK[:, :end])
        places_K = both.places_K[end:] - len(item_ids)
        return after, Neighbours(places_K, both.rows_K[end:], both.shares_MK[:, end:])

    def _followers_of(self, item_ids: Sequence[str]) -> list[Floats]:
        found = map(self._followers.get, item_ids)
        return [NOTHING_NEAR if one is None else one.table_4K for one in found]

    def _neighbours(
        self, item_ids: Sequence[str], tables: Sequence[Floats], is_wanted: IsWanted | None = None
    ) -> Neighbours:
        """What tables say of the neighbours of items, each of its own, as of now."""
        rows_K = np.concatenate([NOTHING_NEAR[ROW], *(table[ROW] for table in tables)]).astype(np.int64)
        places_K = np.arange(len(tables)).repeat([table.shape[1] for table in tables])
        is_wanted_K = rows_K >= 0 if is_wanted is None else is_wanted(rows_K)
        if not is_wanted_K.any():
            return Neighbours(places_K[:0], rows_K[:0], np.zeros((2, 0)))
        table_4K = np.concatenate(tables, axis=1)
        if not is_wanted_K.all():
            wanted = np.flatnonzero(is_wanted_K)
            table_4K, places_K, rows_K = table_4K.take(wanted, axis=1), places_K.take(wanted), rows_K.take(wanted)
        return Neighbours(places_K, rows_K, self._shares(table_4K, places_K, self._touches(item_ids)))

    def _shares(self, table_4K: Floats, places_K: Ints, touches_MC: Floats) -> Floats:
        """The counts (M, K) of a table, faded until now, as shares of the touches of the items at `places_K`."""
        behind_K = table_4K[EPOCH] - self.epoch
        shares_MK = np.empty((2, len(places_K)))
        counts_and_halves = zip((SHORT, LONG), self._pair_half_lives_M.tolist(), strict=True)
        for memory, (counts, half_life) in enumerate(counts_and_halves):
            kept_K = np.exp2(behind_K / half_life)
            shares_MK[memory] = table_4K[counts] * kept_K / touches_MC[memory].take(places_K)
        return shares_MK

    def _predecessors_of(self, item_id: str) -> Floats:
        """Those of an item as a table, row -1 for those unheard of; made once for each of its records, unless some
        are."""
        known = self._predecessors.get(item_id)
        if known is not None:
            return known
        record = self._records.get(item_id)
        if record is None or not record.predecessors:
            return NOTHING_NEAR
        rows_K = self.rows_of([pair[0] for pair in record.predecessors])
        table_4K = np.empty((4, len(rows_K)))
        table_4K[ROW], table_4K[EPOCH] = rows_K, record.epoch
        for counts in (SHORT, LONG):
            table_4K[counts] = [pair[counts] for pair in record.predecessors]
        if (rows_K >= 0).all():
            self._predecessors[item_id] = table_4K
        return table_4K

    def _touches(self, item_ids: Sequence[str]) -> Floats:
        """Decayed touches of items (M, C), and one more: so that a single old pair is not taken for certainty."""
        rows_C = self.rows_of(item_ids)
        logs_CM = self._log_scores_NH.take(rows_C, axis=0)[:, self._pair_columns]
        logs_CM[rows_C < 0] = NEVER
        return np.asarray(1.0 + np.exp2(logs_CM - self.epoch / self._pair_half_lives_M)).T

    def _set_followers(self, record: TrendRecord) -> None:
        """Note the item under each of its predecessors, and no longer under those that it has no more."""
        row = self._rows[record.item_id]
        known = self._records.get(record.item_id)
        if known is not None:
            for gone in {before[0] for before in known.predecessors} - {before[0] for before in record.predecessors}:
                self._followers[gone].drop(row)
        for item_id, short, long in record.predecessors:
            followers = self._followers.get(item_id)
            if followers is None:
                followers = self._followers[item_id] = Followers()
            followers.put(row, short, long, record.epoch)

    def _highest(self) -> Floats:
        """Log scores (H,) of the most popular items."""
        if self._highest_H is None:
            tops = [self.top(index, 1) for index in range(len(self.rule.half_lives_ms))]
            scores = [self._log_scores_NH[rows, index].max(initial=NEVER) for index, rows in enumerate(tops)]
            self._highest_H = np.array(scores)
        return self._highest_H

    def _change_tops(self, changed_R: Ints) -> None:
        for index, top in self._tops.items():
            scores_N = self._log_scores_NH[: len(self), index]
            self._tops[index] = changed_top(top, changed_R, scores_N, self._top_items, self.by_score)

    def _set_rows(self, records: Sequence[TrendRecord]) -> Ints:
        """Take in what records (one of each item) say of popularity; their rows."""
        rows = [self._row_of(record.item_id) for record in records]
        epochs = np.array([record.epoch for record in records], dtype=np.float64)
        with np.errstate(divide="ignore"):
            logs = np.log2(np.array([record.counts for record in records]))
        offsets = epochs[:, None] * self.rule.epoch_ms / np.array(self.rule.half_lives_ms)
        self._log_scores_NH[rows] = np.maximum(logs + offsets, NEVER)
        self._first_epochs_N[rows] = [record.first_epoch for record in records]
        return np.array(rows, dtype=np.int64)

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
        self.numbers.reserve(len(self.item_ids))
        if len(self.item_ids) > size:
            blank = np.full_like(self._log_scores_NH, NEVER)
            self._log_scores_NH = np.concatenate([self._log_scores_NH, blank])
            self._first_epochs_N = np.concatenate([self._first_epochs_N, np.zeros(size)])
            self._tie_breaks_N = np.concatenate([self._tie_breaks_N, np.zeros(size, dtype=np.uint64)])
