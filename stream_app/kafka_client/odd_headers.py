"""Records whose header names are no UTF-8: read like any other, where aiokafka's reader would fail for good.

Kafka takes any bytes for the name of a header, and producers written in C can send them. aiokafka decodes names
strictly and cannot step over a record, so one such record would stop whoever reads the partition, each time anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint

FIRST_MAGIC_WITH_HEADERS: Final = 2


def read_odd_headers() -> None:
    """Have every consumer of this process read such records; again does no harm."""
    fetcher.MemoryRecords = FetchedRecords


class FetchedRecords(_MemoryRecordsPy):  # type: ignore[misc]
    """The batches that one fetch brought; the compiled reader reads them as long as it can."""

    def next_batch(self) -> Any:
        """The next batch."""
        raw = self._next_slice
        batch = super().next_batch()
        return batch if batch is None or batch.magic < FIRST_MAGIC_WITH_HEADERS else _Batch(batch, raw)


class _Batch:
    """A batch; all but its records is what the compiled reader says."""

    __slots__ = ("_batch", "_raw")

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            return iter(_TolerantBatch(self._raw))

    def __next__(self) -> Any:
        """The next record, as aiokafka asks for the marker of a transaction, which has no headers."""
        return next(self._batch)


class _TolerantBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch whose header names are read whatever their bytes: those that are no UTF-8 become ``\\xNN``."""

    _pos: int

    def _read_msg(self, decode_varint: Any = decode_varint) -> _DefaultRecordPy:
        # Fields of a record (Kafka protocol, "Record"): length, attributes, timestamp and offset deltas, key, value,
        # headers. The compiled reader has found everything but a name in order, so sizes are not checked again.
        _, self._pos = decode_varint(self._buffer, self._pos)
        self._pos += 1
        timestamp_delta, self._pos = decode_varint(self._buffer, self._pos)
        offset_delta, self._pos = decode_varint(self._buffer, self._pos)
        key, value = self._read_bytes(), self._read_bytes()
        num_headers, self._pos = decode_varint(self._buffer, self._pos)
        headers = [(self._read_name(), self._read_bytes()) for _ in range(num_headers)]
        is_append_time = self.timestamp_type == self.LOG_APPEND_TIME
        timestamp = self.max_timestamp if is_append_time else self.first_timestamp + timestamp_delta
        return _DefaultRecordPy(self.base_offset + offset_delta, timestamp, self.timestamp_type, key, value, headers)

    def _read_name(self) -> str:
        return (self._read_bytes() or b"").decode("utf-8", "backslashreplace")

    def _read_bytes(self) -> bytes | None:
        size, start = decode_varint(self._buffer, self._pos)
        self._pos = start + max(size, 0)
        return None if size < 0 else bytes(self._buffer[start : self._pos])
