"""Event logs to replay, whatever their format and the names of their columns.

::

    log = open_log("events.parquet", {"user_id": "visitor"})
    for chunk in log.iter_chunks():
        for row in chunk: ...                 # a dict: an event; bytes: a row that is none

A row is a dict with `user_id`, `item_id`, `type` (str), `ts` (int, ms since 1970) and whichever the log has
of `event_id`, `session_id`, `query`, `price`, `quantity`, `recommendation_id`, `context`. A line that cannot
be read as an event comes as `bytes`, as it is, so that it meets the same dead-letter handling in a replay as
it did live. (A Parquet row has no bytes of its own: it comes as a JSON object of our fields.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from stream_app.errors import LogFormatError, UsageError
from stream_app.replay.fields import Event, TsUnit, check_unit, match_columns
from stream_app.replay.items import read_items
from stream_app.replay.sources import AnyRow, LogFormat, Row, Source, open_source

__all__ = [
    "AnyRow",
    "Event",
    "EventLog",
    "Log",
    "LogSummary",
    "Row",
    "TsUnit",
    "describe",
    "open_log",
    "read_items",
]

CHUNK_EVENTS = 4096
"""Rows given at once: some hundred KiB, and few enough calls that their cost vanishes."""


class Log(Protocol):
    """Where a replay gets its rows from: a file, or a range of a topic."""

    num_partitions: int | None
    """Partitions of the topic it is read from; None: it is no topic."""

    def iter_chunks(self, limit: int | None = None) -> Iterator[Sequence[AnyRow]]:
        """The rows in order, no chunk empty. The same rows each time; not to be called where an event loop runs."""
        ...

    def identity(self) -> dict[str, Any]:
        """What it is, as plain values: as long as this is the same, so are the rows."""
        ...


class EventLog:
    """One log, open for reading; may be iterated any number of times. Made by `open_log`.

    Args:
        source: The log in its own format.
        columns: Column by field, as matched.
        ts_unit: Unit of integer times; None: milliseconds, refused if they look like another unit.
        path: The file.
    """

    num_partitions: int | None = None

    def __init__(self, source: Source, columns: Mapping[str, str], ts_unit: TsUnit | None, path: Path) -> None:
        self._source = source
        self._ts_unit = ts_unit
        self._path = path
        self.columns = dict(columns)

    @property
    def format(self) -> LogFormat:
        """Format of the file, as found."""
        return self._source.format

    @property
    def num_events(self) -> int | None:
        """Number of rows where the file states it (Parquet), else None."""
        return self._source.num_events

    def identity(self) -> dict[str, Any]:
        """The file, its length and when it was changed last, and how its columns are read.

        Raises:
            LogFormatError: The file is gone.
        """
        try:
            facts = self._path.stat()
        except OSError as error:
            raise LogFormatError(
                f"Cannot read {self._path}: {error.strerror or error}.", mend="pass the path of an event log."
            ) from error
        return {
            "file": str(self._path.resolve()),
            "bytes": facts.st_size,
            "changed_ns": facts.st_mtime_ns,
            "columns": self.columns,
            "ts_unit": self._ts_unit,
        }

    def iter_chunks(self, limit: int | None = None, chunk_events: int = CHUNK_EVENTS) -> Iterator[list[Row]]:
        """Read the log in order. Memory is bounded by the chunk, not by the log.

        Args:
            limit: Stop after this many rows; None: read all.
            chunk_events: Rows of each chunk; the last one may be shorter, none is empty.

        Raises:
            UsageError: The limit is below 0, or the chunk below 1.
            LogFormatError: The times look like another unit than stated, or the file is damaged on the way.
        """
        if (limit is not None and limit < 0) or chunk_events < 1:
            raise UsageError(
                f"Cannot read {limit} rows in chunks of {chunk_events}.",
                mend="pass a limit of 0 or more, and chunks of 1 or more.",
            )
        return self._chunks(limit, chunk_events)

    def _chunks(self, limit: int | None, chunk_events: int) -> Iterator[list[Row]]:
        rows = islice(self._source.rows(self.columns, self._ts_unit or "ms", chunk_events), limit)
        unit_is_open = self._ts_unit is None
        while chunk := list(islice(rows, chunk_events)):
            if unit_is_open:
                times = [ts for row in chunk if isinstance(row, dict) and isinstance(ts := row["ts"], int)]
                check_unit(times, where=str(self._path))
                unit_is_open = not times
            yield chunk


@dataclass(frozen=True, slots=True)
class LogSummary:
    """What a log holds. Times are ms since 1970, None for a log without events."""

    format: LogFormat
    num_rows: int
    num_malformed: int
    num_users: int
    num_items: int
    first_ts: int | None
    last_ts: int | None
    is_sorted: bool
    types: dict[str, int] = field(default_factory=dict)
    """Number of events by type, most frequent first."""


def open_log(path: str | Path, fields: Mapping[str, str] | None = None, *, ts_unit: TsUnit | None = None) -> EventLog:
    """Open an event log: Parquet, NDJSON or CSV, the last two plain or gzipped.

    Args:
        path: The file.
        fields: Column by field, for those called otherwise: ``{"user_id": "visitor"}``. Without it `user`,
        `item`,
            `event`, `event_type`, `timestamp`, `time` and `session` are understood.
        ts_unit: Unit of integer times. None takes them as milliseconds, and refuses a log whose first chunk
            looks like seconds or microseconds. Text and Parquet timestamps carry their own unit.

    Raises:
        LogFormatError: No such file, no known format, or columns are missing: says which, and the flag to
        pass.
    """
    path = Path(path)
    source = open_source(path)
    return EventLog(source, match_columns(source.seen, fields, where=str(path)), ts_unit, path)


def describe(path: str | Path, fields: Mapping[str, str] | None = None, *, ts_unit: TsUnit | None = None) -> LogSummary:
    """Read a whole log and sum it up. Holds the ids of all users and items in memory.

    Arguments and errors as for `open_log`.
    """
    log = open_log(path, fields, ts_unit=ts_unit)
    users: set[object] = set()
    items: set[object] = set()
    types: Counter[str] = Counter()
    num_rows, first, last, before, is_sorted = 0, None, None, None, True
    for chunk in log.iter_chunks():
        num_rows += len(chunk)
        events = [row for row in chunk if isinstance(row, dict)]
        users.update(event["user_id"] for event in events)
        items.update(event["item_id"] for event in events if "item_id" in event)
        types.update(str(event["type"]) for event in events)
        for ts in (ts for event in events if isinstance(ts := event["ts"], int)):
            is_sorted = is_sorted and (before is None or before <= ts)
            first = ts if first is None else min(first, ts)
            last = ts if last is None else max(last, ts)
            before = ts
    return LogSummary(
        format=log.format,
        num_rows=num_rows,
        num_malformed=num_rows - types.total(),
        num_users=len(users),
        num_items=len(items),
        first_ts=first,
        last_ts=last,
        is_sorted=is_sorted,
        types=dict(types.most_common()),
    )
