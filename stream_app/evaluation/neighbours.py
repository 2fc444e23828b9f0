"""Neighbourhood methods: item-kNN, frozen at the split, and session-kNN over the newest sessions, online.

Shapes: N items, P pairs, C items with a score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stream_app.evaluation.questions import Question, Touch
from stream_app.evaluation.statistics import NO_ROWS, NO_SCORES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_USER_ITEMS = 200
"""Newest items of a user that are paired with each other: 40,000 pairs at most."""

PAIRS_AT_A_TIME = 4_000_000
"""Pairs counted in one go: 32 MB."""

NUM_NEIGHBOURS = 200
"""Neighbours kept of each item."""

SESSION_GAP_MS = 30 * 60_000
"""A longer silence of the user begins a new session."""

MAX_SESSIONS_OF_ITEM = 500
"""Newest sessions that an item is remembered to be in; they are what is sampled from."""

NUM_SESSIONS = 100
"""Most similar sessions that vote."""

AGE_FLOOR = 1e-30
"""Least weight of an item for its age."""

SESSION_ITEMS = 20
"""Newest items of a session that count."""


class ItemNeighbours:
    """Item-kNN: cosine of the sets of users of two items, as of one moment; it never learns again.

    The user's items vote with weight 1 / place, newest first.

    Source: Sarwar et al. 2001 (item-based collaborative filtering).

    Args:
        neighbours: Of each item, the most similar ones with their cosines; see `family`.
        num_voters: How many of the user's newest items vote.
    """

    def __init__(self, neighbours: Mapping[int, tuple[Ints, Floats]], num_voters: int) -> None:
        self._neighbours = neighbours
        self._num_voters = num_voters

    @classmethod
    def family(cls, items_by_user: Iterable[Ints], nums_voters: Sequence[int]) -> list[ItemNeighbours]:
        """One for each number of voters, fitted once to the item rows of each user (oldest first, each once)."""
        neighbours = _neighbours(list(items_by_user))
        return [cls(neighbours, num_voters) for num_voters in nums_voters]

    def take(self, touch: Touch) -> None:
        """See `Statistic`: frozen."""

    def scores(self, question: Question) -> tuple[Ints, Floats]:
        """See `Statistic`."""
        parts = [
            (rows, similarities / place)
            for place, item in enumerate(question.recent[: self._num_voters], start=1)
            for rows, similarities in [self._neighbours.get(item, (NO_ROWS, NO_SCORES))]
        ]
        return summed_unseen(parts, question)


def _neighbours(items_by_user: list[Ints]) -> Mapping[int, tuple[Ints, Floats]]:
    """The most similar items of each item, and their cosines."""
    users = [items[-MAX_USER_ITEMS:] for items in items_by_user if len(items)]
    if not users:
        return {}
    counts_N = np.bincount(np.concatenate(users))
    firsts_P, seconds_P, together_P = _pair_counts(users, len(counts_N))
    if not len(firsts_P):
        return {}
    cosines_P = together_P / np.sqrt(counts_N[firsts_P] * counts_N[seconds_P])
    order = np.lexsort((seconds_P, -cosines_P, firsts_P))
    firsts, starts = np.unique(firsts_P[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    chosen = (order[start : min(end, start + NUM_NEIGHBOURS)] for start, end in zip(starts, ends, strict=True))
    return {int(first): (seconds_P[places], cosines_P[places]) for first, places in zip(firsts, chosen, strict=True)}


def _pair_counts(users: list[Ints], num_items: int) -> tuple[Ints, Ints, Ints]:
    """Ordered pairs of different items, and how many users have both; O(pairs log pairs)."""
    totals: tuple[Ints, Ints] = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    waiting: list[Ints] = []
    num_waiting = 0
    for items in users:
        codes = (items[:, None] * num_items + items)[~np.eye(len(items), dtype=np.bool_)]
        waiting.append(codes)
        num_waiting += len(codes)
        if num_waiting > PAIRS_AT_A_TIME:
            totals = _added(totals, np.concatenate(waiting))
            waiting, num_waiting = [], 0
    codes_P, counts_P = _added(totals, np.concatenate([*waiting, np.zeros(0, dtype=np.int64)]))
    return codes_P // num_items, codes_P % num_items, counts_P


def _added(totals: tuple[Ints, Ints], codes: Ints) -> tuple[Ints, Ints]:
    """Counts by code with more codes counted in."""
    fresh, counts = np.unique(codes, return_counts=True)
    merged, inverse = np.unique(np.concatenate([totals[0], fresh]), return_inverse=True)
    summed = np.bincount(inverse, weights=np.concatenate([totals[1], counts]), minlength=len(merged))
    return merged, summed.astype(np.int64)


class Sessions:
    """The sessions of all users as a log goes by. Of each item only the newest are remembered, so work is bounded."""

    def __init__(self) -> None:
        self._items: list[list[int]] = []
        self._running: dict[int, tuple[int, int]] = {}
        self._sessions_of: dict[int, _Newest] = {}
        self.first_ms: list[int] = []
        self._newest: Touch | None = None
        self._answered: tuple[Question, tuple[Ints, Floats]] | None = None

    def take(self, touch: Touch) -> None:
        """See `Statistic`. The very same touch counts once, whoever of those that share this hands it on."""
        if touch is self._newest:
            return
        self._newest = touch
        self._answered = None
        if touch.item == len(self.first_ms):
            self.first_ms.append(touch.ts_ms)
        number, last_ms = self._running.get(touch.user, (-1, 0))
        if number < 0 or touch.ts_ms - last_ms > SESSION_GAP_MS:
            number = len(self._items)
            self._items.append([])
        self._running[touch.user] = number, touch.ts_ms
        if touch.item not in self._items[number]:
            self._items[number].append(touch.item)
            self._sessions_of.setdefault(touch.item, _Newest()).add(number)

    def votes(self, question: Question) -> tuple[Ints, Floats]:
        """Unseen items of the sessions most like the user's running one, and their votes.

        The answer is kept until the next touch: several methods ask the same.
        """
        if self._answered is None or self._answered[0] is not question:
            self._answered = question, self._votes(question)
        return self._answered[1]

    def _votes(self, question: Question) -> tuple[Ints, Floats]:
        own, last_ms = self._running.get(question.user, (-1, 0))
        is_running = own >= 0 and question.ts_ms - last_ms <= SESSION_GAP_MS
        items = self._items[own][: -SESSION_ITEMS - 1 : -1] if is_running else question.recent[:1]
        parts = [(self._sessions_of[item].numbers(), 1.0 / place) for place, item in enumerate(items, start=1)]
        others, likeness = _summed([(numbers, np.full(len(numbers), value)) for numbers, value in parts])
        if is_running:
            others, likeness = others[others != own], likeness[others != own]
        nearest = np.lexsort((-others, -likeness))[:NUM_SESSIONS]
        voters = [self._items[other][-SESSION_ITEMS:] for other in others[nearest].tolist()]
        lengths = np.array([len(items) for items in voters], dtype=np.int64)
        rows = np.array([row for items in voters for row in items], dtype=np.int64)
        return summed_unseen([(rows, np.repeat(likeness[nearest] / np.sqrt(lengths), lengths))], question)


class _Newest:
    """The newest session numbers of one item, in no order."""

    __slots__ = ("_numbers", "_total")

    def __init__(self) -> None:
        self._numbers = np.zeros(4, dtype=np.int64)
        self._total = 0

    def add(self, number: int) -> None:
        """Add one; beyond `MAX_SESSIONS_OF_ITEM` the oldest goes."""
        if self._total == len(self._numbers) < MAX_SESSIONS_OF_ITEM:
            grown = np.zeros(min(2 * self._total, MAX_SESSIONS_OF_ITEM), dtype=np.int64)
            grown[: self._total] = self._numbers
            self._numbers = grown
        self._numbers[self._total % len(self._numbers)] = number
        self._total += 1

    def numbers(self) -> Ints:
        """All that are remembered."""
        return self._numbers[: self._total]


class SessionNeighbours:
    """Session-kNN: the most similar of the newest sessions vote for their items.

    Similar are sessions that share items with the user's running one; a shared item counts 1 / place, newest first. A
    session that is no longer running is represented by the user's newest item.

    Source: Jannach & Ludewig 2017 (session kNN), with the position weights of vector-multiplication kNN
    (Ludewig & Jannach 2018).

    Args:
        sessions: May be shared.
        age_half_life_s: An item's votes are halved for each such time since its first touch; None: not.
    """

    def __init__(self, sessions: Sessions, age_half_life_s: float | None = None) -> None:
        self._sessions = sessions
        self._age_half_life_ms = None if age_half_life_s is None else age_half_life_s * 1000

    def take(self, touch: Touch) -> None:
        """See `Statistic`."""
        self._sessions.take(touch)

    def scores(self, question: Question) -> tuple[Ints, Floats]:
        """See `Statistic`."""
        rows, votes = self._sessions.votes(question)
        if self._age_half_life_ms is None or not len(rows):
            return rows, votes
        ages_ms = question.ts_ms - np.array([self._sessions.first_ms[row] for row in rows.tolist()])
        # A floor, so that an old item keeps a score above zero.
        return rows, votes * np.maximum(np.exp2(-ages_ms / self._age_half_life_ms), AGE_FLOOR)


def summed_unseen(parts: Sequence[tuple[Ints, Floats]], question: Question) -> tuple[Ints, Floats]:
    """Scores summed by row over all parts, without what the user has seen; rows rise."""
    rows, scores = _summed(parts)
    unseen = ~question.seen_N[rows]
    return rows[unseen], scores[unseen]


def _summed(parts: Sequence[tuple[Ints, Floats]]) -> tuple[Ints, Floats]:
    """Numbers, each once and rising, with their values summed over all parts."""
    if not parts:
        return NO_ROWS, NO_SCORES
    numbers, inverse = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
    values = np.concatenate([values for _, values in parts])
    return numbers, np.bincount(inverse, weights=values, minlength=len(numbers)).astype(np.float64)
