"""Records whose header names are no UTF-8, as producers written in C can send them: read, like all others."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka.record import util
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from stream_app.kafka_client.odd_headers import FetchedRecords

PLACEHOLDER = "odd-name"
Header = tuple[str, bytes | None]
HEADERS = st.lists(st.tuples(st.text(max_size=12), st.none() | st.binary(max_size=12)), max_size=4)
RECORDS = st.lists(
    st.tuples(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=20), HEADERS), min_size=1, max_size=6
)
CRC_AT, CRC_FROM = 17, 21


def batch_of(records: list[tuple[bytes | None, bytes | None, list[Header]]], compression: int = 0) -> bytes:
    """A record batch, built by aiokafka."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, 0, 1_000_000)
    for place, (key, value, headers) in enumerate(records):
        assert builder.append(place, 1_000 + place, key, value, headers) is not None
    return bytes(builder.build())


def with_name(batch: bytes, name: bytes) -> bytes:
    """The batch with another name for its header `PLACEHOLDER`, and its checksum made anew."""
    assert len(name) == len(PLACEHOLDER)
    changed = bytearray(batch.replace(PLACEHOLDER.encode(), name))
    struct.pack_into(">I", changed, CRC_AT, util.calc_crc32c_py(bytes(changed[CRC_FROM:])))
    return bytes(changed)


def read(records: Any) -> list[tuple[Any, ...]]:
    """All that stands in the records of all batches."""
    found = []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc() and not batch.is_control_batch
        found += [(one.offset, one.timestamp, one.key, one.value, list(one.headers)) for one in batch]
    return found


@given(RECORDS, RECORDS, st.sampled_from([0, 1, 2, 3, 4]))
def test_what_is_utf8_is_read_as_aiokafka_reads_it(first: Any, second: Any, compression: int) -> None:
    fetched = batch_of(first, compression) + batch_of(second, compression)
    assert read(FetchedRecords(fetched)) == read(MemoryRecords(fetched))


@given(RECORDS, RECORDS)
def test_an_odd_name_is_told_by_its_bytes_and_nothing_else_changes(before: Any, after: Any) -> None:
    odd = (b"key", b"value", [("plain", b"1"), (PLACEHOLDER, b"2"), ("null", None)])
    fetched = with_name(batch_of([*before, odd, *after]), b"\xff\xfename\x80\x80")
    expected = read(MemoryRecords(batch_of([*before, odd, *after])))
    expected[len(before)][4][1] = (r"\xff\xfename\x80\x80", b"2")
    assert read(FetchedRecords(fetched)) == expected


def test_stock_one_odd_name_stops_the_reader() -> None:
    fetched = with_name(batch_of([(b"key", b"value", [(PLACEHOLDER, b"2")])]), b"\xff\xfename\x80\x80")
    with pytest.raises(UnicodeDecodeError):
        read(MemoryRecords(fetched))
