"""The server on a real Kafka, with what the roles would have written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.kafka import admin_client
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader
from stream_app.web.state import lookups
from stream_app.web.state.model_facts import model_facts
from tests.web.cases import USERS, Client, Seeder, list_value, running, slice_value, web_settings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

Story = Callable[[Client, Seeder], Awaitable[None]]


@pytest.fixture
def settings(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Settings:
    """A namespace of this test."""
    return web_settings(broker.bootstrap_servers, topic_prefix, tmp_path)


def tell(settings: Settings, story: Story) -> None:
    """Run a story on a seeded namespace with a server."""

    async def told() -> None:
        seeder = Seeder(settings)
        await seeder.all()
        async with running(settings) as client:
            await story(client, seeder)

    asyncio.run(told())


def quoted(user_id: str) -> str:
    """A user id as part of a path."""
    return quote(user_id, safe="")


def ids(answer: dict[str, Any]) -> list[str]:
    """The items of a list."""
    return [item["item_id"] for item in answer["items"]]


def test_lists_with_titles_filters_and_reasons(settings: Settings) -> None:
    async def story(client: Client, _: Seeder) -> None:
        for user_id in USERS:
            found = await client.good(f"/recommendations/{quoted(user_id)}")
            assert found["user_id"] == user_id
            assert ids(found) == ["b", "c", "a"]
            assert [item["title"] for item in found["items"]][1] == "<img src=x onerror=alert(1)>"
            assert "fallback" not in found and "num_published" not in found and "why" not in found["items"][0]
        assert ids(await client.good("/recommendations/ann?count=1")) == ["b"]
        assert ids(await client.good("/recommendations/ann?category=hero")) == ["c", "a"]
        assert ids(await client.good("/recommendations/ann?category=film")) == ["a"]
        assert ids(await client.good("/recommendations/ann?max_price=8")) == ["a"]
        filtered = await client.good("/recommendations/ann?category=hero")
        assert (filtered["num_published"], filtered["recommendation_id"]) == (2, "id-0")
        # Who has no list gets what is popular, and then what else there is.
        others = await client.good("/recommendations/nobody?category=hero")
        assert [(item["item_id"], item["sources"]) for item in others["items"]] == [
            ("a", ["popular"]),
            ("c", ["catalogue"]),
        ]
        reasons = (await client.good("/recommendations/ann?why=1"))["items"][0]["why"]
        # Its own vector is nearest to b; and half of the touches of a were followed by b.
        assert reasons["items"][0] == {"item_id": "b", "title": "The Iron Giant (1999)", "weight": 1.0}
        assert sum(part["weight"] for part in reasons["slices"]) == pytest.approx(1.0, abs=1e-3)
        popular = await client.good("/recommendations/nobody")
        assert (popular["fallback"], ids(popular), popular["recommendation_id"]) == ("popular", ["a", "b"], "")

    tell(settings, story)


def test_an_answer_that_is_kept_says_how_old_it_is_and_gives_way_to_a_new_list(settings: Settings) -> None:
    async def story(client: Client, seeder: Seeder) -> None:
        await client.until("/recommendations/ann?count=3", lambda found: found["age_ms"] > 0)
        await seeder.send([seeder.place(topics.RECOMMENDATIONS, "ann", list_value("ann", ["c"], offset=1))])
        found = await client.until("/recommendations/ann?count=3", lambda found: ids(found) == ["c"])
        assert found["recommendation_id"] == "id-1"
        assert found["age_ms"] < 1000
        assert found["items"][0]["available"]
        topic, partition, key, _ = seeder.place(topics.ITEMS, "c", b"")
        await seeder.send([(topic, partition, key, None)])
        found = await client.until("/recommendations/ann?count=3", lambda found: not found["items"][0]["available"])
        # A deleted item is still on the list, but nobody can have it.
        assert [(item["item_id"], item["title"]) for item in found["items"]] == [("c", "c")]

    tell(settings, story)


def test_users_and_their_slices(settings: Settings) -> None:
    async def story(client: Client, _: Seeder) -> None:
        users = (await client.good("/users"))["users"]
        assert {user["user_id"] for user in users} == set(USERS)
        found = await client.good("/users/ann")
        assert [(event["item_id"], event["seq"]) for event in found["events"]] == [("a", 0), ("b", 1), ("a", 1)]
        assert found["last_seen_ts"] == found["events"][-1]["ts"] == users[0]["last_seen_ts"]
        assert [(part["closed"], part["num_events"]) for part in found["slices"]] == [(True, 1), (False, 2)]
        assert sum(part["weight"] for part in found["slices"]) == pytest.approx(1.0, abs=1e-3)
        assert all(part["vector_norm"] > 0 for part in found["slices"])
        assert found["profile"]["types"] == {"click": 3}
        assert found["profile"]["top_categories"][0] == {"category": "hero", "share": 0.6667}
        status, problem = await client.ask("/users/nobody")
        assert (status, problem["status"]) == (404, 404)
        assert "sliceflow inspect" in problem["mend"]

    tell(settings, story)


def test_users_that_are_not_held_are_looked_up_on_the_topics(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = web_settings(broker.bootstrap_servers, topic_prefix, tmp_path, serve_users=1)

    async def story(client: Client, seeder: Seeder) -> None:
        # Of each partition one record is read at the start, and one user is held; the others are on the topics.
        for user_id in USERS:
            assert ids(await client.good(f"/recommendations/{quoted(user_id)}")) == ["b", "c", "a"]
        await seeder.send([seeder.history("carl", [f"item-{number}" for number in range(20)])])
        found = await client.until("/users/carl", lambda found: True)
        assert [part["seq"] for part in found["slices"]] == list(range(20))
        assert found["num_events"] == 20

    tell(settings, story)


def test_somebody_who_is_not_found_is_not_looked_for_again_at_once(settings: Settings) -> None:
    async def story() -> None:
        await Seeder(settings).all()
        looked = lookups.Lookups(settings)
        assert await looked.newest_list("carl") is None
        seeder = Seeder(settings)
        await seeder.send([seeder.place(topics.RECOMMENDATIONS, "carl", list_value("carl", ["a"]))])
        assert await looked.newest_list("carl") is None
        assert await lookups.Lookups(settings).newest_list("carl") == list_value("carl", ["a"])

    asyncio.run(story())


def test_items(settings: Settings) -> None:
    async def story(client: Client, _: Seeder) -> None:
        found = await client.good("/items/a")
        assert (found["title"], found["category"], found["price"]) == ("Iron Man (2008)", "hero", 5.0)
        assert found["vector_norm"] > 0 and found["is_trained"] is False
        assert found["first_seen_ts"] == 1 * settings.epoch_ms
        assert 3.9 < found["touches"]["30d"] <= 4.0
        assert [follower["item_id"] for follower in found["followers"]] == ["b"]
        assert (await client.good("/items/gone"))["available"] is False
        assert (await client.ask("/items/unheard"))[0] == 404
        near = await client.good("/items/a/similar?count=5")
        assert {item["item_id"] for item in near["items"]} == {"b", "c"}
        assert (await client.good("/items/cold/similar"))["items"] == []
        assert (await client.ask("/items/unheard/similar"))[0] == 404
        assert ids(await client.good("/items?order=newest")) == ["b", "a"]
        assert ids(await client.good("/items?order=popular")) == ["a", "b"]
        assert set(ids(await client.good("/items?order=cold"))) == {"c", "gone", "cold"}

    tell(settings, story)


def test_search_by_words(settings: Settings) -> None:
    async def story(client: Client, _: Seeder) -> None:
        found = await client.good("/search?q=iron")
        assert (found["by"], found["personalised"], ids(found)) == ("words", False, ["a", "b"])
        assert ids(await client.good("/search?q=Iron+gia")) == ["b", "a"]
        assert ids(await client.good("/search?q=gone")) == []  # it is not available
        personal = await client.good("/search?q=iron&user=ann")
        assert personal["personalised"] is True
        assert set(ids(personal)) == {"a", "b"}
        assert [item["score"] for item in personal["items"]] != [item["score"] for item in found["items"]]

    tell(settings, story)


def test_events_are_sent_once_all_of_them_are_good(settings: Settings) -> None:
    event = {"user_id": "ann", "item_id": "c", "type": "click"}

    async def story(client: Client, _: Seeder) -> None:
        placed = (await client.good("/events", method="POST", json=event))["accepted"]
        assert len(placed) == 1 and placed[0]["ts"] > 0
        several = [event, {**event, "user_id": "bob", "ts": 17}, {**event, "context": {"page": "home"}}]
        assert [one["ts"] for one in (await client.good("/events", method="POST", json=several))["accepted"]][1] == 17
        wrongs: list[Any] = [[], [event] * 501, [event, {**event, "type": "stare"}], [{"item_id": "c"}], {}]
        for wrong in wrongs:
            status, problem = await client.ask("/events", method="POST", json=wrong)
            assert (status, problem["title"]) == (422, "Unprocessable Entity"), problem
        for body in (b"", b"{", b'"text"', b"[1]", b"\xff"):
            headers = {"Content-Type": "application/json"}
            assert (await client.ask("/events", method="POST", data=body, headers=headers))[0] == 400
        assert (await client.ask("/events", method="POST", data=b"{}"))[0] == 415
        async with TopicReader(settings) as reader:
            records = [record async for record in reader.read_all(topics.prefixed(settings.prefix, topics.EVENTS))]
        assert len(records) == 4
        assert {record.key for record in records} == {b"ann", b"bob"}

    tell(settings, story)


async def told(events: AsyncIterator[tuple[str, Any]], *names: str) -> dict[str, Any]:
    """What a stream tells until each of these events has come; of each the last."""
    seen: dict[str, Any] = {}
    async for name, data in events:
        seen[name] = data
        if seen.keys() >= set(names):
            return seen
    raise AssertionError(f"the stream ended after {list(seen)}")


async def news_of_ann(client: Client, seeder: Seeder) -> None:
    """Ann's stream while her list and slices change, and somebody else's list."""
    async with client.stream("/users/ann/stream") as events:
        begin = await told(events, "ping", "list", "slice")
        assert ids(begin["list"]) == ["b", "c", "a"]
        assert begin["slice"]["slice"]["seq"] == 1
        news = [
            (topics.RECOMMENDATIONS, "bob", list_value("bob", ["a"], offset=2)),
            (topics.SLICES, "ann", slice_value("ann", 2, ["c"])),
            (topics.RECOMMENDATIONS, "ann", list_value("ann", ["c"], offset=3)),
        ]
        await seeder.send([seeder.place(*one) for one in news])
        later = await told(events, "list", "slice")
        assert [event["item_id"] for event in later["slice"]["events"]] == ["c"]
        assert (later["list"]["user_id"], ids(later["list"])) == ("ann", ["c"])


async def ann_again(client: Client, _: Seeder) -> None:
    """Ann's stream after the server was started anew."""
    async with client.stream("/users/ann/stream", headers={"Last-Event-ID": "id-0"}) as events:
        begin = await told(events, "list", "slice")
        assert ids(begin["list"]) == ["c"]
        assert begin["slice"]["slice"]["seq"] == 2


def test_a_users_stream_tells_lists_and_slices_and_can_be_taken_up_again(settings: Settings) -> None:
    async def both() -> None:
        seeder = Seeder(settings)
        await seeder.all()
        for story in (news_of_ann, ann_again):
            async with running(settings) as client:
                await story(client, seeder)

    asyncio.run(both())


def answer_to(source: dict[str, Any], items: list[str]) -> bytes:
    """Ann's list that answers an event, given as it was placed; the seeded ones answer events of partition 0."""
    made = list_value("ann", items, offset=source["offset"])
    return made.replace(b'"partition":0', b'"partition":%d' % source["partition"])


def test_the_live_stream_tells_figures_events_lists_and_dead_letters(settings: Settings) -> None:
    event = {"user_id": "ann", "item_id": "a", "type": "click"}

    async def story(client: Client, seeder: Seeder) -> None:
        async with client.stream("/live") as events:
            await told(events, "ping", "figures")
            [source] = (await client.good("/events", method="POST", json=event))["accepted"]
            seen = await told(events, "event")
            letter = topics.prefixed(settings.prefix, topics.DEAD_LETTER)
            answer = seeder.place(topics.RECOMMENDATIONS, "ann", answer_to(source, ["b"]))
            await seeder.send([answer, (letter, 0, b"k", b"{bad")])
            seen |= await told(events, "list", "dead-letter")
            figures = (await told(events, "figures"))["figures"]
        assert (seen["event"]["user_id"], seen["event"]["title"]) == ("ann", "Iron Man (2008)")
        assert seen["list"]["items"] == [{"item_id": "b", "title": "The Iron Giant (1999)"}]
        assert 0 <= seen["list"]["freshness_ms"] < 60_000
        assert figures["freshness_ms"]["p50"] == pytest.approx(seen["list"]["freshness_ms"], abs=0.1)
        assert seen["dead-letter"]["excerpt"] == "{bad"
        assert (figures["users"], figures["items"], figures["dead_letters"]) == (3, 5, 1)
        assert figures["dropped"] == {"duplicate": 2}
        assert figures["newest_event_ts"] == source["ts"]
        assert {role["role"] for role in figures["roles"]} >= {"sequence", "recommend"}
        assert (await client.good("/dead-letters"))["dead_letters"][0] == seen["dead-letter"]

    tell(settings, story)


def test_model_flow_metrics_and_description(settings: Settings) -> None:
    async def story(client: Client, seeder: Seeder) -> None:
        model = await client.good("/model")
        assert (model["release"], model["dim"], model["merge"]) == (seeder.release, 64, "decayed")
        assert len(model["training_curve"]) > 3 and model["event_types"][0] == "rating"
        facts = model_facts(settings)
        assert (model["trained_at"], model["evaluation"]) == (facts.trained_at, facts.evaluation)
        flow = await client.until("/flow", lambda found: bool(found["topics"]))
        ends = {topic["name"]: topic["end_offset"] for topic in flow["topics"]}
        assert (ends["items"], ends["recommendations"], ends["events"]) == (5, 3, 0)
        assert not any(role["ready"] for role in flow["roles"])
        async with client.session.get(client.address + "/metrics") as answer:
            text = await answer.text()
        assert answer.content_type == "text/plain"
        for line in ('sliceflow_topic_end_records{topic="items"} 5.0', "sliceflow_serve_users 3.0"):
            assert line in text
        assert 'sliceflow_http_requests_total{route="GET /model",status="200"} 1.0' in text
        assert "/recommendations/{user_id}" in (await client.good("/openapi.json"))["paths"]

    tell(settings, story)


def test_records_that_retention_took_are_no_lag(settings: Settings) -> None:
    async def story(client: Client, seeder: Seeder) -> None:
        def lag(flow: dict[str, Any]) -> int:
            [role] = [role for role in flow["roles"] if role["role"] == "encode"]
            return int(role["lag_records"])

        # Of three users, two slices each; nobody has read any.
        await client.until("/flow", lambda flow: lag(flow) == 6)
        name = topics.prefixed(settings.prefix, topics.SLICES)
        async with admin_client(settings) as admin:
            taken = {TopicPartition(name, number): RecordsToDelete(before_offset=1) for number in range(2)}
            await admin.delete_records(taken)
        await client.until("/flow", lambda flow: lag(flow) == 4)

    tell(settings, story)


def test_a_session_gets_a_list_of_its_own(settings: Settings) -> None:
    async def story(client: Client, _: Seeder) -> None:
        made = await client.good("/sessions/recommendations", method="POST", json={"items": ["a"], "count": 5})
        assert made["user_id"] is None and made["has_vector"] is True
        assert "a" not in ids(made) and set(ids(made)) <= {"b", "c"}
        event = {"item_id": "b", "type": "purchase", "ts": 5}
        other = await client.good("/sessions/recommendations", method="POST", json={"events": [event]})
        assert "b" not in ids(other)
        for wrong in ({}, {"items": ["a"], "events": [event]}, {"items": ["a"], "count": 0}, {"items": [""]}):
            assert (await client.ask("/sessions/recommendations", method="POST", json=wrong))[0] == 422
        users = await client.good("/users")
        assert {user["user_id"] for user in users["users"]} == set(USERS)

    tell(settings, story)


def test_bad_records_on_the_topics_do_not_stop_the_server(settings: Settings) -> None:
    async def story(client: Client, seeder: Seeder) -> None:
        bad = [
            seeder.place(topic, "ann", b"\xff{")
            for topic in (topics.RECOMMENDATIONS, topics.SLICES, topics.SLICE_VECTORS, topics.ITEMS, topics.EVENTS)
        ]
        await seeder.send(bad)
        await seeder.send([seeder.place(topics.RECOMMENDATIONS, "ann", list_value("ann", ["c"], offset=9))])
        found = await client.until("/recommendations/ann", lambda found: ids(found) == ["c"])
        assert found["recommendation_id"] == "id-9"

    tell(settings, story)
