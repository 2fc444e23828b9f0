"""Logs of every format read as the same events; what cannot be read is passed on or named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.errors import LogFormatError, UsageError
from stream_app.replay import sources
from stream_app.replay.fields import ts_ms_of
from stream_app.replay.readers import EventLog, Row, describe, open_log, read_items

T0 = 1_380_000_000_000
EVENTS: list[dict[str, object]] = [
    {
        "user_id": f"u{n % 7}",
        "item_id": f"00{n}",
        "type": "click" if n % 3 else "purchase",
        "ts": T0 + 1000 * n,
    }
    for n in range(50)
]


def write_ndjson(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return path


def write_gzip(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows)))
    return path


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    pa.csv.write_csv(pa.Table.from_pylist(rows), path)
    return path


def write_csv_gzip(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_bytes(gzip.compress(write_csv(path, rows).read_bytes()))
    return path


def write_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=17)
    return path


Writer = Callable[[Path, list[dict[str, object]]], Path]
WRITERS: dict[str, Writer] = {
    "log.ndjson": write_ndjson,
    "log.jsonl": write_ndjson,
    "log.json": write_ndjson,
    "log": write_ndjson,
    "log.ndjson.gz": write_gzip,
    "log.csv": write_csv,
    "log.txt": write_csv,
    "log.csv.gz": write_csv_gzip,
    "log.parquet": write_parquet,
    "log.csv.bak": write_parquet,
}


def read_all(log: EventLog, limit: int | None = None, chunk_events: int = 4096) -> list[Row]:
    return [row for chunk in log.iter_chunks(limit, chunk_events) for row in chunk]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_events(tmp_path: Path, name: str) -> None:
    log = open_log(WRITERS[name](tmp_path / name, EVENTS))
    assert read_all(log) == EVENTS
    assert read_all(log) == EVENTS, "a log may be read again"
    assert log.num_events == (50 if log.format == "parquet" else None)


@pytest.mark.parametrize("name", ["log.ndjson", "log.csv", "log.parquet"])
@pytest.mark.parametrize(("limit", "chunk"), [(None, 1), (None, 7), (None, 50), (49, 8), (0, 8), (16, 16), (999, 20)])
def test_chunks_and_limit(tmp_path: Path, name: str, limit: int | None, chunk: int) -> None:
    chunks = list(open_log(WRITERS[name](tmp_path / name, EVENTS)).iter_chunks(limit, chunk))
    assert [row for part in chunks for row in part] == EVENTS[:limit]
    assert all(len(part) == chunk for part in chunks[:-1])
    assert all(chunks)


@pytest.mark.parametrize(("limit", "chunk"), [(-1, 5), (None, 0)])
def test_a_senseless_limit_or_chunk_is_refused_at_once(tmp_path: Path, limit: int | None, chunk: int) -> None:
    with pytest.raises(UsageError):
        open_log(write_ndjson(tmp_path / "log", EVENTS)).iter_chunks(limit, chunk)


@pytest.mark.parametrize("name", ["log.ndjson", "log.csv", "log.parquet"])
def test_known_aliases_and_optional_columns(tmp_path: Path, name: str) -> None:
    row: dict[str, object] = {
        "user": 7, "item": 9, "event": "click", "time": T0, "session": 5, "price": 1.5, "quantity": 2,
        "other": "x",
    }  # fmt: skip
    log = open_log(WRITERS[name](tmp_path / name, [row]))
    expected = {
        "user_id": "7", "item_id": "9", "type": "click", "ts": T0, "session_id": "5",
        "price": 1.5, "quantity": 2,
    }  # fmt: skip
    assert read_all(log) == [expected]


def test_our_own_names_win_over_aliases(tmp_path: Path) -> None:
    row: dict[str, object] = {**EVENTS[0], "user": "other", "item": "other", "event": "other", "time": 5}
    assert read_all(open_log(write_ndjson(tmp_path / "log", [row]))) == [EVENTS[0]]


@pytest.mark.parametrize("name", ["log.ndjson", "log.csv", "log.parquet"])
def test_given_fields_win_over_everything(tmp_path: Path, name: str) -> None:
    row = {**EVENTS[0], "visitor": "v1"}
    log = open_log(WRITERS[name](tmp_path / name, [row]), {"user_id": "visitor"})
    assert read_all(log) == [{**EVENTS[0], "user_id": "v1"}]
    assert log.columns["user_id"] == "visitor"


@pytest.mark.parametrize("name", ["log.ndjson", "log.csv", "log.parquet"])
def test_missing_columns_are_named_with_the_flag(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path / name, [{"visitor": "v", "item": "i", "when": 3}])
    with pytest.raises(LogFormatError) as caught:
        open_log(path)
    for part in ("item, visitor, when", "user_id (or user)", "--field user_id=COLUMN", "--field ts=COLUMN"):
        assert part in str(caught.value)
    assert "item_id=" not in str(caught.value)


def test_given_fields_that_are_wrong_are_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", EVENTS)
    with pytest.raises(LogFormatError, match="no column visitor"):
        open_log(path, {"user_id": "visitor"})
    with pytest.raises(LogFormatError, match="no event field userid"):
        open_log(path, {"userid": "user_id"})


BAD_LINES = [
    b"{not json",
    b'{"user_id": "u"',
    b"[1, 2]",
    b'"text"',
    b"\xff\xfe{}",
    b'{"user_id": "u", "item_id": "i", "type": "click"}',
    b'{"user_id": null, "item_id": "i", "type": "click", "ts": 1380000000000}',
    b'{"user_id": true, "item_id": "i", "type": "click", "ts": 1380000000000}',
    b'{"user_id": "u", "item_id": "", "type": "click", "ts": 1380000000000}',
    b'{"user_id": "u", "item_id": "i", "type": "click", "ts": "yesterday"}  ',
]


def test_lines_that_are_no_event_come_as_they_are(tmp_path: Path) -> None:
    good = json.dumps(EVENTS[0]).encode()
    path = tmp_path / "log.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\n" + b"\n".join(BAD_LINES) + b"\n  \n" + good)
    rows = read_all(open_log(path))
    assert rows == [EVENTS[0], *BAD_LINES, EVENTS[0]]
    assert describe(path).num_malformed == len(BAD_LINES)


def test_csv_rows_that_are_no_event_come_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    header, good = b"user,item,type,ts,query\r\n", b'u,i,click,1380000000000,"two\r\nlines, ""quoted"""\r\n'
    bad = [
        b"u,i,click,1380000000000",
        b'u,i,click,soon,"a\r\nb"',
        b"u,\xff,click,1380000000000,",
        b",i,click,1,",
    ]
    path.write_bytes(b"\xef\xbb\xbf" + header + good + b"\r\n" + b"\r\n".join(bad) + b"\r\n" + good)
    event = {
        "user_id": "u", "item_id": "i", "type": "click", "ts": T0, "query": 'two\r\nlines, "quoted"',
    }  # fmt: skip
    assert read_all(open_log(path)) == [event, *bad, event]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiters(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(delimiter.join(["user", "item", "type", "ts"]) + "\n" + delimiter.join(["u", "1,5", "x", "9"]))
    text = "'1,5'" if delimiter == "," else "1,5"
    if delimiter == ",":
        path.write_text("user,item,type,ts\nu,\"'1,5'\",x,9")
    log = open_log(path, ts_unit="ms")
    assert read_all(log) == [{"user_id": "u", "item_id": text, "type": "x", "ts": 9}]


def test_a_quote_never_closed_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,type,ts\n" + 'u,"i,click,1\n' + "u,i,click,1\n" * 20_000)
    with pytest.raises(LogFormatError, match="quote"):
        read_all(open_log(path))


def test_parquet_rows_that_are_no_event_come_as_json(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [EVENTS[0], {**EVENTS[1], "user_id": None}, {**EVENTS[2], "ts": None}]
    seen = read_all(open_log(write_parquet(tmp_path / "log.parquet", rows)))
    assert seen[0] == EVENTS[0]
    assert [json.loads(row) for row in seen[1:] if isinstance(row, bytes)] == rows[1:]


def test_parquet_column_types(tmp_path: Path) -> None:
    moments = [datetime(2013, 9, 24, 5, 20, tzinfo=UTC), None, datetime(2013, 9, 24, 5, 21, tzinfo=UTC)]
    columns = {
        "user": pa.array([1.0, 2.0, None], pa.float64()),
        "item": pa.array([1, 2, 3], pa.int32()),
        "type": pa.array(["click", "browse", "click"]).dictionary_encode(),
        "ts": pa.array(moments, pa.timestamp("us", tz="UTC")),
        "price": pa.array([float("nan"), 2.0, None]),
    }
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), path)
    first, second, third = read_all(open_log(path))
    assert first == {"user_id": "1", "item_id": "1", "type": "click", "ts": T0}
    assert json.loads(bytes(second)) == {  # type: ignore[arg-type]
        "user_id": "2", "item_id": "2", "type": "browse", "ts": None, "price": 2.0,
    }  # fmt: skip
    assert isinstance(third, bytes)


@pytest.mark.parametrize("name", ["log.ndjson", "log.csv", "log.parquet"])
@pytest.mark.parametrize(("per_ms", "unit"), [(0.001, "s"), (1000, "us")])
def test_other_units_are_refused_until_stated(tmp_path: Path, name: str, per_ms: float, unit: str) -> None:
    rows = [{**event, "ts": int((T0 + 1000 * n) * per_ms)} for n, event in enumerate(EVENTS)]
    path = WRITERS[name](tmp_path / name, rows)
    with pytest.raises(LogFormatError, match=f"--ts-unit {unit}"):
        read_all(open_log(path))
    assert read_all(open_log(path, ts_unit="s" if unit == "s" else "us")) == EVENTS
    assert read_all(open_log(path, ts_unit="ms")) == rows


def test_the_unit_is_judged_by_the_first_chunk_with_times(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_bytes(b"broken\nbroken\n" + b'{"user":"u","item":"i","type":"click","ts":1380000000}\n')
    with pytest.raises(LogFormatError, match="--ts-unit s"):
        read_all(open_log(path), chunk_events=2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2013-09-24T05:20:00Z", T0),
        ("2013-09-24T07:20:00.250+02:00", T0 + 250),
        ("2013-09-24 05:20:00", T0),
        ("2013-09-24", T0 - (5 * 60 + 20) * 60_000),
        (str(T0), T0),
        (T0 + 0.75, T0),
        (float("nan"), None),
        ("nan", None),
        ("", None),
        (True, None),
        (None, None),
        ([T0], None),
    ],
)
def test_times(value: object, expected: int | None) -> None:
    assert ts_ms_of(value, "ms") == expected


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)))
@settings(derandomize=True, deadline=None)
def test_written_times_agree_with_integer_ones(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    us = (aware - datetime(1970, 1, 1, tzinfo=UTC)).days * 86_400_000_000
    us += ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1_000_000 + moment.microsecond
    assert ts_ms_of(moment.isoformat(), "s") == ts_ms_of(aware.isoformat(), "ms") == ts_ms_of(us, "us") == us // 1000


def test_describe(tmp_path: Path) -> None:
    summary = describe(write_parquet(tmp_path / "log.parquet", EVENTS))
    assert (summary.format, summary.num_rows, summary.num_malformed) == ("parquet", 50, 0)
    assert (summary.num_users, summary.num_items) == (7, 50)
    assert (summary.first_ts, summary.last_ts, summary.is_sorted) == (T0, T0 + 49_000, True)
    assert summary.types == {"click": 33, "purchase": 17}
    shuffled = describe(write_ndjson(tmp_path / "log.ndjson", EVENTS[::-1]))
    assert (shuffled.first_ts, shuffled.last_ts, shuffled.is_sorted) == (T0, T0 + 49_000, False)


def test_a_header_alone_is_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,type,ts\n")
    assert list(open_log(path).iter_chunks()) == []
    summary = describe(path)
    assert (summary.num_rows, summary.first_ts, summary.last_ts) == (0, None, None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.ndjson", b"", "is empty"),
        ("log.ndjson.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("log.json", b'[{"user": 1}]', "JSON array"),
        ("log.ndjson", b"a\nb\n", "None of the first 2 lines"),
        ("log.bin", b"\x00\x01\x02", "no known format"),
        ("log.parquet", b"PAR1 and then nothing", "cannot be read as Parquet"),
        ("log.ndjson.gz", gzip.compress(b'{"user": 1}\n' * 99_999, mtime=0)[:-50], "damaged"),
    ],
)
def test_files_that_are_no_log_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LogFormatError, match=message) as caught:
        read_all(open_log(path, {"item_id": "user", "type": "user", "ts": "user"}, ts_unit="ms"))
    assert caught.value.mend


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogFormatError, match="No such file"):
        open_log(tmp_path / "none.ndjson")
    with pytest.raises(LogFormatError):
        open_log(tmp_path)
    with pytest.raises(LogFormatError, match="no item file"):
        list(read_items(tmp_path / "none.ndjson"))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 100)
    path = tmp_path / "log.ndjson"
    path.write_bytes(json.dumps(EVENTS[0]).encode() + b"\n" + b" " * 101)
    with pytest.raises(LogFormatError, match=r"Line 2 .* longer than 100 bytes"):
        open_log(path)


def test_items_of_any_naming(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"item": 5, "title": "A", "genres": "Drama|Action", "year": "1995"},
        {"item_id": "007", "name": "B", "tags": ["x", " "], "price": 3, "available": False, "category": ""},
    ]
    path = write_gzip(tmp_path / "items.ndjson.gz", rows)
    assert list(read_items(path)) == [
        {"item_id": "5", "title": "A", "tags": ["Drama", "Action"]},
        {"item_id": "007", "title": "B", "tags": ["x"], "price": 3, "available": False},
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [(b"{oops", "not JSON"), (b"[]", "no JSON object"), (b'{"title": "A"}', "names no item")],
)
def test_a_bad_item_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "items.ndjson"
    path.write_bytes(b'{"item": 1}\n\n' + line + b"\n")
    with pytest.raises(LogFormatError, match=f"Line 3 .*{message}"):
        list(read_items(path))
