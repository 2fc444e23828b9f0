"""A run: consecutive records of one partition, as one fetch brought them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

Headers = Sequence[tuple[str, bytes | None]]
"""Kafka lets a value be null."""

MAX_RUN_RECORDS = 4000
"""Records of one run: enough to make per-run costs vanish, few enough that a run takes well under a second."""

MAX_RUN_BYTES = 4 * 1024 * 1024
"""Bytes of one run, so that waiting runs stay small in memory."""


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
        return sum(map(len, filter(None, chain(self.keys, self.values))))

    @property
    def next_offset(self) -> int:
        """The offset to go on from once the whole run is done."""
        return self.offsets[-1] + 1


def run_of(topic: str, partition: int, records: Sequence[Any]) -> Run:
    """Make a run of records of one partition; each has an offset, key, value, timestamp and headers."""
    return Run(
        topic=topic,
        partition=partition,
        offsets=[record.offset for record in records],
        keys=[record.key for record in records],
        values=[record.value for record in records],
        timestamps_ms=[record.timestamp for record in records],
        headers=[record.headers for record in records],
    )


def part_of(run: Run, start: int, stop: int) -> Run:
    """The records from place `start` up to before place `stop` (at least one)."""
    if start == 0 and stop == len(run):
        return run
    return Run(
        topic=run.topic,
        partition=run.partition,
        offsets=run.offsets[start:stop],
        keys=run.keys[start:stop],
        values=run.values[start:stop],
        timestamps_ms=run.timestamps_ms[start:stop],
        headers=run.headers[start:stop],
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
    """Cut records into pieces bounded by count and bytes; a record over the byte bound stands alone."""
    sizes = [len(record.value or b"") + len(record.key or b"") for record in records]
    if sum(sizes) <= max_bytes:
        for start in range(0, len(records), max_records):
            yield records[start : start + max_records]
        return
    start = 0
    size_bytes = 0
    for place, record_bytes in enumerate(sizes):
        if place > start and (place - start >= max_records or size_bytes + record_bytes > max_bytes):
            yield records[start:place]
            start, size_bytes = place, 0
        size_bytes += record_bytes
    yield records[start:]
