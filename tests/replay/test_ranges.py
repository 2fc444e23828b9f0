"""Ranges of a topic: how they are written, and what they stand for on a real broker."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer

from stream_app.broker import EmbeddedBroker
from stream_app.errors import LogFormatError, UsageError
from stream_app.replay.ranges import Bound, check_kept, parse_bound, parse_time_ms, resolve_ranges
from stream_app.settings import KafkaSettings, Settings
from tests.support import create_topics

NOON_MS = 1_717_156_800_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Bound(offset=0)),
        ("1717156800000", Bound(offset=NOON_MS)),
        ("1717156800000ms", Bound(time_ms=NOON_MS)),
        ("2024-05-31T12:00:00Z", Bound(time_ms=NOON_MS)),
        ("2024-05-31T14:00:00.25+02:00", Bound(time_ms=NOON_MS + 250)),
        ("1:20", Bound(offsets={1: 20})),
        ("0:3,10:20", Bound(offsets={0: 3, 10: 20})),
    ],
)
def test_bounds_are_offsets_pairs_or_times(text: str, expected: Bound) -> None:
    assert parse_bound(text, "--from") == expected


@pytest.mark.parametrize("text", ["", "-1", "soon", "1:", "1:2,", "1:2,1:3", "2024-05-31T12:00:00", "1.5", "١"])
def test_what_is_none_is_told_with_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match="--from") as caught:
        parse_bound(text, "--from")
    assert "0:100" in caught.value.mend or "UTC" in caught.value.mend


def test_a_time_alone_is_no_offset() -> None:
    assert parse_time_ms("5ms", "--pause-at") == 5
    with pytest.raises(UsageError, match="--pause-at 5 "):
        parse_time_ms("5", "--pause-at")


def test_every_partition_that_lost_records_is_named() -> None:
    check_kept("events", {0: 5, 1: 7}, {0: 5, 1: 0})
    with pytest.raises(LogFormatError, match=r"events\[0\] from offset 5 to 8, events\[2\] from offset 0 to 0\."):
        check_kept("events", {0: 5, 1: 7, 2: 0}, {0: 9, 1: 7, 2: 1})


@pytest.mark.kafka
def test_ranges_on_a_topic(broker: EmbeddedBroker, topic_prefix: str) -> None:
    topic = f"{topic_prefix}events"
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers), prefix=topic_prefix)

    async def fill() -> None:
        await create_topics(broker.bootstrap_servers, {topic: 3}, {"retention.ms": "-1"})
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
            # Partition 0 holds ten records, ten seconds apart; partition 1 five; partition 2 none.
            for partition, count in ((0, 10), (1, 5)):
                for place in range(count):
                    at_ms = NOON_MS + place * 10_000
                    await producer.send_and_wait(topic, b"x", partition=partition, timestamp_ms=at_ms)

    asyncio.run(fill())

    def resolved(start: str | None = None, end: str | None = None) -> dict[int, tuple[int, int]]:
        bounds = [None if text is None else parse_bound(text, "--from") for text in (start, end)]
        return asyncio.run(resolve_ranges(settings, topic, *bounds))

    assert resolved() == {0: (0, 10), 1: (0, 5), 2: (0, 0)}
    assert resolved("3", "7") == {0: (3, 7), 1: (3, 5), 2: (3, 3)}
    assert resolved("0:4", "1:2") == {0: (4, 10), 1: (0, 2), 2: (0, 0)}
    assert resolved("2024-05-31T12:00:15Z", "2024-05-31T12:00:40Z") == {0: (2, 4), 1: (2, 4), 2: (0, 0)}
    assert resolved(f"{NOON_MS + 45_000}ms") == {0: (5, 10), 1: (5, 5), 2: (0, 0)}
    with pytest.raises(LogFormatError, match=r"no record in that range; .* 0:0-10, 1:0-5, 2:0-0"):
        resolved("2025-01-01T00:00:00Z")
    with pytest.raises(LogFormatError, match="no record"):
        resolved("5", "3")
    with pytest.raises(UsageError, match="partition 3 is named"):
        resolved("3:1")
