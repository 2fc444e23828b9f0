"""A topic as a log: the merged order, that a replay of a replay is the same replay, and reading on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker import EmbeddedBroker
from stream_app.errors import LogFormatError
from stream_app.preflight import ensure_topics
from stream_app.records import STRICT_HEADER, TICK_HEADER
from stream_app.replay import topic_log
from stream_app.replay.fields import TopicRow
from stream_app.replay.planning import PlannedRecord, ReplayPlan
from stream_app.replay.ranges import resolve_ranges
from stream_app.replay.readers import Row
from stream_app.replay.topic_log import Lane, TopicLog, merged, names_user, own_headers
from stream_app.settings import KafkaSettings, Settings
from stream_app.settings_rules import clean_rules
from stream_app.topic_reader import StoredRecord

EPOCH_MS = 100
RULES = clean_rules(Settings())
START_MS = 1_700_000_000_000


def row(user: str, ts: int, kind: str = "click") -> dict[str, Any]:
    """An event of a log."""
    return {"user_id": user, "item_id": "i", "type": kind, "ts": ts}


def stored(partition: int, records: Iterable[PlannedRecord]) -> list[StoredRecord]:
    """What a partition holds after these records were sent to it."""
    return [
        StoredRecord("events", partition, place, one.timestamp_ms, one.key, one.value, tuple(one.headers))
        for place, one in enumerate(records)
    ]


def rows_of(partitions: Sequence[Sequence[StoredRecord]], window: int = 1000) -> list[TopicRow]:
    """The rows of a topic with these partitions, read in windows."""
    lanes = {number: Lane(RULES, 0, len(records)) for number, records in enumerate(partitions)}

    def fill() -> None:
        while any(not lane.rows and not lane.is_read for lane in lanes.values()):
            for number, lane in lanes.items():
                start, end = lane.next_range(window)
                for record in partitions[number][start:end]:
                    lane.take(record)
                lane.next_offset = end

    return list(merged(lanes, fill))


def by_partition(records: Iterable[PlannedRecord], num_partitions: int) -> list[list[PlannedRecord]]:
    """The records of each partition, in order."""
    lanes: list[list[PlannedRecord]] = [[] for _ in range(num_partitions)]
    for record in records:
        lanes[record.partition].append(record)
    return lanes


ROWS = st.lists(
    st.one_of(
        st.builds(
            row,
            st.sampled_from(["ann", "bob", "cat", "dan"]),
            st.integers(START_MS, START_MS + 2000),
            st.sampled_from(["click", "click", "gaze"]),
        ),
        st.just(b'{"user_id":"ann"'),
    ),
    max_size=40,
)


@given(ROWS, st.integers(1, 4), st.integers(1, 9))
def test_the_replay_of_a_replay_sends_every_partition_the_same_records(
    rows: list[Row], num_partitions: int, window: int
) -> None:
    """However far out of order the log is: its ticks say into which epoch each record fell."""
    plan = ReplayPlan(num_partitions, EPOCH_MS)
    first = by_partition([*plan.records_of(rows), *plan.last_ticks()], num_partitions)
    found = rows_of([stored(number, lane) for number, lane in enumerate(first)], window)
    again = ReplayPlan(num_partitions, EPOCH_MS, keeps_partitions=True)
    assert by_partition([*again.records_of(found), *again.last_ticks()], num_partitions) == first
    assert again.counted == plan.counted


LIVE = st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 500)), max_size=15), min_size=1, max_size=3)


@given(LIVE, st.integers(1, 5))
def test_what_nobody_ticked_is_merged_by_the_greatest_time_so_far(
    partitions: list[list[tuple[str, int]]], window: int
) -> None:
    topic = [
        [
            StoredRecord("events", number, place, START_MS, b"%d" % number, orjson.dumps(row(str(number), ts)), ())
            for place, (_, ts) in enumerate(listed)
        ]
        for number, listed in enumerate(partitions)
    ]
    found = rows_of(topic, window)
    assert all(one.clock_ms <= other.clock_ms for one, other in pairwise(found))
    for number, records in enumerate(topic):
        mine = [one for one in found if one.partition == number]
        assert [one.value for one in mine] == [record.value for record in records]
        newest = 0
        for one, (_, ts) in zip(mine, partitions[number], strict=True):
            newest = max(newest, ts)
            assert one.clock_ms == newest


def test_another_number_of_partitions_sends_users_where_they_belong() -> None:
    topic = [[StoredRecord("events", 0, 0, 5, None, b"x", ())], [StoredRecord("events", 1, 0, 5, b"ann", b"y", ())]]
    records = list(ReplayPlan(5, EPOCH_MS).records_of(rows_of(topic)))
    expected = ReplayPlan(5, EPOCH_MS).records_of([row("ann", 5)])
    assert [record.partition for record in records] == [0, next(one for one in expected if one.key).partition]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (b"ann", b'{"user_id":"ann"}', True),
        (b"bob", b'{"user_id":"ann"}', False),
        (b"ann", b'{"user_id":7}', False),
        (None, b'{"user_id":"ann"}', False),
        (b"ann", b"[]", False),
        (b"ann", b"{", False),
        (b"ann", None, False),
    ],
)
def test_whose_a_record_is_that_is_no_event(key: bytes | None, value: bytes | None, expected: bool) -> None:
    assert names_user(key, value, RULES) is expected


def test_only_the_headers_of_a_replay_are_left_out() -> None:
    headers = (("trace", b"1"), (STRICT_HEADER, b"1"), ("trace", b"2"), (TICK_HEADER, b"x"))
    assert own_headers(headers) == (("trace", b"1"), ("trace", b"2"))


# ---------------------------------------------------------------- on a broker


def settings_for(broker: EmbeddedBroker, prefix: str) -> Settings:
    """Settings of one test, with all topics there."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    settings = Settings(kafka=kafka, prefix=prefix, partitions=2)
    ensure_topics(settings, create=True)
    return settings


def fill_topic(settings: Settings, num_records: int) -> None:
    """Alternating partitions; every tenth record is none."""

    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
            for place in range(num_records):
                value = None if place % 10 == 9 else orjson.dumps(row("ann", START_MS + place))
                await producer.send(
                    f"{settings.prefix}events",
                    value,
                    key=b"ann",
                    partition=place % 2,
                    timestamp_ms=START_MS + place,
                    headers=[("n", b"%d" % place)],
                )
            await producer.flush()

    asyncio.run(send())


def open_range(settings: Settings, **given: Any) -> TopicLog:
    """The log of a range."""
    topic = f"{settings.prefix}events"
    return TopicLog(settings, topic, asyncio.run(resolve_ranges(settings, topic, given.get("start"), given.get("end"))))


def numbers_of(log: TopicLog, limit: int | None = None) -> list[int]:
    """Which records the log has, in its order, as `fill_topic` numbered them."""
    return [int(dict(one.headers)["n"] or b"") for chunk in log.iter_chunks(limit, chunk_events=7) for one in chunk]


@pytest.mark.kafka
def test_a_range_is_read_window_by_window_in_the_same_order(
    broker: EmbeddedBroker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(broker, topic_prefix)
    fill_topic(settings, 61)
    log = open_range(settings)
    whole = numbers_of(log)
    assert sorted(whole) == list(range(61))
    monkeypatch.setattr(topic_log, "MIN_WINDOW", 4)
    monkeypatch.setattr(topic_log, "READ_AHEAD_RECORDS", 8)
    fill_topic(settings, 4)  # comes after the range was fixed
    assert numbers_of(log) == whole == numbers_of(log)
    assert numbers_of(log, limit=5) == whole[:5]
    nulls = [one for chunk in log.iter_chunks() for one in chunk if one.value is None]
    assert {one.timestamp_ms for one in nulls} == {START_MS + place for place in range(9, 61, 10)}


@pytest.mark.kafka
def test_records_that_kafka_removed_are_missed_loudly(broker: EmbeddedBroker, topic_prefix: str) -> None:
    settings = settings_for(broker, topic_prefix)
    fill_topic(settings, 20)
    log = open_range(settings)

    async def remove() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(f"{topic_prefix}events", 1): RecordsToDelete(4)})
        finally:
            await admin.close()

    asyncio.run(remove())
    with pytest.raises(LogFormatError, match=r"events\[1\] from offset 0 to 3"):
        numbers_of(log)
    assert len(numbers_of(open_range(settings))) == 16
