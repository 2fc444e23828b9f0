"""What baselines learn from touches: decayed popularity of items, and what followed each item.

Decayed sums are kept as ``log2(sum) + t / half_life`` relative to time zero: a number that stays the same while
nothing happens. Shapes: N items, C items that something is known about.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stream_app.evaluation.questions import UNKNOWN_ROW, Question, Touch

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEVER = -math.inf
LOG_2 = math.log(2.0)

POOL_ITEMS = 512
"""Items held ready as the most popular once they are sorted out; the pool may grow to four times that."""

LOST_BITS = 1e-9
"""What the way through a share and back may lose of a log score."""

NO_ROWS: Ints = np.zeros(0, dtype=np.int64)
NO_SCORES: Floats = np.zeros(0)


class Statistic(Protocol):
    """Something known of some items in view of a user's history."""

    def take(self, touch: Touch) -> None:
        """Learn from a touch."""

    def scores(self, question: Question) -> tuple[Ints, Floats]:
        """Rows (C,) of items that the user has not seen, each once, and their scores (C,) above zero."""


class DecayedPopularity:
    """Users that touched an item, decayed: ``sum 2^(-(t - t_i) / half_life)`` over the first touches by each user."""

    def __init__(self, half_life_s: float) -> None:
        self.half_life_s = half_life_s
        self._half_life_ms = half_life_s * 1000
        self._log_scores = np.full(1024, NEVER)
        self._log_total = NEVER
        self._num_rows = 0
        self._pool = np.zeros(4 * POOL_ITEMS, dtype=np.int64)
        self._num_pooled = 0
        self._is_pooled = np.zeros(1024, dtype=np.bool_)
        self._pool_floor = NEVER

    def take(self, touch: Touch) -> None:
        """See `Statistic`."""
        row = touch.item
        if row >= len(self._log_scores):
            self._log_scores = np.concatenate([self._log_scores, np.full(row, NEVER)])
            self._is_pooled = np.concatenate([self._is_pooled, np.zeros(row, dtype=np.bool_)])
        self._num_rows = max(self._num_rows, row + 1)
        if not touch.is_new:
            return
        step = touch.ts_ms / self._half_life_ms
        score = log_sum(float(self._log_scores[row]), step)
        self._log_scores[row] = score
        self._log_total = log_sum(self._log_total, step)
        # Scores only rise, so whatever may be among the first has passed the floor.
        if score >= self._pool_floor and not self._is_pooled[row]:
            if self._num_pooled == len(self._pool):
                self._refill(POOL_ITEMS)
            if not self._is_pooled[row]:
                self._pool[self._num_pooled] = row
                self._num_pooled += 1
                self._is_pooled[row] = True

    def shares(self, rows: Ints) -> Floats:
        """Each item's share of all decayed counts; zero before anything was counted."""
        if self._log_total == NEVER:
            return np.zeros(len(rows))
        shares: Floats = np.exp2(self._log_scores[rows] - self._log_total)
        return shares

    def log_score(self, row: int) -> float:
        """The item's log score, for `num_at_least`; exact where its share would vanish."""
        return float(self._log_scores[row])

    def log_score_of_share(self, share: float) -> float:
        """The log score of an item with this share now; a last bit lower, so that what is equal stays equal."""
        return float(np.log2(share) + self._log_total - LOST_BITS) if share > 0 else NEVER

    def num_at_least(self, log_score: float, question: Question, taken_rows: Ints) -> int:
        """How many unseen items, `taken_rows` (unseen, each once) not counted, have at least this log score."""
        num_items = len(question.seen_N)
        count = int(np.count_nonzero((self._log_scores[:num_items] >= log_score) & ~question.seen_N))
        return count - int(np.count_nonzero(self._log_scores[taken_rows] >= log_score))

    def top(self, num_items: int, question: Question, taken_rows: Ints) -> Ints:
        """Rows of the best unseen items that are not among `taken_rows`, best first; ties by row."""
        rows = self._pooled(num_items, question, taken_rows)
        if len(rows) < num_items and self._num_pooled < self._num_rows:
            self._refill(num_items + len(question.recent) + len(taken_rows) + POOL_ITEMS)
            rows = self._pooled(num_items, question, taken_rows)
        return rows

    def _pooled(self, num_items: int, question: Question, taken_rows: Ints) -> Ints:
        pool = self._pool[: self._num_pooled]
        # Marked as seen for a moment: `taken_rows` are unseen, so this can be taken back.
        question.seen_N[taken_rows] = True
        rows = pool[~question.seen_N[pool]]
        question.seen_N[taken_rows] = False
        scores = self._log_scores[rows]
        if len(rows) > 2 * num_items:
            floor = np.partition(scores, len(rows) - num_items)[len(rows) - num_items]
            kept = scores >= floor
            rows, scores = rows[kept], scores[kept]
        return rows[np.lexsort((rows, -scores))][:num_items]

    def _refill(self, num_items: int) -> None:
        """Take the best items into the pool, ties with the last of them included."""
        scores = self._log_scores[: self._num_rows]
        place = max(0, len(scores) - num_items)
        self._pool_floor = float(np.partition(scores, place)[place])
        rows = np.flatnonzero(scores >= self._pool_floor)
        self._pool = np.zeros(max(2 * len(rows), 4 * POOL_ITEMS), dtype=np.int64)
        self._pool[: len(rows)] = rows
        self._num_pooled = len(rows)
        self._is_pooled[:] = False
        self._is_pooled[rows] = True


def log_sum(first: float, second: float) -> float:
    """``log2(2^first + 2^second)``; minus infinity is the logarithm of nothing.

    >>> log_sum(1.0, 1.0), log_sum(float("-inf"), 3.0)
    (2.0, 3.0)
    """
    high, low = (first, second) if first >= second else (second, first)
    return high if low == NEVER else high + math.log1p(2.0 ** (low - high)) / LOG_2


class _Followers:
    """Scores of the items that followed one item, in arrays that grow."""

    __slots__ = ("places", "rows", "scores")

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self.rows = np.zeros(4, dtype=np.int64)
        self.scores = np.zeros(4)

    def place_of(self, row: int, blank: float) -> int:
        """Where the score of `row` stands; a new one starts at `blank`."""
        place = self.places.get(row)
        if place is None:
            place = self.places[row] = len(self.places)
            if place == len(self.rows):
                self.rows = np.concatenate([self.rows, np.zeros_like(self.rows)])
                self.scores = np.concatenate([self.scores, np.zeros_like(self.scores)])
            self.rows[place], self.scores[place] = row, blank
        return place


class Transitions:
    """How often an item was the next new one after the user's newest item; decayed, or plain counts (None).

    Repeats of an item are no transitions, and do not break the chain.
    """

    def __init__(self, half_life_s: float | None) -> None:
        self.half_life_s = half_life_s
        self._half_life_ms = None if half_life_s is None else half_life_s * 1000
        self._followers: dict[int, _Followers] = {}

    def take(self, touch: Touch) -> None:
        """See `Statistic`."""
        if not touch.is_new or touch.previous == UNKNOWN_ROW:
            return
        followers = self._followers.setdefault(touch.previous, _Followers())
        place = followers.place_of(touch.item, 0.0 if self._half_life_ms is None else NEVER)
        if self._half_life_ms is None:
            followers.scores[place] += 1.0
        else:
            known = float(followers.scores[place])
            followers.scores[place] = log_sum(known, touch.ts_ms / self._half_life_ms)

    def scores(self, question: Question) -> tuple[Ints, Floats]:
        """See `Statistic`."""
        followers = self._followers.get(question.recent[0]) if question.recent else None
        if followers is None:
            return NO_ROWS, NO_SCORES
        num = len(followers.places)
        rows, scores = followers.rows[:num], followers.scores[:num]
        unseen = ~question.seen_N[rows]
        rows, scores = rows[unseen], scores[unseen]
        if self._half_life_ms is not None:
            scores = np.exp2(scores - question.ts_ms / self._half_life_ms)
        return rows, scores
