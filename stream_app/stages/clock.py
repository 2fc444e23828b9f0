"""Event time of one partition: its watermark and its epoch, which never go back."""

from __future__ import annotations

import msgspec


class PartitionClock(msgspec.Struct, array_like=True):
    """How far event time has come on one partition of `events`.

    `newest_ms` is the greatest event or tick time seen (-1: none); `strict` is set while ticks drive the clock
    (a replay), so that nobody downstream may treat this partition as idle.
    """

    newest_ms: int = -1
    strict: bool = False

    def advance(self, ts_ms: int) -> None:
        """Take in the time of an event or a tick."""
        self.newest_ms = max(self.newest_ms, ts_ms)

    def watermark_ms(self, allowed_lateness_ms: int) -> int:
        """No event older than this is waited for; -1 before the first event."""
        return max(-1, self.newest_ms - allowed_lateness_ms)

    def epoch(self, epoch_ms: int) -> int:
        """The epoch of trends that event time is in; -1 before the first event."""
        return self.newest_ms // epoch_ms
