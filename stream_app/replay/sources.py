"""The three formats of a log: Parquet, NDJSON and CSV; the last two may be gzipped.

Each source names its columns and gives its rows in order, holding no more than one batch in memory: an event
where the row is one, else the row's bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from stream_app.errors import LogFormatError
from stream_app.replay.fields import OPTIONAL, REQUIRED, Event, TopicRow, TsUnit, add_optional, event_of, ts_ms_of

LogFormat = Literal["parquet", "ndjson", "csv"]
Row = Event | bytes
"""A row of a file."""

AnyRow = Row | TopicRow
"""A row of a file or of a topic."""

PEEK_LINES = 4096
"""Lines of an NDJSON log that are read to learn its columns."""

MAX_LINE_BYTES = 8 << 20
"""Longest line read: 8 MiB, as much as any broker takes by default many times over. Bounds memory."""

HEAD_BYTES = 1 << 12
"""Read from the start of a file to tell its format."""

GZIP_MAGIC, PARQUET_MAGIC, BYTE_ORDER_MARK = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
SUFFIXES: Mapping[str, LogFormat] = {
    ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson", ".csv": "csv", ".tsv": "csv",
}  # fmt: skip


class Source(Protocol):
    """One open log."""

    format: LogFormat
    num_events: int | None
    seen: list[str]
    """Columns of the log."""

    def rows(self, columns: Mapping[str, str], unit: TsUnit, batch_rows: int) -> Iterator[Row]:
        """The rows in order; `columns` is column by field."""
        ...


def open_source(path: Path) -> Source:
    """Open a log of any format: what the content shows counts first, then the file's suffix.

    Raises:
        LogFormatError: There is no such file, it is empty, or of no known format.
    """
    try:
        log_format = _format_of(path)
    except OSError as error:
        raise LogFormatError(
            f"Cannot read {path}: {error.strerror or error}.", mend="pass the path of an event log."
        ) from error
    if log_format == "parquet":
        return ParquetSource(path)
    return NdjsonSource(path) if log_format == "ndjson" else CsvSource(path)


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a plain or gzipped file, line ends and a byte order mark included.

    Raises:
        LogFormatError: A line is longer than `MAX_LINE_BYTES`, or the compressed data is damaged.
    """
    num_lines = 0
    try:
        with _open_bytes(path) as file:
            while line := file.readline(MAX_LINE_BYTES):
                num_lines += 1
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    raise LogFormatError(
                        f"Line {num_lines} of {path} is longer than {MAX_LINE_BYTES} bytes.",
                        mend="write one event per line; for a JSON array: jq -c '.[]' FILE > FILE.ndjson",
                    )
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise LogFormatError(
            f"{path} cannot be read on after line {num_lines}: {error}.",
            mend="get the file anew; it is damaged.",
        ) from error


class NdjsonSource:
    """One JSON object per line. Blank lines do not count; lines that are no event are given as they are."""

    format: LogFormat = "ndjson"
    num_events: int | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        objects = [_object_of(line) for line in islice(self._lines(), PEEK_LINES)]
        self.seen = list({name: None for parsed in objects if parsed for name in parsed})
        if objects and not self.seen:
            raise LogFormatError(
                f"None of the first {len(objects)} lines of {path} is a JSON object.",
                mend="write one JSON object per line.",
            )

    def rows(self, columns: Mapping[str, str], unit: TsUnit, batch_rows: int) -> Iterator[Row]:
        """See `Source.rows`."""
        for line in self._lines():
            parsed = _object_of(line)
            event = event_of(parsed, columns, unit) if parsed is not None else None
            yield line if event is None else event

    def _lines(self) -> Iterator[bytes]:
        for number, line in enumerate(lines_of(self._path)):
            stripped = line.rstrip(b"\r\n")
            if number == 0:
                stripped = stripped.removeprefix(BYTE_ORDER_MARK)
            if stripped.strip():
                yield stripped


class CsvSource:
    """Comma, semicolon, tab or bar separated values under a header; quoted values may span lines."""

    format: LogFormat = "csv"
    num_events: int | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        header = next(lines_of(path)).removeprefix(BYTE_ORDER_MARK).decode("utf-8", "replace")
        self._delimiter = max(",;\t|", key=header.count)
        self.seen = [name.strip() for name in next(csv.reader([header], delimiter=self._delimiter))]

    def rows(self, columns: Mapping[str, str], unit: TsUnit, batch_rows: int) -> Iterator[Row]:
        """See `Source.rows`. A row's bytes are its line or lines, without the last line end."""
        taken: list[bytes] = []
        reader = csv.reader(_decoded(lines_of(self._path), taken), delimiter=self._delimiter)
        try:
            next(reader)
            taken.clear()
            for values in reader:
                raw = b"".join(taken).rstrip(b"\r\n")
                taken.clear()
                if values:
                    event = self._event_of(values, columns, unit)
                    yield raw if event is None else event
        except csv.Error as error:
            raise LogFormatError(
                f"Line {reader.line_num} of {self._path} is not CSV: {error}.",
                mend="look for a quote that is opened and never closed.",
            ) from error

    def _event_of(self, values: list[str], columns: Mapping[str, str], unit: TsUnit) -> Event | None:
        if len(values) != len(self.seen) or not _is_utf8(values):
            return None
        return event_of(dict(zip(self.seen, values, strict=True)), columns, unit)


class ParquetSource:
    """A Parquet file, read batch by batch. A row that is no event is given as a JSON object of its fields."""

    format: LogFormat = "parquet"

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with pq.ParquetFile(path) as file:
                self.seen = list(file.schema_arrow.names)
                self.num_events: int | None = file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def rows(self, columns: Mapping[str, str], unit: TsUnit, batch_rows: int) -> Iterator[Row]:
        """See `Source.rows`."""
        wanted = list(dict.fromkeys(columns.values()))
        try:
            with pq.ParquetFile(self._path, pre_buffer=False) as file:
                for batch in file.iter_batches(batch_size=batch_rows, columns=wanted, use_threads=False):
                    yield from _rows_of_batch(batch, columns, unit)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> LogFormatError:
        return LogFormatError(f"{self._path} cannot be read as Parquet: {error}", mend="get the file anew.")


def _format_of(path: Path) -> LogFormat:
    with path.open("rb") as raw:
        if raw.read(4) == PARQUET_MAGIC:
            return "parquet"
    first_line = next(lines_of(path), None)
    if first_line is None:
        raise LogFormatError(f"{path} is empty.", mend="pass a log with at least a header or one event.")
    head = first_line[:HEAD_BYTES].removeprefix(BYTE_ORDER_MARK).lstrip()
    if head.startswith(b"["):
        raise LogFormatError(
            f"{path} is a JSON array; expected one JSON object per line.",
            mend="write it as lines: jq -c '.[]' FILE > FILE.ndjson",
        )
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    by_suffix = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if head.startswith(b"{"):
        return "ndjson"
    if by_suffix is None and not any(mark in head for mark in (b",", b";", b"\t", b"|")):
        raise LogFormatError(
            f"{path} is of no known format: it starts with {head[:40]!r}.",
            mend="pass Parquet, NDJSON (.ndjson), or CSV with a header (.csv); the last two may be gzipped.",
        )
    return by_suffix or "csv"


def _open_bytes(path: Path) -> io.BufferedReader | gzip.GzipFile:
    with path.open("rb") as raw:
        magic = raw.read(2)
    return gzip.open(path, "rb") if magic == GZIP_MAGIC else path.open("rb")


def _object_of(line: bytes) -> dict[str, object] | None:
    try:
        parsed = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _decoded(lines: Iterator[bytes], taken: list[bytes]) -> Iterator[str]:
    """Lines as text for the csv module, which takes just those that the next row needs; `taken` records
    them."""
    for number, line in enumerate(lines):
        taken.append(line)
        yield (line.removeprefix(BYTE_ORDER_MARK) if number == 0 else line).decode("utf-8", "surrogateescape")


def _is_utf8(values: list[str]) -> bool:
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


def _rows_of_batch(batch: Any, columns: Mapping[str, str], unit: TsUnit) -> Iterator[Row]:
    users, items, types = (_texts(batch.column(columns[field])) for field in REQUIRED[:3])
    times = _times_ms(batch.column(columns["ts"]), unit)
    optional = [(field, _values(batch.column(columns[field]))) for field in OPTIONAL if field in columns]
    for number, (user_id, item_id, kind, ts) in enumerate(zip(users, items, types, times, strict=True)):
        event: Event = {"user_id": user_id, "item_id": item_id, "type": kind, "ts": ts}
        for field, values in optional:
            add_optional(event, field, values[number])
        if user_id and item_id and kind and ts is not None:
            yield event
        else:
            yield orjson.dumps(event, default=str)


def _texts(column: Any) -> list[str | None]:
    """Ids as text. Whole numbers that a null turned into floats on their way lose the `.0` again."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        column = column.cast(pa.int64())
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts


def _times_ms(column: Any, unit: TsUnit) -> list[int | None]:
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        in_ms: list[int | None] = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_pylist()
        return in_ms
    return [ts_ms_of(value, unit) for value in column.to_pylist()]


def _values(column: Any) -> list[object]:
    values: list[object] = column.to_pylist()
    return values
