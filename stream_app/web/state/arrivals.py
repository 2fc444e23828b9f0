"""When records came to this server, so that the time from an event to its list can be told.

The event's own time says nothing of when it came, and Kafka keeps no other for it. Both records are read by one
consumer, so the time between their arrivals is that between their appends, to within one fetch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final

import numpy as np

from stream_app.web.answers import Freshness

MAX_RUNS: Final = 4096
"""Runs of each partition whose arrival is known: minutes at the least."""

NUM_MEASURED: Final = 1000
"""Newest lists that the percentiles are of."""


class Arrivals:
    """When the runs of each partition of `events` arrived."""

    def __init__(self) -> None:
        self._first_offsets: dict[int, deque[int]] = {}
        self._times_s: dict[int, deque[float]] = {}
        self._ends: dict[int, int] = {}

    def note(self, partition: int, first_offset: int, last_offset: int, now_s: float) -> None:
        """Note that a run arrived; runs of a partition come in order."""
        self._first_offsets.setdefault(partition, deque(maxlen=MAX_RUNS)).append(first_offset)
        self._times_s.setdefault(partition, deque(maxlen=MAX_RUNS)).append(now_s)
        self._ends[partition] = last_offset

    def time_s(self, partition: int, offset: int) -> float | None:
        """When a record arrived; None where that is not known (any more)."""
        if offset > self._ends.get(partition, -1):
            return None
        place = bisect_right(self._first_offsets[partition], offset) - 1
        return self._times_s[partition][place] if place >= 0 else None


class Measured:
    """Times of the newest lists, in milliseconds."""

    def __init__(self) -> None:
        self._times_ms: deque[float] = deque(maxlen=NUM_MEASURED)

    def add(self, time_ms: float) -> None:
        """Take one more."""
        self._times_ms.append(time_ms)

    def freshness(self) -> Freshness:
        """Percentiles of the times; nulls where there are none."""
        if not self._times_ms:
            return Freshness(p50=None, p99=None)
        p50, p99 = np.percentile(list(self._times_ms), [50, 99])
        return Freshness(p50=round(float(p50), 1), p99=round(float(p99), 1))
