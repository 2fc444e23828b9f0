"""Which part of a topic is replayed: from and to an offset, or a record time.

Times are *record* times, because those Kafka can look up, and what it finds is one run of offsets in each partition.
Whatever this project sends has its event's time as record time; other producers' records have the time of sending.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_app.errors import LogFormatError, UsageError
from stream_app.kafka import REQUEST_TIMEOUT_MS, as_unreachable, connection
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader

Ranges = Mapping[int, tuple[int, int]]
"""First offset, and the one behind the last, by partition."""

_OFFSET: Final = re.compile(r"\d{1,18}", re.ASCII)
_PAIRS: Final = re.compile(r"\d{1,9}:\d{1,18}(,\d{1,9}:\d{1,18})*", re.ASCII)
_MILLISECONDS: Final = re.compile(r"(\d{1,15})ms", re.ASCII)
_UNIX_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MEND: Final = (
    "pass an offset (100), partitions with offsets (0:100,1:250), or a record time "
    "(2024-05-31T12:00:00Z, 1717156800000ms)"
)


@dataclass(frozen=True)
class Bound:
    """One end of a range, as it was asked for: one of the three.

    Args:
        offset: The same in every partition.
        offsets: By partition; the others are not bounded.
        time_ms: The first record at or after this record time.
    """

    offset: int | None = None
    offsets: Mapping[int, int] = field(default_factory=dict)
    time_ms: int | None = None


def parse_bound(text: str, option: str) -> Bound:
    """Read the value of `option`.

    Raises:
        UsageError: It is none of the forms, or names a partition twice.

    >>> parse_bound("7", "--to").offset, parse_bound("0:7,2:9", "--to").offsets, parse_bound("5ms", "--to").time_ms
    (7, {0: 7, 2: 9}, 5)
    """
    if _OFFSET.fullmatch(text):
        return Bound(offset=int(text))
    if _PAIRS.fullmatch(text):
        pairs = [tuple(map(int, pair.split(":"))) for pair in text.split(",")]
        offsets = {partition: offset for partition, offset in pairs}
        if len(offsets) < len(pairs):
            raise UsageError(f"{option} {text} names a partition twice.", mend=_MEND)
        return Bound(offsets=offsets)
    return Bound(time_ms=parse_time_ms(text, option, mend=_MEND))


def parse_time_ms(
    text: str, option: str, *, mend: str = "write it like 2024-05-31T12:00:00Z or 1717156800000ms"
) -> int:
    """A time in ms since 1970, from RFC 3339 with a zone, or a number with ``ms``.

    Raises:
        UsageError: It is neither.
    """
    if number := _MILLISECONDS.fullmatch(text):
        return int(number[1])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {text} cannot be read: {error}.", mend=mend) from error
    if moment.tzinfo is None:
        raise UsageError(f"{option} {text} names no time zone.", mend=f"add one: {text}Z for UTC")
    return (moment - _UNIX_START) // timedelta(milliseconds=1)


async def resolve_ranges(
    settings: Settings, topic: str, start: Bound | None, end: Bound | None
) -> dict[int, tuple[int, int]]:
    """The offsets that `start` and `end` stand for now; None: all there is.

    Raises:
        UsageError: A partition that is named is not there.
        LogFormatError: Records at the start were removed meanwhile, or no record is in the range.
        KafkaUnreachableError: The broker does not answer.
        TopicMismatchError: There is no such topic.
    """
    async with TopicReader(settings) as reader:
        bounds = await reader.bounds(topic)
    first = await _offsets_of(settings, topic, start or Bound(), {number: low for number, (low, _) in bounds.items()})
    last = await _offsets_of(settings, topic, end or Bound(), {number: high for number, (_, high) in bounds.items()})
    check_kept(topic, first, {number: low for number, (low, _) in bounds.items()})
    ranges = {number: (first[number], min(last[number], high)) for number, (_, high) in bounds.items()}
    if all(low >= high for low, high in ranges.values()):
        whole = ", ".join(f"{number}:{low}-{high}" for number, (low, high) in sorted(bounds.items()))
        raise LogFormatError(
            f"{topic} holds no record in that range; its partitions hold the offsets {whole}.",
            mend="choose another --from and --to",
        )
    return {number: (low, max(low, high)) for number, (low, high) in ranges.items()}


def check_kept(topic: str, needed: Mapping[int, int], starts: Mapping[int, int]) -> None:
    """See that no record from the offsets `needed` on was removed: `starts` are where the partitions begin now.

    Raises:
        LogFormatError: Some were; says which.
    """
    gone = [
        f"{topic}[{number}] from offset {offset} to {starts[number] - 1}"
        for number, offset in sorted(needed.items())
        if offset < starts[number]
    ]
    if gone:
        raise LogFormatError(
            f"Kafka has removed records of the range: {', '.join(gone)}.",
            mend="begin later (--from), or keep the topic's records longer (retention.ms, retention.bytes)",
        )


async def _offsets_of(settings: Settings, topic: str, bound: Bound, default: Mapping[int, int]) -> dict[int, int]:
    """The offset of a bound in each partition; `default` where it says nothing."""
    if bound.time_ms is not None:
        found = await _offsets_at(settings, topic, sorted(default), bound.time_ms)
        return {number: found.get(number, default[number]) for number in default}
    if absent := sorted(set(bound.offsets) - set(default)):
        raise UsageError(
            f"{topic} has {len(default)} partitions, but partition {absent[0]} is named.",
            mend=f"name partitions from 0 to {len(default) - 1}",
        )
    if bound.offset is not None:
        return dict.fromkeys(default, bound.offset)
    return {**default, **bound.offsets}


async def _offsets_at(settings: Settings, topic: str, partitions: list[int], time_ms: int) -> dict[int, int]:
    """The first offset at or after a record time in each partition; that of its end where there is none."""
    wanted = {TopicPartition(topic, number): time_ms for number in partitions}
    consumer = AIOKafkaConsumer(**connection(settings), enable_auto_commit=False, request_timeout_ms=REQUEST_TIMEOUT_MS)
    with as_unreachable(settings):
        async with consumer:
            consumer.assign(list(wanted))
            ends = await consumer.end_offsets(list(wanted))
            found = await consumer.offsets_for_times(wanted)
    return {tp.partition: ends[tp] if found[tp] is None else found[tp].offset for tp in wanted}
