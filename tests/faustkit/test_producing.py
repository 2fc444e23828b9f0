"""Writers: a batch is kept once, and only the newest owner of a name may write where it has written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.effects import OutRecord
from stream_app.faustkit.outbox import Outbox
from stream_app.faustkit.producing import NUM_SEQUENCES, BatchClient, FencedError, Writer
from tests.support import create_topics, read_all

pytestmark = pytest.mark.kafka


@asynccontextmanager
async def outboxes(broker: EmbeddedBroker, topic: str, num: int) -> AsyncIterator[list[Outbox]]:
    """Outboxes as processes of their own would have them, and a topic with two partitions."""
    await create_topics(broker.bootstrap_servers, {topic: 2})
    made = [Outbox({"bootstrap_servers": [broker.bootstrap_servers]}, client_id=f"test-{n}") for n in range(num)]
    for outbox in made:
        await outbox.start()
    try:
        yield made
    finally:
        for outbox in made:
            await outbox.stop()


def values(broker: EmbeddedBroker, topic: str) -> list[bytes]:
    """The values that are on a topic."""
    return [record.value for record in asyncio.run(read_all(broker.bootstrap_servers, topic, 2))]


def test_the_former_owner_of_a_name_is_refused_where_the_new_one_has_written(
    broker: EmbeddedBroker, topic_prefix: str
) -> None:
    topic = topic_prefix + "fenced"

    def record(value: bytes) -> OutRecord:
        return OutRecord(topic, 0, b"k", value)

    async def scenario() -> None:
        async with outboxes(broker, topic, 2) as (former, latter):
            old = await former.claim(topic)
            await former.publish([record(b"old 1")], old)
            new = await latter.claim(topic)
            assert (new.producer_id, new.epoch) == (old.producer_id, old.epoch + 1)
            await former.publish([record(b"old 2")], old)  # the partition has not heard of the new owner
            await latter.publish([record(b"new 1")], new)
            with pytest.raises(FencedError, match=r"fenced\[0\].*another process has taken over"):
                await former.publish([record(b"old 3")], old)
            await latter.publish([record(b"new 2")], new)
            await former.publish([record(b"own")])  # its other writers go on

    asyncio.run(scenario())
    assert values(broker, topic) == [b"old 1", b"old 2", b"new 1", b"new 2", b"own"]


def test_a_batch_that_was_sent_twice_is_kept_once_at_the_same_offset(broker: EmbeddedBroker, topic_prefix: str) -> None:
    topic = topic_prefix + "twice"

    async def scenario() -> None:
        await create_topics(broker.bootstrap_servers, {topic: 2})
        client = BatchClient({"bootstrap_servers": [broker.bootstrap_servers]}, client_id="test", delivery_s=20.0)
        await client.start()
        try:
            writer = await client.new_writer()
            first, second = (
                writer.batch((topic, 0), [OutRecord(topic, 0, b"k", value)] * 3, 0) for value in (b"1", b"2")
            )
            for batch, offset in ((first, 0), (first, 0), (second, 3), (second, 3)):
                assert await client.send([batch]) == {(topic, 0): offset}
        finally:
            await client.stop()

    asyncio.run(scenario())
    assert values(broker, topic) == [b"1"] * 3 + [b"2"] * 3


def test_the_count_of_records_begins_again_at_its_end(broker: EmbeddedBroker, topic_prefix: str) -> None:
    topic = topic_prefix + "wrapped"

    async def scenario() -> None:
        async with outboxes(broker, topic, 1) as (outbox,):
            writer = await outbox.claim(topic)
            # A partition that knows nothing of a writer takes any number for its first.
            writer.next_sequences[topic, 0] = NUM_SEQUENCES - 3
            for number in range(4):
                await outbox.publish([OutRecord(topic, 0, b"k", b"%d" % number)] * 2, writer)
            assert writer.next_sequences[topic, 0] == 5

    asyncio.run(scenario())
    assert values(broker, topic) == [b"0", b"0", b"1", b"1", b"2", b"2", b"3", b"3"]


def test_publications_of_one_writer_at_the_same_time_do_not_disturb_each_other(
    broker: EmbeddedBroker, topic_prefix: str
) -> None:
    topic = topic_prefix + "beside"

    async def scenario() -> list[dict[tuple[str, int], int]]:
        async with outboxes(broker, topic, 1) as (outbox,):
            writer: Writer = await outbox.claim(topic)
            # In turn over one, the other and both partitions, so that their locks are asked for in all orders.
            rounds = [
                [OutRecord(topic, p, b"k", b"%d" % n) for p in partitions]
                for n, partitions in enumerate([(0,), (1,), (1, 0), (0, 1)] * 10)
            ]
            return await asyncio.gather(*(outbox.publish(records, writer) for records in rounds))

    offsets = asyncio.run(scenario())
    assert len(values(broker, topic)) == 60
    for partition in range(2):
        assert sorted(found[topic, partition] for found in offsets if (topic, partition) in found) == list(range(30))
