"""What a recommender must beat: online methods that need no model. Each learns from every event at once.

The contract: `rank(user, item_wanted)` before the event, then `take(event)`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

import numpy as np

from stream_app.records import Event


class Baseline(Protocol):
    """An online method."""

    name: str

    def rank_of(self, event: Event, seen: set[str], recent: list[str]) -> int | None:
        """Rank (from 1) that the method gives the event's item among all items not in `seen`; None below 20."""

    def take(self, event: Event, previous: str | None) -> None:
        """Learn from the event; `previous` is the item the user touched before."""


class DecayedPopularity:
    """Items by their decayed number of events, ``sum 2^(-(t - t_i) / half_life)``."""

    def __init__(self, half_life_s: float, name: str) -> None:
        self.name = name
        self._half_life_ms = half_life_s * 1000
        self._rows: dict[str, int] = {}
        self._log_scores = np.full(1024, -np.inf)

    def rank_of(self, event: Event, seen: set[str], recent: list[str]) -> int | None:
        """See `Baseline`. Ties count against the method."""
        row = self._rows.get(event.item_id)
        if row is None:
            return None
        better = np.flatnonzero(self._log_scores[: len(self._rows)] >= self._log_scores[row])
        seen_rows = {self._rows[item] for item in seen if item in self._rows}
        rank = sum(1 for other in better.tolist() if other not in seen_rows)
        return rank if rank <= 20 else None

    def take(self, event: Event, previous: str | None) -> None:
        """See `Baseline`."""
        row = self._rows.setdefault(event.item_id, len(self._rows))
        if row == len(self._log_scores):
            self._log_scores = np.concatenate([self._log_scores, np.full(row, -np.inf)])
        # In log space relative to time zero nothing else has to be decayed.
        self._log_scores[row] = np.logaddexp2(self._log_scores[row], event.ts / self._half_life_ms)


class DecayedTransitions:
    """Items by the decayed number of times they followed the user's last item, topped up by popularity."""

    def __init__(self, half_life_s: float, fallback: DecayedPopularity, name: str) -> None:
        self.name = name
        self._half_life_ms = half_life_s * 1000
        self._fallback = fallback
        self._log_scores: dict[str, dict[str, float]] = defaultdict(dict)

    def rank_of(self, event: Event, seen: set[str], recent: list[str]) -> int | None:
        """See `Baseline`."""
        followed = self._log_scores.get(recent[0], {}) if recent else {}
        unseen = {item: score for item, score in followed.items() if item not in seen}
        own = unseen.get(event.item_id)
        if own is not None:
            rank = sum(1 for score in unseen.values() if score >= own)
        else:
            below = self._fallback.rank_of(event, seen | unseen.keys(), recent)
            if below is None:
                return None
            rank = len(unseen) + below
        return rank if rank <= 20 else None

    def take(self, event: Event, previous: str | None) -> None:
        """See `Baseline`."""
        if previous is not None and previous != event.item_id:
            scores = self._log_scores[previous]
            known = scores.get(event.item_id, -np.inf)
            scores[event.item_id] = float(np.logaddexp2(known, event.ts / self._half_life_ms))


def standard_baselines() -> list[Baseline]:
    """Popularity and transitions at several half-lives; the best of them is the one to beat."""
    popularity = [
        DecayedPopularity(seconds, f"popularity, half-life {name}")
        for seconds, name in ((900, "15m"), (3600, "1h"), (21600, "6h"), (86400, "1d"), (604800, "7d"))
    ]
    transitions = [
        DecayedTransitions(seconds, popularity[place], f"last-item transitions, half-life {name}")
        for seconds, name, place in ((3600, "1h", 1), (86400, "1d", 3), (604800, "7d", 4))
    ]
    return [*popularity, *transitions]
