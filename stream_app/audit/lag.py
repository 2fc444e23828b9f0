"""Lag: every role works off its input within a bound, and no partition stands still meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stream_app.audit.findings import Check


class Place(NamedTuple):
    """A partition of the input of a role."""

    role: str
    topic: str
    partition: int


class CatchUp:
    """Watches committed offsets on their way to where the input ended at the start.

    Args:
        bounds: First offset of each partition, and the end to be reached.
        committed: What is committed at the start; partitions without a commit are left out.
    """

    def __init__(self, bounds: Mapping[Place, tuple[int, int]], committed: Mapping[Place, int]) -> None:
        self._bounds = dict(bounds)
        self._at_start = dict(committed)
        self._newest = dict(committed)

    def take(self, committed: Mapping[Place, int]) -> None:
        """Take what is committed now."""
        self._newest = dict(committed)

    def behind(self) -> dict[Place, tuple[int, int]]:
        """Where something is left to be worked off: from which offset, up to before which."""
        left = {}
        for place, (start, end) in self._bounds.items():
            reached = max(start, self._newest.get(place, start))
            if reached < end:
                left[place] = (reached, end)
        return left

    @property
    def num_behind(self) -> int:
        """Records left, over all partitions."""
        return sum(end - reached for reached, end in self.behind().values())

    def reached(self, place: Place) -> None:
        """Nothing is left in a partition after all: what stands there are marks of transactions."""
        start, _ = self._bounds[place]
        self._bounds[place] = (start, start)

    def judge(self, check: Check, waited_s: float) -> None:
        """Note every partition that was not worked off."""
        behind = self.behind()
        lags: dict[str, int] = {}
        for place, (reached, end) in behind.items():
            lags[place.role] = lags.get(place.role, 0) + end - reached
            where = {"topic": place.topic, "partition": place.partition, "offset": reached}
            moved = self._newest.get(place, -1) != self._at_start.get(place, -1)
            what = f"{place.role} is {end - reached} records behind after {waited_s:.1f} s"
            seen = what if moved else f"{what}, and its committed offset did not move"
            check.breach(seen, f"{end} committed", **where)  # type: ignore[arg-type]
        check.num_checked += len(self._bounds)
        check.facts = {"waited_s": round(waited_s, 3), "lag": lags}
        check.summary = f"{sum(lags.values()):,} records behind after {waited_s:.1f} s"
