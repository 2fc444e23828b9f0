"""Followers: a whole topic in order, known to be read up to where it was at the start, and then on."""

from __future__ import annotations

import asyncio

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.follower import Follower
from stream_app.faustkit.run import Run
from tests.support import DEADLINE_S, create_topics, publish

pytestmark = pytest.mark.kafka


class Heard:
    """What a follower delivered."""

    def __init__(self) -> None:
        self.values: dict[int, list[bytes | None]] = {}

    def __call__(self, run: Run) -> None:
        self.values.setdefault(run.partition, []).extend(run.values)

    @property
    def num(self) -> int:
        """How many records."""
        return sum(len(values) for values in self.values.values())


async def until(heard: Heard, num: int) -> None:
    """Wait until so many records were delivered."""
    while heard.num < num:
        await asyncio.sleep(0.02)


def test_all_partitions_are_read_and_followed(broker: EmbeddedBroker, topic_prefix: str) -> None:
    servers, topic, heard = broker.bootstrap_servers, topic_prefix + "followed", Heard()

    async def scenario() -> None:
        await create_topics(servers, {topic: 2})
        await publish(servers, [(topic, n % 2, b"k", b"%d" % n) for n in range(100)])
        follower = Follower({"bootstrap_servers": [servers]}, topic, heard)
        await follower.start()
        await follower.wait_caught_up()
        assert heard.num == 100
        await publish(servers, [(topic, 1, b"k", None)])
        await until(heard, 101)
        await follower.stop()
        await publish(servers, [(topic, 1, b"k", b"nobody listens")])

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))
    assert heard.values[0] == [b"%d" % n for n in range(0, 100, 2)]
    assert heard.values[1] == [*(b"%d" % n for n in range(1, 100, 2)), None]


def test_an_empty_topic_is_caught_up_with_at_once(broker: EmbeddedBroker, topic_prefix: str) -> None:
    servers, topic = broker.bootstrap_servers, topic_prefix + "empty"

    async def scenario() -> None:
        await create_topics(servers, {topic: 2})
        follower = Follower({"bootstrap_servers": [servers]}, topic, Heard())
        await follower.start()
        await follower.wait_caught_up()
        await follower.stop()

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def test_a_partition_held_back_waits_while_the_others_go_on(broker: EmbeddedBroker, topic_prefix: str) -> None:
    servers, topic, heard = broker.bootstrap_servers, topic_prefix + "held-back", Heard()
    held = {0}

    async def scenario() -> None:
        await create_topics(servers, {topic: 2})
        await publish(servers, [(topic, n % 2, b"k", b"%d" % n) for n in range(10)])
        follower = Follower({"bootstrap_servers": [servers]}, topic, heard, hold=lambda: held)
        await follower.start()
        await until(heard, 5)
        # More comes on the free partition while the other one is held.
        await publish(servers, [(topic, 1, b"k", b"more")])
        await until(heard, 6)
        assert set(heard.values) == {1}
        held.clear()
        await follower.wait_caught_up()
        await follower.stop()

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))
    assert heard.values[0] == [b"0", b"2", b"4", b"6", b"8"]


def test_a_partition_held_back_later_stops_at_the_next_fetch(broker: EmbeddedBroker, topic_prefix: str) -> None:
    servers, topic, heard = broker.bootstrap_servers, topic_prefix + "held-later", Heard()
    held: set[int] = set()

    async def scenario() -> None:
        await create_topics(servers, {topic: 2})
        await publish(servers, [(topic, 0, b"k", b"before")])
        follower = Follower({"bootstrap_servers": [servers]}, topic, heard, hold=lambda: held)
        await follower.start()
        await until(heard, 1)
        held.add(0)
        # The fetch under way may bring one more; what follows a record of the other partition may not.
        for n in range(3):
            await publish(servers, [(topic, 1, b"k", b"%d" % n)])
            await until(heard, 2 + n)
        await publish(servers, [(topic, 0, b"k", b"after"), (topic, 1, b"k", b"last")])
        await until(heard, 5)
        assert heard.values[0] == [b"before"]
        held.clear()
        await until(heard, 6)
        await follower.stop()

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))
    assert heard.values[0] == [b"before", b"after"]
