"""When each event of a replay is due, by its own time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stream_app.replay.planning import event_time_ms
from stream_app.replay.readers import AnyRow

SLACK_S: Final = 0.02
"""Events due within this time of each other go together: sending one by one costs a request each."""

MAX_LATE_S: Final = 1.0
"""Who is later than this goes on from where he is. So after a pause, or when Kafka was slow, no burst makes up for it;
less is made up for, so that many small delays do not add up."""


@dataclass
class Pacer:
    """Spreads events over time.

    Args:
        factor: Event seconds for each second of the clock; None: all is due at once.
    """

    factor: float | None
    _first_ms: int | None = None
    _newest_ms: int = 0

    def due_s(self, row: AnyRow) -> float:
        """Seconds after the start at which `row` is due. Time never goes back: a late event is due at once."""
        if self.factor is None:
            return 0.0
        ts_ms = event_time_ms(row)
        if ts_ms > 0 and self._first_ms is None:
            self._first_ms = self._newest_ms = ts_ms
        self._newest_ms = max(self._newest_ms, ts_ms)
        return (self._newest_ms - (self._first_ms or 0)) / 1000 / self.factor if self._first_ms else 0.0

    def groups(self, rows: Sequence[AnyRow]) -> Iterator[tuple[float, Sequence[AnyRow]]]:
        """The rows cut into runs that are due together, each with its time."""
        start, group_due_s = 0, None
        for place, row in enumerate(rows):
            due_s = self.due_s(row)
            if group_due_s is None:
                group_due_s = due_s
            elif due_s - group_due_s > SLACK_S:
                yield group_due_s, rows[start:place]
                start, group_due_s = place, due_s
        if group_due_s is not None:
            yield group_due_s, rows[start:]


class Schedule:
    """Keeps to the times of a pacer on a clock that runs on while the replay stands still.

    Args:
        clock_s: A monotonic clock in seconds.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._start_s = clock_s()

    def wait_s(self, due_s: float) -> float:
        """How long to wait for what is due at `due_s`, in seconds; what is much too late is due now, and so on."""
        late_s = self._clock_s() - self._start_s - due_s
        if late_s > MAX_LATE_S:
            self._start_s += late_s
        return max(0.0, -late_s)


def place_of(rows: Sequence[AnyRow], time_ms: int) -> int:
    """The place of the first row whose event time has come to `time_ms`; the number of rows where none has."""
    return next((place for place, row in enumerate(rows) if event_time_ms(row) >= time_ms), len(rows))
