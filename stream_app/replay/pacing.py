"""When each event of a replay is due, by its own time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stream_app.replay.planning import event_time_ms
from stream_app.replay.readers import Row

SLACK_S: Final = 0.02
"""Events due within this time of each other go together: sending one by one costs a request each."""


@dataclass
class Pacer:
    """Spreads events over time.

    Args:
        factor: Event seconds for each second of the clock; None: all is due at once.
    """

    factor: float | None
    _first_ms: int | None = None
    _newest_ms: int = 0

    def due_s(self, row: Row) -> float:
        """Seconds after the start at which `row` is due. Time never goes back: a late event is due at once."""
        if self.factor is None:
            return 0.0
        ts_ms = event_time_ms(row)
        if ts_ms > 0 and self._first_ms is None:
            self._first_ms = self._newest_ms = ts_ms
        self._newest_ms = max(self._newest_ms, ts_ms)
        return (self._newest_ms - (self._first_ms or 0)) / 1000 / self.factor if self._first_ms else 0.0

    def groups(self, rows: Sequence[Row]) -> Iterator[tuple[float, Sequence[Row]]]:
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
