"""Processors with an eye on them: each wraps a role's own, which knows nothing of being counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from stream_app.faustkit import Effects, OutRecord, Processor, Run, Stored, Values
from stream_app.monitoring.append_times import carry_on, oldest_carried, oldest_live
from stream_app.records import DriftRecord
from stream_app.stages.sequence import SequenceStage

_DRIFT = msgspec.json.Decoder(DriftRecord)

Tally = Callable[[Mapping[str, int]], None]


@dataclass(frozen=True)
class _Wrapped:
    """A processor that does as the one within."""

    within: Processor

    def opening(self) -> list[OutRecord]:
        """As the one within."""
        return self.within.opening()

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """As the one within."""
        self.within.restore(items)

    async def process(self, run: Run, values: Values) -> Effects:
        """As the one within."""
        return await self.within.process(run, values)


@dataclass(frozen=True)
class CountedSequence(_Wrapped):
    """Counts what became of the events of each run, and sends the time of the oldest on with its slices.

    Args:
        within: The role's own.
        stage: Its stage.
        slices: Full name of the topic of slices.
        outcomes: Takes how many events were applied, dropped and dead-lettered.
        drops: Takes the drops by name.
        dead_letters: Takes the dead letters by reason.
    """

    stage: SequenceStage
    slices: str
    outcomes: Tally
    drops: Tally
    dead_letters: Tally

    async def process(self, run: Run, values: Values) -> Effects:
        """As the one within, and count."""
        applied, dropped, refused = self.stage.applied, dict(self.stage.dropped), self.stage.totals.dead_lettered
        effects = await self.within.process(run, values)
        drops = _grown(dropped, self.stage.dropped)
        dead_letters = _grown(refused, self.stage.totals.dead_lettered)
        self.drops(drops)
        self.dead_letters(dead_letters)
        counts = {"dropped": sum(drops.values()), "dead_letter": sum(dead_letters.values())}
        # Less than nothing where a history was erased that a worker which died had counted twice.
        self.outcomes({"applied": max(0, self.stage.applied - applied), **counts})
        return replace(effects, outputs=carry_on(effects.outputs, self.slices, oldest_live(run)))


@dataclass(frozen=True)
class CarryingEncode(_Wrapped):
    """Sends the time of the oldest event on with the vectors, and tells the drift where it was measured.

    Args:
        within: The role's own.
        slice_vectors: Full name of the topic of vectors.
        drift: Full name of the topic of the drift's figures.
        note_overlap: Takes the share of the ten best items that merged and newly encoded vectors have in common.
    """

    slice_vectors: str
    drift: str
    note_overlap: Callable[[float], None]

    async def process(self, run: Run, values: Values) -> Effects:
        """As the one within."""
        effects = await self.within.process(run, values)
        for fact in effects.facts:
            if fact.topic == self.drift and fact.value is not None:
                self.note_overlap(_DRIFT.decode(fact.value).mean_overlap_10)
        return replace(effects, outputs=carry_on(effects.outputs, self.slice_vectors, oldest_carried(run)))


@dataclass(frozen=True)
class TimedRecommend(_Wrapped):
    """Tells how old the oldest event of a run is when its lists are acknowledged.

    Args:
        within: The role's own.
        note_lists: Takes the event's time (ms).
    """

    note_lists: Callable[[int], None]

    async def process(self, run: Run, values: Values) -> Effects:
        """As the one within."""
        effects = await self.within.process(run, values)
        appended_ms = oldest_carried(run)
        if appended_ms is None or not effects.outputs:
            return effects
        return replace(effects, on_published=partial(self.note_lists, appended_ms))


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """By how much each count grew, where it did."""
    return {name: num - before.get(name, 0) for name, num in after.items() if num > before.get(name, 0)}
