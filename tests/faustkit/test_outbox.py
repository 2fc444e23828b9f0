"""The outbox: everything is acknowledged in order, or it says that it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.effects import OutRecord
from stream_app.faustkit.outbox import Outbox
from stream_app.faustkit.producing import MAX_BATCH_BYTES, SendError
from tests.support import create_topics, read_all

pytestmark = pytest.mark.kafka


def publish(
    broker: EmbeddedBroker, *rounds: Sequence[OutRecord], timeout_ms: int = 40_000
) -> list[dict[tuple[str, int], int]]:
    """Send these one after the other, and return the offsets of each."""

    async def scenario() -> list[dict[tuple[str, int], int]]:
        connection = {"bootstrap_servers": [broker.bootstrap_servers], "request_timeout_ms": timeout_ms}
        outbox = Outbox(connection, client_id="test")
        await outbox.start()
        try:
            return [await outbox.publish(records) for records in rounds]
        finally:
            await outbox.stop()

    return asyncio.run(scenario())


def make_topic(broker: EmbeddedBroker, topic: str, **configs: str) -> None:
    """A topic with two partitions."""
    settings = {name.replace("_", "."): value for name, value in configs.items()}
    asyncio.run(create_topics(broker.bootstrap_servers, {topic: 2}, settings))


def test_order_keys_and_headers_are_kept_over_many_batches(broker: EmbeddedBroker, topic_prefix: str) -> None:
    topic = topic_prefix + "out"
    make_topic(broker, topic)
    size = MAX_BATCH_BYTES // 4
    records = [
        OutRecord(topic, place % 2, b"%d" % place, b"%d" % place * (size // len(str(place))), [("n", b"%d" % place)])
        for place in range(30)
    ]
    records.append(OutRecord(topic, 0, None, None))
    last, more = publish(broker, records, records[:1])
    assert last == {(topic, 0): 15, (topic, 1): 14}
    assert more == {(topic, 0): 16}
    read = asyncio.run(read_all(broker.bootstrap_servers, topic, 2))
    for partition in range(2):
        got = [(r.key, r.value, list(r.headers)) for r in read if r.partition == partition]
        sent = [(r.key, r.value, list(r.headers)) for r in [*records, records[0]] if r.partition == partition]
        assert got == sent


def test_offsets_are_those_of_the_last_record_of_each_partition(broker: EmbeddedBroker, topic_prefix: str) -> None:
    first, second = topic_prefix + "first", topic_prefix + "second"
    make_topic(broker, first)
    make_topic(broker, second)
    rounds = [[OutRecord(first, 1, b"k", b"v")] * (n + 1) + [OutRecord(second, 0, b"k", b"v")] for n in range(3)]
    assert publish(broker, *rounds, []) == [
        {(first, 1): 0, (second, 0): 0},
        {(first, 1): 2, (second, 0): 1},
        {(first, 1): 5, (second, 0): 2},
        {},
    ]


def test_a_record_over_the_limit_of_its_topic_is_not_passed_over(broker: EmbeddedBroker, topic_prefix: str) -> None:
    topic = topic_prefix + "small"
    make_topic(broker, topic, max_message_bytes="10000")
    with pytest.raises(SendError, match="MessageSizeTooLarge"):
        publish(broker, [OutRecord(topic, 0, b"k", b"v"), OutRecord(topic, 1, b"k", b"x" * 50_000)])


def test_a_record_over_a_batch_but_within_the_limits_is_sent(broker: EmbeddedBroker, topic_prefix: str) -> None:
    topic = topic_prefix + "large"
    make_topic(broker, topic)
    huge = OutRecord(topic, 0, b"k", b"x" * (3 * MAX_BATCH_BYTES))
    assert publish(broker, [huge, OutRecord(topic, 0, b"k", b"v"), huge]) == [{(topic, 0): 2}]


def test_a_topic_that_is_not_there_is_an_error_in_bounded_time(broker: EmbeddedBroker, topic_prefix: str) -> None:
    with pytest.raises(SendError, match="did not acknowledge"):
        publish(broker, [OutRecord(topic_prefix + "none", 0, b"k", b"v")], timeout_ms=500)
