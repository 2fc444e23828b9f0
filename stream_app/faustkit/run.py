"""A run: consecutive records of one partition, as one fetch brought them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class Run:
    """Records of one partition in offset order, as parallel sequences of equal length (at least one record).

    Offsets grow but need not be consecutive: compaction and control records leave gaps.
    """

    topic: str
    partition: int
    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    headers: Sequence[Headers]

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def num_bytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(len(part) for parts in (self.keys, self.values) for part in parts if part is not None)

    @property
    def next_offset(self) -> int:
        """The offset to go on from once the whole run is done."""
        return self.offsets[-1] + 1


def run_of(records: Sequence[Any]) -> Run:
    """Make a run of aiokafka's records of one partition."""
    first = records[0]
    return Run(
        topic=first.topic,
        partition=first.partition,
        offsets=[record.offset for record in records],
        keys=[record.key for record in records],
        values=[record.value for record in records],
        timestamps_ms=[record.timestamp for record in records],
        headers=[record.headers for record in records],
    )


def merge_runs(runs: Sequence[Run]) -> Run:
    """One run of consecutive runs of the same partition, in order (at least one)."""
    if len(runs) == 1:
        return runs[0]
    return Run(
        topic=runs[0].topic,
        partition=runs[0].partition,
        offsets=[offset for run in runs for offset in run.offsets],
        keys=[key for run in runs for key in run.keys],
        values=[value for run in runs for value in run.values],
        timestamps_ms=[timestamp for run in runs for timestamp in run.timestamps_ms],
        headers=[headers for run in runs for headers in run.headers],
    )


def split_records(records: Sequence[Any], max_records: int, max_bytes: int) -> Iterator[Sequence[Any]]:
    """Cut fetched records into pieces bounded by count and bytes; a record over the byte bound stands alone."""
    start = 0
    size = 0
    for index, record in enumerate(records):
        record_bytes = len(record.value or b"") + len(record.key or b"")
        if index > start and (index - start >= max_records or size + record_bytes > max_bytes):
            yield records[start:index]
            start, size = index, 0
        size += record_bytes
    if start < len(records):
        yield records[start:]
