"""The server beside the real roles: an event sent over HTTP changes its user's list, and the stream tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from stream_app.demo import EVENTS_FILE, ITEMS_FILE
from tests.end_to_end.conftest import Commands, commands, last_json, small_example
from tests.end_to_end.test_up import read_until
from tests.web.cases import Client

__all__ = ["commands", "small_example"]

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def newest(events: AsyncIterator[tuple[str, Any]], name: str) -> Any:
    """The next event of a name."""
    async for found, data in events:
        if found == name:
            return data
    raise AssertionError(f"the stream ended before any {name}")


def test_a_click_over_http_moves_the_list(commands: Commands, small_example: Path) -> None:
    up = commands.start("up", "--json")
    page = read_until(up, "all-ready")[-1]["page"].rstrip("/")
    replay = commands.run("replay", str(small_example / EVENTS_FILE), "--items", str(small_example / ITEMS_FILE))
    assert last_json(replay.stdout)["balanced"] is True

    async def story() -> None:
        async with aiohttp.ClientSession() as session:
            client = Client(session, page)
            user = (await client.good("/users?count=1"))["users"][0]
            user_id = user["user_id"]
            before = await client.good(f"/recommendations/{user_id}")
            clicked = before["items"][2]["item_id"]
            event = {"user_id": user_id, "item_id": clicked, "type": "click", "ts": user["last_seen_ts"] + 60_000}
            async with client.stream(f"/users/{user_id}/stream") as events:
                assert (await newest(events, "list"))["recommendation_id"] == before["recommendation_id"]
                [placed] = (await client.good("/events", method="POST", json=event))["accepted"]
                told = await newest(events, "list")
            assert told["event_ts"] == placed["ts"] == event["ts"]
            assert told["freshness_ms"] > 0
            assert clicked not in [item["item_id"] for item in told["items"]]
            after = await client.good(f"/recommendations/{user_id}")
            assert after["recommendation_id"] == told["recommendation_id"] != before["recommendation_id"]
            seen = await client.good(f"/users/{user_id}")
            assert (seen["events"][-1]["item_id"], seen["last_seen_ts"]) == (clicked, event["ts"])
            flow = await client.until("/flow", lambda found: all(role["ready"] for role in found["roles"]))
            assert {role["role"] for role in flow["roles"]} >= {"sequence", "trend", "encode", "recommend"}

    asyncio.run(story())
    assert commands.stop(up) == 0
    commands.wait_all_gone()
