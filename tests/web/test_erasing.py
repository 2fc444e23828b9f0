"""Erasing over HTTP: the wish goes to Kafka, and what the roles make of it is followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.run import Run
from stream_app.records import ErasedRecord, Erasure, encode
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader
from stream_app.web.state.users import NewestUsers
from tests.web.cases import Client, Seeder, running, slice_value, vector_value, web_settings

ERASED = encode(ErasedRecord(user_id="ann", partition=0, offset=50))


async def next_of(events: AsyncIterator[tuple[str, Any]], name: str) -> Any:
    """The next event of a name."""
    async for found, data in events:
        if found == name:
            return data
    raise AssertionError(f"the stream ended before any {name}")


@pytest.mark.kafka
@pytest.mark.slow
def test_a_user_is_erased_once_kafka_and_the_roles_say_so(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = web_settings(broker.bootstrap_servers, topic_prefix, tmp_path)

    async def told() -> None:
        seeder = Seeder(settings)
        await seeder.all()
        async with running(settings) as client:
            await ask(client)
            async with client.stream("/users/ann/stream") as events:
                await next_of(events, "list")
                await publish_erasure(settings, seeder)
                assert await next_of(events, "erased") == {"user_id": "ann"}
            await see_nothing(client)

    asyncio.run(told())


async def ask(client: Client) -> None:
    """The wish is acknowledged, or refused by the same guard as events."""
    other = {"Origin": "http://elsewhere.example"}
    assert (await client.ask("/users/ann", method="DELETE", headers=other))[0] == 403
    assert (await client.ask(f"/users/{'a' * 257}", method="DELETE"))[0] == 400
    status, placed = await client.ask("/users/ann", method="DELETE")
    assert status == 202 and placed.keys() == {"partition", "offset", "ts"}
    assert "fallback" not in await client.good("/recommendations/ann")


async def publish_erasure(settings: Settings, seeder: Seeder) -> None:
    """See what was sent, and publish what the roles make of it."""
    async with TopicReader(settings) as reader:
        [sent] = [record async for record in reader.read_all(topics.prefixed(settings.prefix, topics.EVENTS))]
    assert sent.key == b"ann"
    erasure = msgspec.json.decode(sent.value or b"", type=Erasure)
    assert (erasure.user_id, erasure.ts) == ("ann", sent.timestamp_ms)
    topic, partition, key, _ = seeder.place(topics.RECOMMENDATIONS, "ann", b"")
    marks = [seeder.place(name, "ann", ERASED) for name in (topics.SLICES, topics.SLICE_VECTORS)]
    await seeder.send([*marks, (topic, partition, key, None)])


async def see_nothing(client: Client) -> None:
    """Nothing is known of the user, and everything of the others."""
    found = await client.until("/recommendations/ann", lambda found: "fallback" in found)
    assert found["recommendation_id"] == ""
    assert (await client.ask("/users/ann"))[0] == 404
    assert "ann" not in {user["user_id"] for user in (await client.good("/users"))["users"]}
    assert "fallback" not in await client.good("/recommendations/bob")


def run_of(*values: bytes) -> Run:
    """Records of Ann."""
    num = len(values)
    return Run("topic", 0, range(num), [b"ann"] * num, values, [0] * num, [()] * num)


def test_each_topic_tells_of_an_erasure_in_its_own_time() -> None:
    users = NewestUsers(5)
    users.take_slices(run_of(slice_value("ann", 0, ["a"]), slice_value("ann", 1, ["b"])))
    users.take_vectors(run_of(vector_value("ann", 0, ["a"], "r1")))
    # The vectors lag: what they hold of before goes with their own record, and the new slice stays.
    users.take_slices(run_of(ERASED, slice_value("ann", 0, ["c"])))
    users.take_vectors(run_of(vector_value("ann", 1, ["b"], "r1"), ERASED))
    ann = users.get("ann")
    assert ann is not None
    assert [[event.item_id for event in part.events] for part in ann.seen_slices()] == [["c"]]
    assert (ann.slice_vectors(), ann.last_ts) == ({}, -1)
    users.take_slices(run_of(ERASED))
    assert users.get("ann") is None
    assert not users.has_forgotten
