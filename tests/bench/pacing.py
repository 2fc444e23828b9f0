"""Sending at a rate, each at its time, however late the one before was."""

from __future__ import annotations

import asyncio
import time


class Pace:
    """The times at which things are due, so many a second; the first one now.

    Args:
        rate: Of them a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._started_s = time.perf_counter()
        self.late_s = 0.0
        """The most by which one went late."""

    async def wait(self, place: int) -> None:
        """Wait until the one at `place` is due."""
        due_s = self._started_s + place / self._rate
        if (wait_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        self.late_s = max(self.late_s, time.perf_counter() - due_s)
