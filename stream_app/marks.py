"""Marks of progress among the records of a run, which travel on behind what they vouch for."""

from __future__ import annotations

from stream_app.faustkit import Run
from stream_app.records import MARK_KEY


def without_marks(run: Run) -> list[tuple[int, bytes]]:
    """Offsets and values of a run's records but the marks.

    A null value becomes empty bytes, which no decoder takes: such a record ends the process, as anything unreadable.
    """
    rows = zip(run.keys, run.offsets, run.values, strict=True)
    return [(offset, value or b"") for key, offset, value in rows if key != MARK_KEY]


def last_mark(run: Run) -> bytes | None:
    """The value of a run's last mark, which says what all of them do; None where there is none."""
    marks = [value for key, value in zip(run.keys, run.values, strict=True) if key == MARK_KEY]
    return marks[-1] if marks else None
