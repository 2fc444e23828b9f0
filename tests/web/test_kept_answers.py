"""An answer that is kept says what the application would say, and is given out under the same conditions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from stream_app.records import Item, encode
from stream_app.web.problems import PROBLEM_JSON
from stream_app.web.security import HEADERS, Guard
from stream_app.web.server import started_runner
from stream_app.web.service import Service
from stream_app.web.state.lists import NewestLists
from tests.web.cases import list_value, run_of, web_settings

PATH = "/recommendations/ann?count=2"
HOST = "Host: 127.0.0.1"
TOKEN = "a-token-of-24-characters"


@dataclass(frozen=True)
class Answer:
    """One answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def said(self) -> tuple[int, dict[str, str], Any]:
        """All of it but what the clock decides."""
        headers = {name: value for name, value in self.headers.items() if name not in ("Date", "Content-Length")}
        body = {**self.body, "age_ms": 0} if "age_ms" in self.body else self.body
        return self.status, headers, body


class Line:
    """A connection on which requests are sent as they are written."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(
        self, path: str = PATH, *, method: str = "GET", version: str = "1.1", head: Sequence[str] = (HOST,)
    ) -> None:
        """Send a request."""
        self._writer.write("\r\n".join([f"{method} {path} HTTP/{version}", *head, "", ""]).encode())

    async def answer(self) -> Answer:
        """The next answer."""
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        body = await self._reader.readexactly(int(headers["Content-Length"]))
        told = msgspec.json.decode(body) if "json" in headers["Content-Type"] else {}
        return Answer(int(lines[0].split()[1]), headers, told)

    async def ask(self, path: str = PATH, **given: Any) -> Answer:
        """What is answered to a request."""
        self.send(path, **given)
        return await self.answer()

    async def is_ended(self) -> bool:
        """Whether the other side has closed it; waits for that or for a byte."""
        return await self._reader.read(1) == b""

    async def close(self) -> None:
        """Disconnect."""
        self._writer.close()
        await self._writer.wait_closed()


class CountingLists(NewestLists):
    """Counts who looks for a list: only the long way does."""

    num_looks = 0

    def get(self, user_id: str) -> bytes | None:
        """The list."""
        self.num_looks += 1
        return super().get(user_id)


@dataclass
class Asked:
    """A server without Kafka that holds a list of Ann's."""

    service: Service
    lists: CountingLists
    port: int
    lines: list[Line] = field(default_factory=list)

    async def line(self) -> Line:
        """A new connection."""
        self.lines.append(Line(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.lines[-1]


@asynccontextmanager
async def asked(folder: Path, guard: Guard) -> AsyncIterator[Asked]:
    """The server, running."""
    service, lists = Service(web_settings("127.0.0.1:1", "kept-", folder)), CountingLists(10)
    lists.put("ann", list_value("ann", ["b", "c", "a"]))
    service.held.lists = lists
    runner = await started_runner(service, guard)
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made = Asked(service, lists, runner.addresses[0][1])
        try:
            yield made
        finally:
            for line in made.lines:
                await line.close()
    finally:
        await runner.cleanup()


def tell(folder: Path, story: Callable[[Asked], Awaitable[None]], guard: Guard | None = None) -> None:
    """Run a story on a server."""

    async def told() -> None:
        async with asked(folder, guard or Guard("127.0.0.1", "", 1000.0)) as made, asyncio.timeout(60):
            await story(made)

    asyncio.run(told())


def test_it_says_what_was_said_the_first_time(tmp_path: Path) -> None:
    async def story(made: Asked) -> None:
        line = await made.line()
        first = await line.ask()
        assert made.lists.num_looks == 1
        for _ in range(3):
            again = await line.ask()
            assert again.said == first.said
            assert again.headers["Date"].endswith(" GMT")
        assert made.lists.num_looks == 1
        assert [item["item_id"] for item in first.body["items"]] == ["b", "c"]
        assert HEADERS.items() <= first.headers.items()
        text = made.service.metrics.text().decode()
        assert 'requests_total{route="GET /recommendations/{user_id}",status="200"} 4.0' in text

    tell(tmp_path, story)


def test_it_gives_way_to_a_new_list_and_to_a_changed_catalogue(tmp_path: Path) -> None:
    async def story(made: Asked) -> None:
        line, held = await made.line(), made.service.held
        await line.ask()
        held.lists.put("ann", list_value("ann", ["c"], offset=1))
        assert [item["item_id"] for item in (await line.ask()).body["items"]] == ["c"]
        run = run_of((b"c", encode(Item(item_id="c", title="New"))))
        held.catalogue.take(run)
        assert [item["title"] for item in (await line.ask()).body["items"]] == ["New"]
        assert made.lists.num_looks == 3

    tell(tmp_path, story)


def test_requests_sent_without_waiting_are_answered_in_order(tmp_path: Path) -> None:
    async def story(made: Asked) -> None:
        line = await made.line()
        await line.ask()
        for path in (PATH, "/healthz", PATH, "/recommendations/ann?count=1", PATH):
            line.send(path)
        answers = [await line.answer() for _ in range(5)]
        assert [len(one.body.get("items", "")) for one in answers] == [2, 0, 2, 1, 2]

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("version", "head", "is_kept_open"),
    [
        ("1.0", [HOST], False),
        ("1.0", [HOST, "Connection: keep-alive"], True),
        ("1.1", [HOST, "Connection: close"], False),
        ("1.1", [HOST, "Expect: 200-ok"], True),
    ],
)
def test_what_needs_another_head_goes_the_long_way(
    tmp_path: Path, version: str, head: list[str], is_kept_open: bool
) -> None:
    async def story(made: Asked) -> None:
        await (await made.line()).ask()
        line = await made.line()
        answer = await line.ask(version=version, head=head)
        assert answer.status == (417 if "Expect: 200-ok" in head else 200)
        if is_kept_open:
            assert (await line.ask()).status == 200
        else:
            assert await line.is_ended()

    tell(tmp_path, story)


def test_another_method_is_refused_as_ever(tmp_path: Path) -> None:
    async def story(made: Asked) -> None:
        line = await made.line()
        await line.ask()
        answer = await line.ask(method="POST")
        assert (answer.status, answer.headers["Content-Type"]) == (405, PROBLEM_JSON)

    tell(tmp_path, story)


def test_the_guard_is_asked_once_for_each(tmp_path: Path) -> None:
    async def story(made: Asked) -> None:
        line = await made.line()
        answers = [await line.ask() for _ in range(9)]
        assert [one.status for one in answers] == [200] * 8 + [429]
        refused = answers[-1]
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.headers["Content-Type"] == PROBLEM_JSON
        assert HEADERS.items() <= refused.headers.items()
        assert 'status="429"} 1.0' in made.service.metrics.text().decode()

    # So few that none comes back within the test.
    tell(tmp_path, story, Guard("127.0.0.1", "", 4.0, clock_s=lambda: 0.0))


def test_nobody_gets_it_without_the_token_or_by_another_hosts_name(tmp_path: Path) -> None:
    async def story(made: Asked) -> None:
        line = await made.line()
        good = [HOST, f"Authorization: Bearer {TOKEN}"]
        assert (await line.ask(head=good)).status == 200
        assert (await line.ask(head=good)).status == 200
        assert (await line.ask()).status == 401
        assert (await line.ask(head=["Host: evil.example.org", good[1]])).status == 421
        assert made.lists.num_looks == 1

    tell(tmp_path, story, Guard("127.0.0.1", TOKEN, 1000.0))
