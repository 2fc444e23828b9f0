"""Replaying a log to Kafka: its events in order, with their own times, and ticks of event time between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import msgspec

from stream_app.errors import LogFormatError, UsageError
from stream_app.kafka import partition_of
from stream_app.records import Item
from stream_app.replay.pacing import Pacer
from stream_app.replay.planning import Counted, PlannedRecord, ReplayPlan
from stream_app.replay.readers import EventLog, Row, read_items
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
    log: EventLog,
    settings: Settings,
    *,
    type_map: Mapping[str, str] | None = None,
    speed: float | None = None,
    limit: int | None = None,
    send_unknown_types: bool = False,
    stop: asyncio.Event | None = None,
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
        stop: Once set, nothing more is sent but the last tick.
        on_sent: Told of progress.

    Returns:
        What was sent.

    Raises:
        UsageError: The first events have types that the settings do not name.
        LogFormatError: The log cannot be read on.
        KafkaUnreachableError: Kafka did not acknowledge.
        TopicMismatchError: There is no topic `events`.
    """
    stop = stop or asyncio.Event()
    topic = prefixed(settings.prefix, EVENTS)
    async with TopicReader(settings) as reader:
        num_partitions = await reader.num_partitions(topic)
    plan = ReplayPlan(num_partitions, settings.epoch_ms, type_map=type_map, fields=settings.fields)
    chunks = iter(log.iter_chunks(limit=limit))
    first = next(chunks, [])
    if not send_unknown_types:
        check_types(first, plan, settings)
    pacer, started_s = Pacer(speed), time.monotonic()
    async with BatchSender(settings, topic) as sender:
        try:
            for due_s, rows in _groups(pacer, chain([first], chunks)):
                await _wait_until(started_s + due_s, stop)
                if stop.is_set():
                    break
                await sender.send(plan.records_of(rows))
                on_sent(plan.counted.num_events)
        finally:
            # Also after an error: nobody may wait for an epoch that will never be complete.
            await sender.send(plan.last_ticks())
    return plan.counted


def check_types(rows: Sequence[Row], plan: ReplayPlan, settings: Settings) -> None:
    """Refuse a log whose first rows are of types that would all become dead letters.

    Raises:
        UsageError: Names the types, and the setting or flag that mends it.
    """
    types = {plan.type_of(row) for row in rows if isinstance(row, dict)}
    if unknown := sorted(types - set(settings.event_types)):
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


def item_record(item: Mapping[str, object], num_partitions: int, now_ms: int) -> PlannedRecord:
    """The record of one item of a catalogue.

    Raises:
        LogFormatError: A field is of another kind than an item's.
    """
    try:
        made = msgspec.convert(dict(item), Item, strict=False)
    except msgspec.ValidationError as error:
        raise LogFormatError(
            f"The item {item.get('item_id')!r} is none: {error}.", mend="correct this line of the item file"
        ) from error
    key = made.item_id.encode("utf-8")
    return PlannedRecord(partition_of(key, num_partitions), now_ms, key, msgspec.json.encode(made), [])


def _groups(pacer: Pacer, chunks: Iterable[Sequence[Row]]) -> Iterator[tuple[float, Sequence[Row]]]:
    for chunk in chunks:
        yield from pacer.groups(chunk)


async def _wait_until(due_s: float, stop: asyncio.Event) -> None:
    """Wait until the monotonic clock shows `due_s`, or `stop` is set."""
    wait_s = due_s - time.monotonic()
    if wait_s <= 0:
        await asyncio.sleep(0)
        return
    try:
        await asyncio.wait_for(stop.wait(), wait_s)
    except TimeoutError:
        return
