"""Standing still: at an event time that was asked for, and when the terminal's Ctrl-Z asks for it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from stream_app.replay.pacing import place_of
from stream_app.replay.readers import AnyRow


def _say_nothing(num_events: int) -> None:
    """Drop a word about a pause."""


class Pauses:
    """When a replay stands still. It does so between groups only: everything before is acknowledged by Kafka.

    Args:
        at_ms: Pause before the first event whose time has come to this (ms since 1970); None: never.
        on_pause: Told the number of events sent when such a pause begins.

    Attributes:
        go_on: Ends such a pause.
        suspend: Asks for the whole process to be stopped at the next place, as Ctrl-Z does.
    """

    def __init__(self, at_ms: int | None = None, on_pause: Callable[[int], None] = _say_nothing) -> None:
        self.go_on = asyncio.Event()
        self.suspend = asyncio.Event()
        self._at_ms = at_ms
        self._on_pause = on_pause

    def cut(self, rows: Sequence[AnyRow]) -> list[Sequence[AnyRow]]:
        """The rows, cut where the pause comes, if it comes among them."""
        place = 0 if self._at_ms is None else place_of(rows, self._at_ms)
        return [part for part in (rows[:place], rows[place:]) if part]

    async def before(self, rows: Sequence[AnyRow], num_sent: int, stop: asyncio.Event) -> None:
        """Stand still where it is due before `rows`, until `go_on` or `stop` is set."""
        if self._at_ms is None or place_of(rows[:1], self._at_ms):
            return
        self._at_ms = None
        self.go_on.clear()
        self._on_pause(num_sent)
        await any_set((self.go_on, stop))

    def stand_by(self) -> None:
        """Stop this process if that was asked for; returns once SIGCONT (`fg`) has come."""
        if self.suspend.is_set():
            self.suspend.clear()
            # To this very thread: it does not run on for a moment, as it may when the process is the target.
            signal.raise_signal(signal.SIGSTOP)


async def any_set(events: Sequence[asyncio.Event], timeout_s: float | None = None) -> None:
    """Wait until one of the events is set, at most `timeout_s`; without one as long as it takes."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
