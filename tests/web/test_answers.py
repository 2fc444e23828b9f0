"""From what is held to what is answered, without Kafka: reasons, events to be sent, streams, files, the description."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import msgspec
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import Event
from stream_app.settings import KafkaSettings, Settings
from stream_app.settings_rules import slicing_rule
from stream_app.stages.slicing import UserHistory, apply_event
from stream_app.web import page_files, streams
from stream_app.web.calls import Call
from stream_app.web.openapi import description
from stream_app.web.problems import MAX_DETAIL_CHARS, Problem
from stream_app.web.routes import ROUTES
from stream_app.web.security import HEADERS
from stream_app.web.sending import Sender
from stream_app.web.server import address_of
from stream_app.web.sessions import session_slices
from stream_app.web.streams import MAX_WAITING, Streams, event_bytes
from stream_app.web.why import MIN_WEIGHT, NUM_ITEMS, Recent, explain
from tests.examples import examples

# ---------------------------------------------------------------- why


def test_own_items_that_lead_to_a_listed_one() -> None:
    recent = Recent(["x", "y", "z"], ["X", "Y", "Z"], [4, 4, 9])
    vectors_LD = np.array([[1.0, 0.0]], dtype=np.float32)
    vectors_RD = np.array([[3.0, 4.0], [0.0, 1.0], [-1.0, 0.0]], dtype=np.float32)
    [why] = explain(["l"], recent, vectors_LD, vectors_RD, {"l": {"z": 0.4}})
    # Cosine 3/5 of x, none of y; z points the other way, but what came after it is l in two of five cases.
    assert [(item.item_id, item.title, item.weight) for item in why.items] == [("x", "X", 0.6), ("z", "Z", 0.4)]
    assert [(part.seq, part.weight) for part in why.slices] == [(4, 0.6), (9, 0.4)]


def test_without_own_items_there_is_no_reason() -> None:
    nothing = np.zeros((0, 2), dtype=np.float32)
    [why] = explain(["l"], Recent([], [], []), np.ones((1, 2), dtype=np.float32), nothing, {})
    assert (why.items, why.slices) == ([], [])


@examples(30)
@given(st.integers(0, 6), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_reasons_are_few_in_order_and_above_the_floor(num_recent: int, num_listed: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    names = [f"r{place}" for place in range(num_recent)]
    recent = Recent(names, names, generator.integers(0, 3, num_recent).tolist())
    vectors = [generator.normal(size=(num, 3)).astype(np.float32) for num in (num_listed, num_recent)]
    reasons = explain([f"l{place}" for place in range(num_listed)], recent, vectors[0], vectors[1], {})
    assert len(reasons) == num_listed
    for why in reasons:
        weights = [item.weight for item in why.items]
        assert len(weights) <= NUM_ITEMS and weights == sorted(weights, reverse=True)
        assert all(weight >= MIN_WEIGHT - 1e-4 for weight in weights)
        assert not why.slices or sum(part.weight for part in why.slices) == pytest.approx(1.0, abs=1e-3)


# ---------------------------------------------------------------- events to be sent

MAPPED = Settings(kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"), fields={"user_id": "visitor"})


def test_events_are_judged_with_the_producers_names_and_get_a_time() -> None:
    sender = Sender(MAPPED)
    given = {"visitor": "ann", "item_id": "a", "type": "click"}
    [timed] = sender.checked([{**given, "ts": 5}])
    assert timed.event == Event(user_id="ann", item_id="a", type="click", ts=5)
    assert msgspec.json.decode(timed.value) == {**given, "ts": 5}
    [now] = sender.checked([given])
    assert now.event.ts > 1_700_000_000_000


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"user_id": "ann", "item_id": "a", "type": "click"},
        {"visitor": 7, "item_id": "a", "type": "click"},
        {"visitor": "ann", "item_id": "", "type": "click"},
        {"visitor": "ann", "item_id": "a", "type": "click", "ts": 10**15},
        {"visitor": "ann", "item_id": "a", "type": "click", "price": 1e300},
        {"visitor": "ann", "item_id": "a", "type": "click", "context": {"deep": [[[[[[[[[]]]]]]]]]}},
    ],
)
def test_of_several_events_the_bad_one_is_named_and_none_is_sent(wrong: dict[str, Any]) -> None:
    good = {"visitor": "ann", "item_id": "a", "type": "click"}
    with pytest.raises(Problem, match="Event 1 would be refused") as caught:
        Sender(MAPPED).checked([good, wrong, good])
    assert caught.value.status == 422


# ---------------------------------------------------------------- sessions


@examples(25)
@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=40))
def test_a_session_is_cut_as_the_stream_cuts_it(times_ms: list[int]) -> None:
    given = Settings()
    events = [Event(user_id="s", item_id=f"i{at}", type="click", ts=ts) for at, ts in enumerate(times_ms)]
    records = session_slices(events, given)
    history = UserHistory()
    for offset, event in enumerate(sorted(events, key=lambda event: event.ts)):
        apply_event(history, event, offset, slicing_rule(given))
    # The stream forgets whole slices at the beginning, and nothing else.
    kept = history.slices
    cut = [[event.item_id for event in record.events] for record in records]
    assert cut[len(cut) - len(kept) :] == [[event.item_id for event in part.events] for part in kept]
    assert sorted(item for part in cut for item in part) == sorted(event.item_id for event in events)
    assert [record.fresh for record in records] == [False] * (len(records) - 1) + [True]
    told = [event.item_id for record in records for event in record.events]
    for record in records:
        start = told.index(record.events[0].item_id)
        assert [event.item_id for event in record.before] == told[max(0, start - given.slice_events) : start]


# ---------------------------------------------------------------- streams


async def listen(served: Streams, first: list[bytes]) -> TestServer:
    """A server whose every path is a stream of the topic `t`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await served.serve(request, "t", first)

    app = web.Application()
    app.router.add_get("/", handle)
    server = TestServer(app)
    await server.start_server()
    return server


def test_listeners_get_what_stands_and_what_comes_until_the_end() -> None:
    async def story() -> None:
        served = Streams()
        server = await listen(served, [event_bytes("list", b"{}", "7")])
        async with aiohttp.ClientSession() as session, session.get(server.make_url("/")) as answer:
            while not served.has("t"):
                await asyncio.sleep(0)
            assert len(served) == 1
            served.tell("other", event_bytes("slice", b"{}"))
            served.tell("t", event_bytes("slice", b'{"seq":1}'))
            parts = [(await answer.content.readuntil(b"\n\n")).decode() for _ in range(3)]
            assert parts == [
                "retry: 1000\nevent: ping\ndata: {}\n\n",
                "id: 7\nevent: list\ndata: {}\n\n",
                'event: slice\ndata: {"seq":1}\n\n',
            ]
            served.close()
            assert await answer.read() == b""
        assert len(served) == 0 and not served.has("t")
        await server.close()

    asyncio.run(story())


def test_who_does_not_read_is_cut_off_and_the_others_go_on() -> None:
    async def story() -> None:
        served = Streams()
        server = await listen(served, [])
        _reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        async with aiohttp.ClientSession() as session, session.get(server.make_url("/")) as answer:
            while len(served) < 2:
                await asyncio.sleep(0)
            event = event_bytes("list", b'"' + b"x" * 100_000 + b'"')
            async with asyncio.timeout(30):
                # Whoever reads gets each before the next is told, so that only the other falls behind.
                await answer.content.readuntil(b"data: {}\n\n")
                while len(served) == 2:
                    served.tell("t", event)
                    await answer.content.readexactly(len(event))
            served.tell("t", b"event: last\ndata: {}\n\n")
            assert await answer.content.readline() == b"event: last\n"
        writer.close()
        await server.close()

    asyncio.run(story())


def test_streams_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_LISTENERS", 0)

    async def story() -> None:
        with pytest.raises(Problem) as caught:
            await Streams().serve(make_mocked_request("GET", "/"), "t", [])
        assert caught.value.status == 429

    asyncio.run(story())


def test_silence_is_broken_by_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PING_S", 0.01)

    async def story() -> None:
        listener = streams.Listener(lambda: None)
        assert await listener.next_event() == streams.PING
        listener.tell(b"one")
        assert await listener.next_event() == b"one"

    asyncio.run(story())


def test_a_full_queue_cuts_the_connection_once() -> None:
    async def story() -> None:
        cut: list[bool] = []
        listener = streams.Listener(lambda: cut.append(True))
        for _ in range(MAX_WAITING):
            listener.tell(b"event")
        assert not cut
        listener.tell(b"one too many")
        assert cut == [True]
        assert await listener.next_event() is None

    asyncio.run(story())


# ---------------------------------------------------------------- the page's files


def page_answer(path: str, **headers: str) -> web.Response:
    """What the page's handler gives for a file."""
    request = make_mocked_request("GET", "/page/x", headers=headers, match_info={"file": path})
    return asyncio.run(page_files.file(Call(request, cast(Any, SimpleNamespace()))))


def test_files_of_the_page_have_a_tag_and_a_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_files, "FOLDER", tmp_path)
    for name, kind in (("a.css", "text/css"), ("a.js", "text/javascript"), ("a.svg", "image/svg+xml")):
        (tmp_path / name).write_text("content")
        answer = page_answer(name)
        assert (answer.body, answer.content_type) == (b"content", kind)
        assert page_answer(name, **{"If-None-Match": answer.headers["ETag"]}).status == 304
        assert page_answer(name, **{"If-None-Match": '"other"'}).status == 200


@pytest.mark.parametrize(
    "name", ["../server.py", "..", "", ".hidden.js", "none.js", "sub/a.js", "a.py", "\0.js", "/etc/passwd"]
)
def test_nothing_else_is_served(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page" / "sub").mkdir(parents=True)
    for place in ("a.py", ".hidden.js", "sub/a.js", "../server.py"):
        (tmp_path / "page" / place).write_text("content")
    monkeypatch.setattr(page_files, "FOLDER", tmp_path / "page")
    with pytest.raises(Problem) as caught:
        page_answer(name)
    assert caught.value.status == 404


def test_the_policy_lets_nothing_from_elsewhere_in() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "http" not in policy


# ---------------------------------------------------------------- problems and the description


def test_problems_are_json_of_bounded_length() -> None:
    answer = Problem(404, "x" * 2000, mend="do this", headers={"Retry-After": "3"}).response()
    assert (answer.status, answer.content_type, answer.headers["Retry-After"]) == (404, "application/problem+json", "3")
    assert isinstance(answer.body, bytes)
    details = msgspec.json.decode(answer.body)
    assert details == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "x" * MAX_DETAIL_CHARS,
        "mend": "do this",
    }


def test_every_route_is_described_and_every_reference_leads_somewhere() -> None:
    text = msgspec.json.encode(document := description(ROUTES)).decode()
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        assert operation["summary"].endswith(".")
        named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", route.path))
        assert ("requestBody" in operation) == (route.body is not None)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert referred and referred <= set(document["components"]["schemas"])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("0.0.0.0", "http://127.0.0.1:80/"),
        ("::", "http://[::1]:80/"),
        ("fe80::1", "http://[fe80::1]:80/"),
        ("shop.example.org", "http://shop.example.org:80/"),
    ],
)
def test_addresses_are_for_browsers(host: str, expected: str) -> None:
    assert address_of(host, 80) == expected
