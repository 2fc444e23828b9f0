"""What is read of the running system: trends as of an epoch, and whether slices are those that were published."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.inspection.published import PublishedTopics, TrendsAsOf, published_of
from stream_app.inspection.trace import trace
from stream_app.records import (
    ActivityRecord,
    Recommendation,
    SliceVectorRecord,
    TrendEpochRecord,
    TrendRecord,
    encode,
)
from stream_app.settings import KafkaSettings, Settings
from stream_app.settings_rules import trend_rule
from stream_app.topic_reader import TopicReader
from stream_app.topics import ITEM_ACTIVITY, ITEM_TRENDS, RECOMMENDATIONS
from tests.inspection.cases import SETTINGS, click, log_of
from tests.support import create_topics, publish


def trend(item_id: str, epoch: int, first_epoch: int = 0) -> TrendRecord:
    return TrendRecord(item_id=item_id, epoch=epoch, first_epoch=first_epoch, counts=[1.0, 2.0], predecessors=[])


def made_list(user_id: str, offset: int) -> Recommendation:
    return Recommendation(
        recommendation_id=str(offset),
        user_id=user_id,
        event_ts=offset,
        partition=0,
        offset=offset,
        release="m",
        index_version="m/1",
        epoch=1,
        has_vector=True,
        items=[],
    )


def keyed(
    topic: str, partition: int, records: Iterable[tuple[str, msgspec.Struct]]
) -> list[tuple[str, int, bytes, bytes]]:
    return [(topic, partition, key.encode(), encode(record)) for key, record in records]


@pytest.mark.kafka
def test_topics_are_read_as_of_a_moment(broker: EmbeddedBroker, topic_prefix: str) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers), prefix=topic_prefix)
    trends, activity, lists = (topic_prefix + name for name in (ITEM_TRENDS, ITEM_ACTIVITY, RECOMMENDATIONS))
    first = [("p", trend("p", 1)), ("q", trend("q", 2)), ("p", trend("p", 3)), ("", TrendEpochRecord(epoch=9))]
    # Of `gone` only a later record is left, though it was touched before; `new` was not.
    other = [("gone", trend("gone", 7)), ("new", trend("new", 7, first_epoch=7)), ("", TrendEpochRecord(epoch=8))]
    touch = ActivityRecord(partition=0, offset=1, epoch=0, item_id="p")

    async def run() -> None:
        await create_topics(broker.bootstrap_servers, {trends: 2, activity: 1, lists: 1})
        told = [("ann", made_list("ann", offset)) for offset in (3, 5, 8)] + [("bob", made_list("bob", 5))]
        await publish(
            broker.bootstrap_servers,
            keyed(trends, 0, first)
            + keyed(trends, 1, other)
            + keyed(activity, 0, [("p", touch), ("q", ActivityRecord(partition=0, offset=2, epoch=0, item_id="q"))])
            + keyed(lists, 0, told),
        )
        async with TopicReader(settings) as reader:
            topics = PublishedTopics(settings, reader, lambda _: None)
            assert await topics.complete_epoch() == 8
            assert await topics.trends_as_of({2, 8}) == {
                2: TrendsAsOf(2, {"p": trend("p", 1), "q": trend("q", 2)}, num_lost=1),
                8: TrendsAsOf(
                    8,
                    {
                        "p": trend("p", 3),
                        "q": trend("q", 2),
                        "gone": trend("gone", 7),
                        "new": trend("new", 7, first_epoch=7),
                    },
                ),
            }
            assert await topics.activity_of({"p"}) == [touch]
            assert await topics.activity_of(()) == []
            assert await topics.lists_of("ann", 0, {5, 6}) == {5: made_list("ann", 5)}
            assert await topics.lists_of("ann", 0, ()) == {}

    asyncio.run(run())


def test_a_view_takes_other_records_instead() -> None:
    rule = trend_rule(SETTINGS)
    read = TrendsAsOf(4, {"p": trend("p", 1), "q": trend("q", 2)})
    assert sorted(read.view(rule).item_ids) == ["p", "q"]
    view = read.view(rule, {"p": None, "r": trend("r", 3)})
    assert (sorted(view.item_ids), view.epoch) == (["q", "r"], 4)


def test_slices_published_with_other_events_are_told_and_not_followed() -> None:
    records = [click("a", "p", 100), click("a", "q", 101)]
    traced = trace("a", 0, log_of("a", records).entries, SETTINGS)
    vector = SliceVectorRecord(
        user_id="a",
        seq=0,
        revision=2,
        closed=False,
        fresh=True,
        items=["p", "q"],
        last_ts=101,
        partition=0,
        offset=1,
        release="m",
        slice_vector="",
        user_vector="",
        num_slices_merged=0,
    )
    later = msgspec.structs.replace(traced.revisions[-1], revision=3, closed=True)
    published, notes = published_of({}, [*traced.revisions, later], [vector], traced)
    assert (published.order, dict(published.vectors), notes) == ([(0, 2)], {(0, 2): vector}, [])

    other = msgspec.structs.replace(traced.revisions[-1], events=traced.revisions[0].events)
    published, notes = published_of({}, [traced.revisions[0], other], [vector], traced)
    assert (published.order, dict(published.vectors)) == ((), {})
    assert len(notes) == 1 and "slice 0, revision 2" in notes[0] and "(1 of 2 revisions)" in notes[0]
