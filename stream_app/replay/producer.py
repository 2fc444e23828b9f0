"""Replaying a log to Kafka: its events in order, with their own times, and ticks of event time between."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stream_app.errors import LogFormatError, UsageError
from stream_app.kafka import partition_of
from stream_app.records import ERASE_TYPE, Item
from stream_app.replay.pacing import Pacer, Schedule
from stream_app.replay.pausing import Pauses, any_set
from stream_app.replay.place import FORMAT, Arrived, Keeping, Place, PlaceFile, check_same, look_up
from stream_app.replay.planning import Counted, PlannedRecord, ReplayPlan
from stream_app.replay.readers import AnyRow, Log, read_items
from stream_app.replay.sender import BatchSender
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader
from stream_app.topics import EVENTS, ITEMS, prefixed

OnSent = Callable[[int], None]
"""Told the number of events sent so far."""

ITEMS_AT_ONCE = 2000


def _say_nothing(num_sent: int) -> None:
    """Drop a report of progress."""


async def replay_log(
    log: Log,
    settings: Settings,
    *,
    type_map: Mapping[str, str] | None = None,
    speed: float | None = None,
    limit: int | None = None,
    send_unknown_types: bool = False,
    stop: asyncio.Event | None = None,
    pauses: Pauses | None = None,
    keeping: Keeping | None = None,
    on_sent: OnSent = _say_nothing,
) -> Counted:
    """Send the events of `log` to `events`, each acknowledged, and a last tick to every partition.

    Args:
        log: The log.
        settings: With a Kafka address.
        type_map: Our event type by the log's.
        speed: Event seconds for each second of the clock; None: as fast as it goes.
        limit: Stop after this many rows.
        send_unknown_types: Send events of types that the settings do not name: they become dead letters.
        stop: Once set, the replay breaks off: nothing more is sent but a tick that lets go of the clock.
        pauses: When it stands still.
        keeping: Where its place is kept, so that it can go on after it was broken off.
        on_sent: Told of progress.

    Returns:
        What was sent, together with what had been sent before the place where it went on.

    Raises:
        UsageError: The first events have types that the settings do not name, or another replay was broken off.
        LogFormatError: The log cannot be read on.
        KafkaUnreachableError: Kafka did not acknowledge.
        TopicMismatchError: There is no topic `events`.
    """
    topic = prefixed(settings.prefix, EVENTS)
    async with TopicReader(settings) as reader:
        bounds = await reader.bounds(topic)
    plan = plan_for(log, settings, len(bounds), type_map)
    rows = _LogRows(log.iter_chunks(limit=limit), plan)
    await rows.begin()
    if not send_unknown_types:
        check_types(rows.chunk, plan, settings)
    place = Place(
        format=FORMAT,
        identity=_identity(log, settings, topic, len(bounds), type_map, limit),
        num_rows=0,
        ends={number: end for number, (_, end) in bounds.items()},
        before=dict(keeping.before) if keeping else {},
    )
    arrived = Arrived()
    if keeping is not None and keeping.place is not None:
        check_same(keeping.place, place.identity)
        place = keeping.place
        arrived = await look_up(settings, topic, place.ends)
        await rows.skip(place.num_rows)
    control = _Control(stop or asyncio.Event(), pauses or Pauses(), Pacer(speed), Schedule())
    async with BatchSender(settings, topic) as sender:
        sending = _Sending(sender, plan, control, place, keeping.file if keeping else None)
        await sending.send_all(rows, arrived, on_sent)
    return plan.counted


def plan_for(log: Log, settings: Settings, num_partitions: int, type_map: Mapping[str, str] | None) -> ReplayPlan:
    """The plan by which the rows of `log` become records for so many partitions."""
    return ReplayPlan(
        num_partitions,
        settings.epoch_ms,
        type_map=type_map,
        fields=settings.fields,
        keeps_partitions=log.num_partitions == num_partitions,
    )


def _identity(
    log: Log,
    settings: Settings,
    topic: str,
    num_partitions: int,
    type_map: Mapping[str, str] | None,
    limit: int | None,
) -> dict[str, Any]:
    """All that the records of a replay follow from, as plain values."""
    return {
        "log": log.identity(),
        "topic": topic,
        "partitions": num_partitions,
        "epoch_ms": settings.epoch_ms,
        "fields": settings.fields,
        "type map": dict(type_map or {}),
        "limit": limit,
    }


class _LogRows:
    """The chunks of a log, read in another thread: unpacking a file or waiting for a topic holds up nobody.

    Attributes:
        chunk: The one that comes next; empty at the end.
    """

    def __init__(self, chunks: Iterator[Sequence[AnyRow]], plan: ReplayPlan) -> None:
        self.chunk: Sequence[AnyRow] = []
        self._chunks = chunks
        self._plan = plan

    async def begin(self) -> None:
        """Read the first chunk."""
        nothing: Sequence[AnyRow] = []
        self.chunk = await asyncio.to_thread(next, self._chunks, nothing)

    async def skip(self, num_rows: int) -> None:
        """Only count the next `num_rows` rows."""
        while num_rows and self.chunk:
            done, self.chunk = self.chunk[:num_rows], self.chunk[num_rows:]
            deque(self._plan.records_of(done), maxlen=0)
            num_rows -= len(done)
            if not self.chunk:
                await self.begin()

    async def chunks(self) -> AsyncIterator[Sequence[AnyRow]]:
        """All that is left."""
        while self.chunk:
            yield self.chunk
            await self.begin()


@dataclass(frozen=True)
class _Control:
    """What decides when a group is sent, and whether."""

    stop: asyncio.Event
    pauses: Pauses
    pacer: Pacer
    schedule: Schedule

    def groups(self, chunk: Sequence[AnyRow]) -> Iterator[tuple[float, Sequence[AnyRow]]]:
        """The rows that are sent together, with the time at which they are due."""
        for part in self.pauses.cut(chunk):
            yield from self.pacer.groups(part)

    async def may_go(self, due_s: float, rows: Sequence[AnyRow], num_sent: int) -> bool:
        """Wait until `rows` are due; False where the replay was stopped before."""
        self.pauses.stand_by()
        await asyncio.sleep(0)
        while not self.stop.is_set() and (wait_s := self.schedule.wait_s(due_s)) > 0:
            await any_set((self.stop, self.pauses.suspend), wait_s)
            self.pauses.stand_by()
        await self.pauses.before(rows, num_sent, self.stop)
        return not self.stop.is_set()


class _Sending:
    """Sends groups of rows, and keeps the place after each."""

    def __init__(
        self, sender: BatchSender, plan: ReplayPlan, control: _Control, place: Place, file: PlaceFile | None
    ) -> None:
        self._sender = sender
        self._plan = plan
        self._control = control
        self._place = place
        self._file = file

    async def send_all(self, rows: _LogRows, arrived: Arrived, on_sent: OnSent) -> None:
        """Send all rows and the last ticks; or break off, and let go of the clock."""
        counted = self._plan.counted
        counted.is_broken_off = True
        self._keep({}, is_due=True)
        try:
            if self._place.num_rows:
                await self._sender.send(self._plan.resume_ticks())
            counted.is_broken_off = not await self._send_rows(rows, arrived, on_sent)
        finally:
            # Also after an error: nobody may wait for a clock that nobody drives.
            await self._sender.send(self._plan.release_ticks() if counted.is_broken_off else self._plan.last_ticks())
            self._keep({}, is_due=True)

    async def _send_rows(self, rows: _LogRows, arrived: Arrived, on_sent: OnSent) -> bool:
        counted = self._plan.counted
        async for chunk in rows.chunks():
            for due_s, group in self._control.groups(chunk):
                if not await self._control.may_go(due_s, group, counted.num_events):
                    return False
                ends = await self._sender.send(arrived.missing(self._plan.records_of(group)))
                self._keep(ends, num_rows=len(group))
                on_sent(counted.num_events)
        return True

    def _keep(self, ends: Mapping[int, int], *, num_rows: int = 0, is_due: bool = False) -> None:
        """Note that so many more rows are acknowledged, and where their records end."""
        place = self._place
        # Ticks do not count: whoever goes on looks for events behind the last one that was acknowledged.
        self._place = msgspec.structs.replace(place, num_rows=place.num_rows + num_rows, ends={**place.ends, **ends})
        if self._file is not None:
            self._file.write(self._place, is_due=is_due)


def check_types(rows: Sequence[AnyRow], plan: ReplayPlan, settings: Settings) -> None:
    """Refuse a log whose first rows are of types that would all become dead letters.

    Raises:
        UsageError: Names the types, and the setting or flag that mends it.
    """
    types = {plan.type_of(row) for row in rows if isinstance(row, dict)}
    if unknown := sorted(types - set(settings.event_types) - {ERASE_TYPE}):
        accepted = ", ".join(settings.event_types)
        raise UsageError(
            f"The log has events of the types {', '.join(unknown[:10])}; accepted are {accepted}.",
            mend=f"map them (--type-map {unknown[0]}={next(iter(settings.event_types))}), name them in "
            "event_types in the settings of the roles and of this command, or pass --send-unknown-types",
        )


async def send_items(path: Path, settings: Settings) -> int:
    """Send a catalogue to `items`; how many items it has.

    Raises:
        LogFormatError: A line is no item.
        KafkaUnreachableError: Kafka did not acknowledge.
        TopicMismatchError: There is no topic `items`.
    """
    topic = prefixed(settings.prefix, ITEMS)
    async with TopicReader(settings) as reader:
        num_partitions = await reader.num_partitions(topic)
    num_sent = 0
    now_ms = time.time_ns() // 1_000_000
    async with BatchSender(settings, topic) as sender:
        pending: list[PlannedRecord] = []
        for item in read_items(path):
            pending.append(item_record(item, num_partitions, now_ms))
            if len(pending) >= ITEMS_AT_ONCE:
                await sender.send(pending)
                num_sent += len(pending)
                pending = []
        await sender.send(pending)
    return num_sent + len(pending)


def item_of(item: Mapping[str, object]) -> Item:
    """One item of a catalogue.

    Raises:
        LogFormatError: A field is of another kind than an item's.
    """
    try:
        return msgspec.convert(dict(item), Item, strict=False)
    except msgspec.ValidationError as error:
        raise LogFormatError(
            f"The item {item.get('item_id')!r} is none: {error}.", mend="correct this line of the item file"
        ) from error


def item_record(item: Mapping[str, object], num_partitions: int, now_ms: int) -> PlannedRecord:
    """The record of one item of a catalogue.

    Raises:
        LogFormatError: A field is of another kind than an item's.
    """
    made = item_of(item)
    key = made.item_id.encode("utf-8")
    return PlannedRecord(partition_of(key, num_partitions), now_ms, key, msgspec.json.encode(made), [])
