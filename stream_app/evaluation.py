"""Temporal evaluation: walk the log after a split in order of time, judge each list before the event is taken in.

A target is an event on an item that is new to its user, who has at least one earlier event. All items known so
far compete, except those the user has seen; an item that is not in the list of 20 counts as a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from encoders.contract import SliceEncoder
from stream_app.baselines import Baseline
from stream_app.offline import Moment, OfflineStream
from stream_app.records import Event
from stream_app.settings import Settings
from stream_app.stages.metrics import Quality, quality
from stream_app.stages.ranking import rank

LIST_ITEMS = 20


@dataclass
class _Ranks:
    """Ranks of the right items, and their users, for each method."""

    users: list[str] = field(default_factory=list)
    ranks: dict[str, list[int | None]] = field(default_factory=dict)


def evaluate(
    events: Sequence[Event],
    settings: Settings,
    encoder: SliceEncoder,
    weights_by_name: dict[str, npt.NDArray[np.float64]],
    from_ms: int,
    *,
    baselines: Sequence[Baseline] = (),
    report: Callable[[str], None] = print,
) -> dict[str, Quality]:
    """Quality of the stream's lists under each weight vector (F,), and of the baselines, from `from_ms` on.

    Args:
        events: In order of time; those before `from_ms` only build up state.
        settings: How the stream is cut and ranked.
        encoder: Must be trained on events before `from_ms` only.
        weights_by_name: Scorer weights to judge, by the name they are reported under.
        from_ms: The split.
        baselines: Online methods to judge on the same targets.
        report: Takes lines of progress.
    """
    found = _Ranks(ranks={name: [] for name in [*weights_by_name, *(method.name for method in baselines)]})
    walker = _BaselineWalk(baselines)
    stream = OfflineStream(settings, encoder)
    for number, moment in enumerate(stream.walk(events, ask_from_ms=from_ms)):
        if moment.found is not None:
            found.users.append(moment.event.user_id)
            for name, weights_F in weights_by_name.items():
                found.ranks[name].append(_rank(moment, weights_F))
            walker.judge(moment.event, found.ranks)
        walker.take(moment.event)
        if number and number % 20000 == 0:
            report(f"{number}/{len(events)} events, {len(found.users)} targets")
    return {name: quality(ranks, found.users) for name, ranks in found.ranks.items()}


def _rank(moment: Moment, weights_F: npt.NDArray[np.float64]) -> int | None:
    assert moment.found is not None and moment.features_CF is not None
    listed = rank(moment.found, moment.features_CF, weights_F, LIST_ITEMS)
    for place, item in enumerate(listed, start=1):
        if item.item_id == moment.event.item_id:
            return place
    return None


class _BaselineWalk:
    """Histories as the baselines need them, and their ranks."""

    def __init__(self, baselines: Sequence[Baseline]) -> None:
        self._baselines = baselines
        self._seen: dict[str, set[str]] = {}
        self._last: dict[str, str] = {}

    def judge(self, event: Event, ranks: dict[str, list[int | None]]) -> None:
        """Add each baseline's rank for the event's item."""
        seen = self._seen.get(event.user_id, set())
        recent = [self._last[event.user_id]] if event.user_id in self._last else []
        for method in self._baselines:
            ranks[method.name].append(method.rank_of(event, seen, recent))

    def take(self, event: Event) -> None:
        """Let the baselines learn from the event."""
        previous = self._last.get(event.user_id)
        for method in self._baselines:
            method.take(event, previous)
        self._seen.setdefault(event.user_id, set()).add(event.item_id)
        self._last[event.user_id] = event.item_id
