"""Feeding: every record of a load, each on the partition of its key."""

from __future__ import annotations

from stream_app.kafka import partition_of
from tests.bench.sequence.feed import input_records
from tests.bench.sequence.job import NUM_PARTITIONS, Load


def test_a_load_comes_whole_and_on_the_right_partitions() -> None:
    load = Load(200, 30)
    records = list(input_records(load))
    assert [(key, value) for _, key, value in records] == list(load.records())
    assert [partition for partition, _, _ in records] == [partition_of(key, NUM_PARTITIONS) for _, key, _ in records]
