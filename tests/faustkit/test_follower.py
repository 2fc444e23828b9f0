"""Followers: a whole topic in order, known to be read up to where it was at the start, and then on."""

from __future__ import annotations

import asyncio

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.follower import Follower
from stream_app.faustkit.run import Run
from tests.support import create_topics, publish

pytestmark = pytest.mark.kafka

LIMIT_S = 60.0


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

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))
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

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


def test_nothing_more_is_fetched_while_it_may_not_go_on(broker: EmbeddedBroker, topic_prefix: str) -> None:
    servers, topic, heard = broker.bootstrap_servers, topic_prefix + "held-back", Heard()
    may_go_on = False
    asked = 0

    def gate() -> bool:
        nonlocal asked
        asked += 1
        return may_go_on

    async def scenario() -> None:
        nonlocal may_go_on
        await create_topics(servers, {topic: 1})
        await publish(servers, [(topic, 0, b"k", b"v")])
        follower = Follower({"bootstrap_servers": [servers]}, topic, heard, may_go_on=gate)
        await follower.start()
        while asked < 20:
            await asyncio.sleep(0.02)
        assert heard.num == 0
        may_go_on = True
        await follower.wait_caught_up()
        await follower.stop()

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))
    assert heard.num == 1
