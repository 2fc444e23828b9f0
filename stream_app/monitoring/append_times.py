"""The time of the oldest event of a run, carried behind what the run causes, so that freshness is known at the end.

A fact of the wall clock, so it travels in a header: one for each run, on its last record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from stream_app.faustkit import OutRecord, Run
from stream_app.records import MARK_KEY, STRICT_HEADER, TICK_HEADER

APPENDED_HEADER: Final = "sliceflow-appended"
"""Header on `slices` and `slice-vectors`: the Kafka time (ms, decimal) of the oldest event that led to the run."""

MAX_DIGITS: Final = 15
"""Longest time in a header; a longer one is not ours."""

_REPLAYED: Final = frozenset({STRICT_HEADER, TICK_HEADER})


def oldest_live(run: Run) -> int | None:
    """The time (ms) of the oldest record of a run of `events`; None in a replay, whose record times are the log's."""
    if any(name in _REPLAYED for headers in run.headers if headers for name, _ in headers):
        return None
    return min(run.timestamps_ms)


def oldest_carried(run: Run) -> int | None:
    """The oldest time (ms) that records of a run carry; None where none does."""
    texts = [text for headers in run.headers if headers for name, text in headers if name == APPENDED_HEADER]
    times = [int(text) for text in texts if text and text.isdigit() and len(text) <= MAX_DIGITS]
    return min(times, default=None)


def carry_on(outputs: Sequence[OutRecord], topic: str, appended_ms: int | None) -> list[OutRecord]:
    """The outputs, the last one on `topic` that is no mark with the time in its headers."""
    carried = list(outputs)
    if appended_ms is None:
        return carried
    for place in range(len(carried) - 1, -1, -1):
        if carried[place].topic == topic and carried[place].key != MARK_KEY:
            headers = [*carried[place].headers, (APPENDED_HEADER, b"%d" % appended_ms)]
            carried[place] = msgspec.structs.replace(carried[place], headers=headers)
            break
    return carried
