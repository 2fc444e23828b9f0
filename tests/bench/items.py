"""How long it takes until a search finds an item: from the append of its vector, and of its record in the catalogue.

The index is filled as the roles fill theirs, by an `ItemView` that follows the topics; the encode role is a process of
its own, with a model that reads titles and tags. Upserts come at a steady rate. Of those whose own vector finds them
among the best `K`, some are asked for again and again, from before they are sent until they are there.

Kafka itself stamps records as it appends them, in whole milliseconds of this machine's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer

from encoders.training_config import TrainConfig
from index import ItemIndex, build_index
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.demo import CONFIG_FILE, EVENTS_FILE, ITEMS_FILE, MODEL_FOLDER, demo_settings
from stream_app.event_log import read_events
from stream_app.inspection.catalogue import file_records
from stream_app.item_contents import item_content, item_contents
from stream_app.item_reading import catalogue_vectors, item_reader
from stream_app.item_view import ItemView
from stream_app.kafka import connection, partition_of
from stream_app.models import load_encoder
from stream_app.records import Item, ItemVectorRecord, encode, pack_vector
from stream_app.role_process import Worker
from stream_app.settings import Settings, load_settings
from stream_app.supervisor import Supervisor
from stream_app.topics import ITEM_VECTORS, ITEMS, prefixed
from stream_app.training import TrainingItems, train
from tests.bench.common import EXAMPLE, BenchResult, Figure, finish, table
from tests.bench.latency import APPEND_TIME, SHARES
from tests.bench.pacing import Pace
from tests.bench.stack import READY_WITHIN_S, RunningRoles, fresh_broker

P99_TARGET_MS: Final = 200.0
K: Final = 100
"""Items that a search asks for, about as many as a list has candidates from the index."""
PROBED_ONE_IN: Final = 5
NUM_WORDS: Final = 6
"""Of a title."""
TRAINED_EVENTS: Final = 2000
FOUND_WITHIN_S: Final = 60.0
LONGER: Final = np.float32(10)
"""Vectors that are sent without the encode role are so many times as long as those of items."""

Vectors = Mapping[str, npt.NDArray[np.float32]]
"""(D,) float32 by item id."""


@dataclass(frozen=True)
class Upsert:
    """A record on its way: its item, and the bytes."""

    item_id: str
    value: bytes


@dataclass(frozen=True)
class Shown:
    """What one run of upserts came to: milliseconds from append to search, and what was asked for in vain."""

    waits_ms: Sequence[float]
    num_missed: int
    sender_late_ms: float


class Watcher:
    """Asks an index for items until they are there, in a thread of its own, as the roles ask theirs.

    Args:
        index: Filled meanwhile by somebody else.
    """

    def __init__(self, index: ItemIndex) -> None:
        self.found_ms: dict[str, float] = {}
        self._index = index
        self._waiting: dict[str, npt.NDArray[np.float32]] = {}
        self._is_over = threading.Event()

    def expect(self, item_id: str, vector_D: npt.NDArray[np.float32]) -> None:
        """Ask for an item from now on."""
        self._waiting[item_id] = vector_D

    @property
    def num_waiting(self) -> int:
        """Items that are not there yet."""
        return len(self._waiting)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask within the block."""
        thread = threading.Thread(target=self._ask, name="watcher")
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _ask(self) -> None:
        while not self._is_over.is_set():
            asked = list(self._waiting.items())
            if not asked:
                self._is_over.wait(0.001)
                continue
            answers = self._index.search(np.stack([vector_D for _, vector_D in asked]), K).ids
            now_ms = time.time() * 1000
            for (item_id, _), ids in zip(asked, answers, strict=True):
                if item_id in ids:
                    self.found_ms[item_id] = now_ms
                    del self._waiting[item_id]


def probes(index: ItemIndex, vectors: Vectors) -> list[str]:
    """Of some items those that their own vectors find among the best `K` once all of them are there; some of these.

    Args:
        index: What is there before.
        vectors: Of the items.
    """
    whole = build_index("faiss", index.dim, index.release)
    whole.swap(index.contents())
    ids, vectors_ND = list(vectors), np.stack(list(vectors.values()))
    whole.upsert(ids, vectors_ND)
    found = whole.search(vectors_ND, K).ids
    return [item_id for item_id, best in zip(ids, found, strict=True) if item_id in best][::PROBED_ONE_IN]


def new_items(num_items: int, titles: Sequence[str], generator: np.random.Generator) -> list[Item]:
    """Items of the words that the catalogue's titles have."""
    words = sorted({word for title in titles for word in title.split()})
    return [
        Item(item_id=f"new-{number}", title=" ".join(generator.choice(words, NUM_WORDS)), tags=["Drama"])
        for number in range(num_items)
    ]


def new_vectors(num_items: int, like_TD: npt.NDArray[np.float32], generator: np.random.Generator) -> Vectors:
    """Vectors in random directions, longer than those of items."""
    made_ND = generator.standard_normal((num_items, like_TD.shape[1])).astype(np.float32)
    made_ND *= LONGER * np.linalg.norm(like_TD, axis=1).max() / np.linalg.norm(made_ND, axis=1, keepdims=True)
    return {f"vector-{number}": vector_D for number, vector_D in enumerate(made_ND)}


async def send(
    settings: Settings, topic: str, upserts: Sequence[Upsert], rate: float, watcher: Watcher, asked: Vectors
) -> tuple[dict[str, float], float]:
    """Send `rate` upserts a second, each at its time, and have the watcher ask for some from just before.

    Returns:
        When Kafka appended each of those, and the most milliseconds that one went later than it should.
    """
    on_their_way = {}
    async with AIOKafkaProducer(**connection(settings), acks="all", linger_ms=0) as producer:
        await producer.partitions_for(topic)
        pace = Pace(rate)
        for place, upsert in enumerate(upserts):
            await pace.wait(place)
            if upsert.item_id in asked:
                watcher.expect(upsert.item_id, asked[upsert.item_id])
            key = upsert.item_id.encode()
            partition = partition_of(key, settings.partitions)
            on_their_way[upsert.item_id] = await producer.send(topic, upsert.value, key=key, partition=partition)
        appended = {item_id: (await sent).timestamp for item_id, sent in on_their_way.items()}
    return {item_id: appended[item_id] for item_id in asked}, pace.late_s * 1000


async def shown(
    settings: Settings, topic: str, index: ItemIndex, upserts: Sequence[Upsert], vectors: Vectors, rate: float
) -> Shown:
    """Send upserts to a topic, and see when searches of the index find them."""
    asked = {item_id: vectors[item_id] for item_id in probes(index, vectors)}
    watcher = Watcher(index)
    with watcher.asking():
        appended_ms, late_ms = await send(settings, topic, upserts, rate, watcher, asked)
        give_up_at = time.monotonic() + FOUND_WITHIN_S
        while watcher.num_waiting and time.monotonic() < give_up_at:
            await asyncio.sleep(0.01)
    waits_ms = [found_ms - appended_ms[item_id] for item_id, found_ms in watcher.found_ms.items()]
    return Shown(waits_ms, watcher.num_waiting, late_ms)


@asynccontextmanager
async def followed_view(settings: Settings, dim: int, release: str) -> AsyncIterator[ItemView]:
    """The items as a role holds them, once all trained ones are there."""
    view = ItemView(build_index(settings.index_kind, dim, release), settings.partitions)
    item_vectors, items = prefixed(settings.prefix, ITEM_VECTORS), prefixed(settings.prefix, ITEMS)
    followers = view.followers(connection(settings), item_vectors, items)
    for follower in followers:
        await follower.start()
    try:
        await view.wait_complete(print)
        yield view
    finally:
        for follower in followers:
            await follower.stop()


async def measure(settings: Settings, rate: float, num_upserts: int, seed: int) -> dict[str, Shown]:
    """What came of upserts of the catalogue, and of vectors."""
    encoder, generator = load_encoder(settings), np.random.default_rng(seed)
    contents, _ = item_contents(file_records(EXAMPLE / ITEMS_FILE))
    items = new_items(num_upserts, [one.title or "" for one in contents.values()], generator)
    told = {item.item_id: item_content(item) for item in items}
    made = list(catalogue_vectors(item_reader(settings, encoder), told))
    of_items = {item_id: row for some in made for item_id, row in zip(some.ids, some.vectors_ND, strict=True)}
    of_vectors = new_vectors(num_upserts, encoder.item_vectors()[1], generator)
    records = [
        ItemVectorRecord(item_id=item_id, release=encoder.release, vector=pack_vector(vector_D))
        for item_id, vector_D in of_vectors.items()
    ]
    ways: dict[str, tuple[list[Upsert], Vectors]] = {
        ITEMS: ([Upsert(item.item_id, encode(item)) for item in items], of_items),
        ITEM_VECTORS: ([Upsert(record.item_id, encode(record)) for record in records], of_vectors),
    }
    found, roles = {}, RunningRoles()
    async with Supervisor(settings, [Worker("encode", 0)], on_event=roles.take) as supervisor:
        await supervisor.wait_ready(READY_WITHIN_S)
        async with followed_view(settings, encoder.dim, encoder.release) as view:
            for name, (upserts, vectors) in ways.items():
                topic = prefixed(settings.prefix, name)
                found[name] = await supervisor.watch(shown(settings, topic, view.index, upserts, vectors, rate))
                print(f"{name}: {len(found[name].waits_ms)} upserts watched", flush=True)
        assert not roles.num_deaths, f"roles died: {roles.num_deaths}"
    return found


def rows_of(found: Mapping[str, Shown]) -> list[list[str]]:
    """Lines of the table."""
    return [
        [f"{name} -> search", *(f"{np.percentile(one.waits_ms, share):.1f}" for share in SHARES.values())]
        for name, one in found.items()
    ]


def result_of(found: Mapping[str, Shown], rate: float, num_upserts: int) -> BenchResult:
    """The figures."""
    figures: dict[str, Figure] = {}
    for name, one in found.items():
        for share_name, share in SHARES.items():
            target = P99_TARGET_MS if share_name == "p99_ms" else None
            figures[f"{name}: {share_name}"] = Figure(float(np.percentile(one.waits_ms, share)), target)
        figures[f"{name}: watched"] = Figure(len(one.waits_ms))
        figures[f"{name}: missed"] = Figure(one.num_missed, 0, "same")
        figures[f"{name}: sender_late_ms"] = Figure(one.sender_late_ms)
    return BenchResult("items", figures, {"rate": rate, "upserts": num_upserts, "k": K})


def train_tower(folder: Path) -> None:
    """A small model that reads titles and tags; takes half a minute."""
    settings = load_settings(EXAMPLE / CONFIG_FILE, environ={})
    events = list(islice(read_events(EXAMPLE / EVENTS_FILE, settings).events, TRAINED_EVENTS))
    contents, _ = item_contents(file_records(EXAMPLE / ITEMS_FILE))
    train(events, settings, folder, config=TrainConfig(num_layers=1, max_epochs=1), items=TrainingItems(contents))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="upserts a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="for how long, for each way")
    parser.add_argument("--seed", type=int, default=0)
    options: Any = parser.parse_args(arguments)
    num_upserts = round(options.rate * options.seconds)
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as name, terminate_as_interrupt():
        folder = Path(name)
        train_tower(folder / MODEL_FOLDER)
        settings = demo_settings(folder, EXAMPLE / CONFIG_FILE, folder / MODEL_FOLDER)
        with fresh_broker(settings, APPEND_TIME) as (reached, _):
            found = asyncio.run(measure(reached, options.rate, num_upserts, options.seed))
    print(table(["way (ms)", *(share.removesuffix("_ms") for share in SHARES)], rows_of(found)), end="\n\n")
    return finish(result_of(found, options.rate, num_upserts))


if __name__ == "__main__":
    sys.exit(main())
