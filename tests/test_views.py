"""What recommenders hold whole: a replay's lists wait for the catalogue that was sent before its events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from index import build_index
from stream_app import item_view
from stream_app.broker import EmbeddedBroker
from stream_app.faustkit import Run
from stream_app.item_view import ItemView
from stream_app.kafka import connection
from stream_app.records import Item, encode
from stream_app.settings import KafkaSettings, Settings
from stream_app.topic_ends import TopicEnds
from tests.support import DEADLINE_S, create_topics, publish


def new_view() -> ItemView:
    """An empty view of two partitions."""
    return ItemView(build_index("exact", 4, "r1"), 2)


def items_run(partition: int, start: int, items: Sequence[tuple[str, bool]]) -> Run:
    """Records of a catalogue."""
    keys = [name.encode() for name, _ in items]
    values = [encode(Item(item_id=name, available=is_there)) for name, is_there in items]
    num = len(items)
    return Run("items", partition, range(start, start + num), keys, values, [0] * num, [()] * num)


def test_lists_wait_until_the_catalogue_is_read() -> None:
    async def story() -> None:
        view = new_view()
        await view.catch_up({0: 0, 1: 0})
        waiting = asyncio.create_task(view.catch_up({0: 3, 1: 1}))
        for run in (items_run(0, 0, [("a", True), ("b", False)]), items_run(1, 0, [("c", False)])):
            await asyncio.sleep(0)
            view._take_items(run)
            await asyncio.sleep(0)
            assert not waiting.done()
        view._take_items(items_run(0, 2, [("a", False)]))
        await asyncio.wait_for(waiting, DEADLINE_S)
        assert [view.is_available(name) for name in "abcd"] == [False, False, False, True]
        await view.catch_up({0: 3, 1: 1})

    asyncio.run(story())


def test_an_end_that_nothing_leads_to_is_not_waited_for_twice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(item_view, "CATALOGUE_WAIT_S", 0.01)

    async def story() -> None:
        view = new_view()
        await view.catch_up({0: 5, 1: 0})
        monkeypatch.setattr(item_view, "CATALOGUE_WAIT_S", 3600.0)
        await asyncio.wait_for(view.catch_up({0: 5, 1: 0}), DEADLINE_S)

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert len(caplog.records) == 1


@pytest.mark.kafka
def test_the_ends_of_a_topic(broker: EmbeddedBroker, topic_prefix: str) -> None:
    topic = f"{topic_prefix}items"
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers))

    async def story() -> None:
        await create_topics(broker.bootstrap_servers, {topic: 2})
        ends = TopicEnds(connection(settings), topic, 2)
        await ends.start()
        try:
            assert await ends.ends() == {0: 0, 1: 0}
            await publish(broker.bootstrap_servers, [(topic, 1, b"k", b"v")] * 3)
            assert await ends.ends() == {0: 0, 1: 3}
        finally:
            await ends._consumer.stop()

    asyncio.run(story())
