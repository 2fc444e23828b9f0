"""Handling records one by one, with the promises of whole runs.

`each` makes the processors of `BatchApp.attach` out of one asynchronous function. It is asked about one record at a
time; what it answers for a whole run is published and acknowledged together, then its values are kept, then the run
is committed.

    async def count(event: Event, value: bytes | None) -> Outcome:
        number = int(value or b"0") + 1
        return Outcome([OutRecord("counts", event.partition, event.key, b"%d" % number)], b"%d" % number)

    app.attach("events", each(count), table="counts")
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from stream_app.faustkit.effects import Effects, OutRecord
from stream_app.faustkit.keeping import Values
from stream_app.faustkit.processor import Processor
from stream_app.faustkit.run import Headers, Run
from stream_app.faustkit.store import Stored


class Event(msgspec.Struct, frozen=True, gc=False):
    """One record of a run."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers


@dataclass(frozen=True)
class Outcome:
    """What a record causes: records to publish, and the value its key has from now on (None: it stays as it was)."""

    outputs: Sequence[OutRecord] = ()
    value: bytes | None = None


Handler = Callable[[Event, bytes | None], Awaitable[Outcome]]
"""Is given a record and the value of its key, None if there is none. It may wait, but must not write anywhere itself.

What it raises ends the process. It is not asked about a record that the value of its key reflects already; so a
handler that keeps a value for each record (an empty one will do) publishes for replays only what was not kept.
"""


def each(handler: Handler) -> Callable[[int], Processor]:
    """Processors for `BatchApp.attach` that ask `handler` about each record in turn.

    A record without key has no value; keeping one for it ends the process with a ValueError.
    """
    return lambda _: _EachRecord(handler)


class _EachRecord:
    """Asks a handler about each record of a run, in order."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def opening(self) -> list[OutRecord]:
        """Nothing."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing: values are read from the store when they are needed."""

    async def process(self, run: Run, values: Values) -> Effects:
        """All that the records of `run` cause."""
        keys = list({key for key in run.keys if key is not None})
        kept: dict[bytes | None, Stored | None] = dict(zip(keys, values.get_many(keys), strict=True))
        effects = Effects()
        for columns in zip(run.offsets, run.keys, run.values, run.timestamps_ms, run.headers, strict=True):
            event = Event(run.topic, run.partition, *columns)
            stored = kept.get(event.key)
            if stored is not None and event.offset <= stored.position:
                continue
            outcome = await self._handler(event, None if stored is None else stored.payload)
            effects.outputs += outcome.outputs
            if outcome.value is not None:
                kept[event.key] = _keep(effects, event, outcome.value)
        return effects


def _keep(effects: Effects, event: Event, value: bytes) -> Stored:
    if event.key is None:
        raise ValueError(f"The record at offset {event.offset} has no key, so no value can be kept for it.")
    effects.changes[event.key] = stored = Stored(event.offset, value)
    return stored
