"""A range of an events topic as a log: its records as they lie there, the partitions merged by event time.

Each partition's records stay in their order. Between partitions the order is that of *clocks*: a partition's clock is
the greatest time of a valid event or of a tick so far. Where an earlier replay wrote the topic, its ticks put every
record into the epoch it had then, so that the second replay gives the same lists; ticks are not rows themselves.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import orjson

from stream_app.records import STRICT_HEADER, TICK_HEADER, Erasure, Event
from stream_app.replay.fields import TopicRow
from stream_app.replay.planning import MAX_TICK_MS
from stream_app.replay.ranges import Ranges, check_kept
from stream_app.replay.readers import CHUNK_EVENTS
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules
from stream_app.stages.clean import CleanRules
from stream_app.stages.intake import Tick, read_record
from stream_app.topic_reader import StoredRecord, TopicReader

READ_AHEAD_RECORDS: Final = 32_768
"""Records read at once, over all partitions: some tens of MB of usual events, and a connection costs little beside."""

MIN_WINDOW: Final = 256
"""Offsets read of one partition at least, however many there are."""


class TopicLog:
    """A range of a topic, open for reading. Nothing is committed, and no group takes part.

    Args:
        settings: With a Kafka address; their rules say which records are events, and when those happened.
        topic: Full name of the topic.
        ranges: The offsets of each of its partitions; they must lie before the ends.
    """

    def __init__(self, settings: Settings, topic: str, ranges: Ranges) -> None:
        self._settings = settings
        self._topic = topic
        self._ranges = dict(ranges)
        self._rules = clean_rules(settings)
        self.num_partitions: int | None = len(self._ranges)

    @property
    def ranges(self) -> Ranges:
        """First offset, and the one behind the last, by partition."""
        return self._ranges

    def identity(self) -> dict[str, Any]:
        """Topic and offsets, as plain values."""
        return {"topic": self._topic, "ranges": {str(number): list(ends) for number, ends in self._ranges.items()}}

    def iter_chunks(self, limit: int | None = None, chunk_events: int = CHUNK_EVENTS) -> Iterator[list[TopicRow]]:
        """Read the range. Memory is bounded by what is read ahead.

        Args:
            limit: Stop after this many rows; None: read all.
            chunk_events: Rows of each chunk; the last one may be shorter, none is empty.

        Raises:
            LogFormatError: Records of the range were removed while it was read.
            KafkaUnreachableError: The broker did not deliver in time.
        """
        lanes = {number: Lane(self._rules, *ends) for number, ends in self._ranges.items()}
        rows = islice(merged(lanes, lambda: self._fill(lanes)), limit)
        while chunk := list(islice(rows, chunk_events)):
            yield chunk

    def _fill(self, lanes: Mapping[int, Lane]) -> None:
        """Read on, until every lane has a row, or nothing is left of it."""
        window = max(MIN_WINDOW, READ_AHEAD_RECORDS // len(lanes))
        while any(not lane.rows and not lane.is_read for lane in lanes.values()):
            # With the one that is empty also those that soon will be.
            low = {number: lane for number, lane in lanes.items() if not lane.is_read and len(lane.rows) < window // 2}
            asyncio.run(self._read(low, window))

    async def _read(self, lanes: Mapping[int, Lane], window: int) -> None:
        ranges = {number: lane.next_range(window) for number, lane in lanes.items()}
        async with TopicReader(self._settings) as reader:
            async for record in reader.read_range(self._topic, ranges):
                lanes[record.partition].take(record)
            bounds = await reader.bounds(self._topic, sorted(ranges))
        # Of records removed before they were read the reader says nothing: it goes on behind them.
        starts = {number: start for number, (start, _) in bounds.items()}
        check_kept(self._topic, {number: start for number, (start, _) in ranges.items()}, starts)
        for number, (_, end) in ranges.items():
            lanes[number].next_offset = end


class Lane:
    """What was read of one partition and not given yet.

    Args:
        rules: Which records are events.
        start: Offset to read from.
        end: Offset to read to.
    """

    def __init__(self, rules: CleanRules, start: int, end: int) -> None:
        self.rows: deque[TopicRow] = deque()
        self.next_offset = start
        self._rules = rules
        self._end = end
        self._clock_ms = 0

    @property
    def is_read(self) -> bool:
        """Whether nothing is left to read."""
        return self.next_offset >= self._end

    def next_range(self, window: int) -> tuple[int, int]:
        """The offsets to read next, at most `window`."""
        return self.next_offset, min(self.next_offset + window, self._end)

    def take(self, record: StoredRecord) -> None:
        """Take the next record; a tick only moves the clock."""
        content = read_record(record.key, record.value, record.timestamp_ms, record.headers, self._rules)
        if isinstance(content, Tick):
            self._advance(content.ts_ms)
            return
        if isinstance(content, Event):
            self._advance(content.ts)
        self.rows.append(
            TopicRow(
                self._clock_ms,
                record.partition,
                max(0, record.timestamp_ms),
                record.key,
                record.value,
                own_headers(record.headers),
                isinstance(content, Event | Erasure) or names_user(record.key, record.value, self._rules),
            )
        )

    def _advance(self, ts_ms: int) -> None:
        if ts_ms < MAX_TICK_MS:
            self._clock_ms = max(self._clock_ms, ts_ms)


def merged(lanes: Mapping[int, Lane], fill: Callable[[], None]) -> Iterator[TopicRow]:
    """The rows of all lanes by their clocks, those of equal clocks by partition; each lane's own order is kept.

    Args:
        lanes: By partition.
        fill: Reads on, until every lane that is not read to its end has a row.
    """
    fill()
    waiting = [(lane.rows[0].clock_ms, number) for number, lane in lanes.items() if lane.rows]
    heapq.heapify(waiting)
    while waiting:
        _, number = waiting[0]
        lane = lanes[number]
        yield lane.rows.popleft()
        if not lane.rows and not lane.is_read:
            fill()
        if lane.rows:
            heapq.heapreplace(waiting, (lane.rows[0].clock_ms, number))
        else:
            heapq.heappop(waiting)


def own_headers(headers: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes | None], ...]:
    """The headers that no replay has put there."""
    return tuple(header for header in headers if header[0] not in (STRICT_HEADER, TICK_HEADER))


def names_user(key: bytes | None, value: bytes | None, rules: CleanRules) -> bool:
    """Whether a value that is no valid event still names the user of its key."""
    try:
        content = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return False
    if key is None or not isinstance(content, dict):
        return False
    user = content.get(rules.producer_name("user_id"))
    return isinstance(user, str) and user.encode("utf-8", "surrogatepass") == key
