"""A small namespace as the roles would have left it, and a server of it in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np

from stream_app import tables, topics
from stream_app.faustkit import Run
from stream_app.faustkit.store import seal
from stream_app.kafka import partition_of
from stream_app.models import served_model
from stream_app.preflight import ensure_topics
from stream_app.records import (
    Item,
    ItemVectorRecord,
    RankedItem,
    Recommendation,
    SliceEvent,
    SliceRecord,
    SliceVectorRecord,
    StatusRecord,
    TrendEpochRecord,
    TrendRecord,
    encode,
    pack_vector,
)
from stream_app.settings import Settings, load_settings
from stream_app.stages.slicing import HistoryEvent, Slice, UserHistory
from stream_app.web.server import serve
from tests.support import DEADLINE_S, publish

EXAMPLE = Path(__file__).parents[2] / "examples" / "movietweetings"
NOW_MS = 1_700_000_000_000

Record = tuple[str, int, bytes | None, bytes | None]
"""Topic, partition, key and value."""


def web_settings(servers: str, prefix: str, folder: Path, **changed: Any) -> Settings:
    """Settings of the example, on a namespace of one's own, served at any free port."""
    overrides: dict[str, Any] = {
        "kafka": {"bootstrap_servers": servers},
        "prefix": prefix,
        "partitions": 2,
        "model": str(EXAMPLE / "model"),
        "state_dir": str(folder),
        "serve_port": 0,
    }
    return load_settings(EXAMPLE / "sliceflow.toml", environ={}, overrides={**overrides, **changed})


def run_of(*records: tuple[bytes | None, bytes | None], headers: Sequence[Any] = (), partition: int = 0) -> Run:
    """Records of one partition."""
    num = len(records)
    keys, values = [key for key, _ in records], [value for _, value in records]
    return Run("topic", partition, range(num), keys, values, [NOW_MS] * num, [headers] * num)


def slice_value(user_id: str, seq: int, items: Sequence[str], *, revision: int = 1, closed: bool = False) -> bytes:
    """A slice of clicks a minute apart; slices are an hour apart."""
    events = [
        SliceEvent(item_id, "click", NOW_MS + seq * 3_600_000 + place * 60_000, 60_000)
        for place, item_id in enumerate(items)
    ]
    record = SliceRecord(
        user_id=user_id,
        seq=seq,
        revision=revision,
        closed=closed,
        fresh=True,
        events=events,
        partition=0,
        offset=10 * seq + revision,
    )
    return encode(record)


def vector_value(user_id: str, seq: int, items: Sequence[str], release: str, *, dim: int = 64) -> bytes:
    """What an encoder might make of a slice."""
    generator = np.random.default_rng(seq)
    vectors = [pack_vector(generator.normal(size=dim).astype(np.float32)) for _ in range(2)]
    record = SliceVectorRecord(
        user_id=user_id,
        seq=seq,
        revision=1,
        closed=False,
        fresh=True,
        items=list(items),
        last_ts=NOW_MS + seq * 3_600_000 + (len(items) - 1) * 60_000,
        partition=0,
        offset=10 * seq + 1,
        release=release,
        slice_vector=vectors[0],
        user_vector=vectors[1],
        num_slices_merged=seq,
    )
    return encode(record)


def list_value(user_id: str, items: Sequence[str], *, offset: int = 0, name: str = "id") -> bytes:
    """A list."""
    record = Recommendation(
        recommendation_id=f"{name}-{offset}",
        user_id=user_id,
        event_ts=NOW_MS,
        partition=0,
        offset=offset,
        release="r1",
        index_version="r1/3",
        epoch=3,
        has_vector=True,
        items=[RankedItem(item_id=item, score=1.0 - at / 10, sources=["index"]) for at, item in enumerate(items)],
    )
    return encode(record)


ITEMS = (
    Item(item_id="a", title="Iron Man (2008)", category="hero", price=5.0, tags=["film"]),
    Item(item_id="b", title="The Iron Giant (1999)", category="robot", price=9.0),
    Item(item_id="c", title="<img src=x onerror=alert(1)>", category="hero"),
    Item(item_id="gone", title="Gone (2012)", available=False),
    Item(item_id="cold", title="Nobody saw it"),
)
USERS = ("ann", "bob", 'Ärger "&<>/?#')


class Seeder:
    """Writes a namespace's topics as the roles would have.

    Args:
        settings: Of the namespace.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.release = served_model(settings).release

    async def all(self) -> None:
        """Everything."""
        await asyncio.to_thread(ensure_topics, self._settings, create=True)
        await self.send([*self._items(), *self._trends(), *self._users(), *self._totals()])

    async def send(self, records: Sequence[Record]) -> None:
        """Publish records."""
        await publish(self._settings.kafka.bootstrap_servers, records)

    def place(self, topic: str, name: str, value: bytes) -> Record:
        """A record under the key of a user or item."""
        key = tables.key_of(name)
        partition = partition_of(key, self._settings.partitions)
        return topics.prefixed(self._settings.prefix, topic), partition, key, value

    def history(self, user_id: str, items: Sequence[str]) -> Record:
        """The history of a user as the sequence role keeps it, one slice for each item."""
        slices = [
            Slice(seq, 1, True, -1, [HistoryEvent(seq, NOW_MS + seq * 3_600_000, item_id, "click")])
            for seq, item_id in enumerate(items)
        ]
        value = seal(1, tables.encode_value(UserHistory(len(items), len(items), {}, slices)))
        name = topics.changelog_name("", tables.USER_HISTORIES)
        return self.place(name, user_id, value)

    def _items(self) -> list[Record]:
        generator = np.random.default_rng(0)
        records = [self.place(topics.ITEMS, item.item_id, encode(item)) for item in ITEMS]
        for item_id in ("a", "b", "c"):
            vector = pack_vector(generator.normal(size=64).astype(np.float32))
            made = ItemVectorRecord(item_id=item_id, release=self.release, vector=vector)
            records.append(self.place(topics.ITEM_VECTORS, item_id, encode(made)))
        return records

    def _trends(self) -> list[Record]:
        num = len(self._settings.half_lives_s)
        records = [
            self.place(
                topics.ITEM_TRENDS,
                item_id,
                encode(
                    TrendRecord(
                        item_id=item_id, epoch=2, first_epoch=first, counts=[count] * num, predecessors=predecessors
                    )
                ),
            )
            for item_id, first, count, predecessors in (("a", 1, 4.0, []), ("b", 2, 2.0, [("a", 1.0, 2.0)]))
        ]
        name = topics.prefixed(self._settings.prefix, topics.ITEM_TRENDS)
        marker = encode(TrendEpochRecord(epoch=3))
        return records + [(name, number, b"", marker) for number in range(self._settings.partitions)]

    def _users(self) -> list[Record]:
        records = []
        for user_id in USERS:
            for seq, items in enumerate((["a"], ["b", "a"])):
                records.append(self.place(topics.SLICES, user_id, slice_value(user_id, seq, items, closed=seq == 0)))
                records.append(
                    self.place(topics.SLICE_VECTORS, user_id, vector_value(user_id, seq, items, self.release))
                )
            records.append(self.place(topics.RECOMMENDATIONS, user_id, list_value(user_id, ["b", "c", "a"])))
        return records

    def _totals(self) -> list[Record]:
        totals = StatusRecord(
            partition=0,
            offset=9,
            events=9,
            applied=6,
            dead_lettered=1,
            dropped={"duplicate": 2},
            users=3,
            watermark_ms=0,
        )
        return [(topics.prefixed(self._settings.prefix, topics.STATUS), 0, b"0", encode(totals))]


class Client:
    """Asks a running server.

    Args:
        session: Open.
        address: Of the server.
    """

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.session = session
        self.address = address

    async def ask(self, path: str, *, method: str = "GET", **given: Any) -> tuple[int, Any]:
        """Status and JSON of one answer."""
        async with self.session.request(method, self.address + path, **given) as answer:
            return answer.status, msgspec.json.decode(await answer.read())

    async def good(self, path: str, **given: Any) -> Any:
        """The JSON of an answer, which must be good."""
        status, found = await self.ask(path, **given)
        assert status < 300, found
        return found

    async def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """Ask again and again until the answer is as wanted."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                status, found = await self.ask(path)
                if status < 300 and holds(found):
                    return found
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def stream(self, path: str, **given: Any) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """The events of a stream: name and data."""
        async with self.session.get(self.address + path, **given) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            yield _events(answer)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async with asyncio.timeout(DEADLINE_S):
        async for line in answer.content:
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield name, msgspec.json.decode(line[6:])


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Client]:
    """A server in this process, with everything read that was there."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(settings, stop, ready.set_result, any_port=False))
    try:
        await asyncio.wait([server, ready], return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE_S)
        if server.done():
            server.result()
        async with aiohttp.ClientSession() as session:
            client = Client(session, ready.result().rstrip("/"))
            await client.until("/readyz", lambda found: found["status"] == "ready")
            yield client
    finally:
        stop.set()
        await asyncio.wait_for(server, DEADLINE_S)
