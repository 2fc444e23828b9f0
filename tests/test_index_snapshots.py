"""A start from a snapshot comes to what a reading from the beginning does, and doubtful snapshots are left alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from index import build_index
from stream_app import index_snapshots
from stream_app.broker import EmbeddedBroker
from stream_app.faustkit import Run
from stream_app.index_snapshots import MAX_AGE_S, IndexSnapshots, keep_saving, open_snapshots
from stream_app.item_view import ItemView
from stream_app.kafka import connection
from stream_app.records import VECTORS_KEY, ItemVectorRecord, VectorsCompleteRecord, encode, pack_vector
from stream_app.settings import KafkaSettings, Settings
from tests.support import create_topics, publish

TOPIC = "item-vectors"
ENDS = {0: 100}
LOG: list[tuple[bytes, bytes | None]] = [
    *(
        (f"i{number}".encode(), encode(ItemVectorRecord(item_id=f"i{number}", release="r1", vector=pack_vector(row))))
        for number, row in enumerate(np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32))
    ),
    (VECTORS_KEY, encode(VectorsCompleteRecord(release="r1", num_items=9, items_offset=3))),
    (b"i2", None),
]


class Clock:
    """Goes when it is told to."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def view(release: str = "r1") -> ItemView:
    return ItemView(build_index("live", 4, release), 1)


def read(into: ItemView, start: int, end: int) -> ItemView:
    """Take these records of the log."""
    keys, values = zip(*LOG[start:end], strict=True)
    num = end - start
    into._take_vectors(Run(TOPIC, 0, range(start, end), keys, values, [0] * num, [()] * num))
    return into


def saved(folder: Path, clock: Clock, up_to: int, topic_id: str = "t1") -> IndexSnapshots:
    """Snapshots, of which the newest holds the log up to there."""
    snapshots = IndexSnapshots(folder, TOPIC, topic_id, clock=clock)
    half = read(view(), 0, up_to)
    snapshots.save(half.index, half.place)
    return snapshots


@pytest.mark.parametrize("up_to", [1, 9, 10, 11])
def test_who_starts_from_a_snapshot_comes_to_the_same(tmp_path: Path, up_to: int) -> None:
    clock = Clock()
    saved(tmp_path, clock, up_to)
    started = view()
    line = IndexSnapshots(tmp_path, TOPIC, "t1", clock=clock).load(started, ENDS)
    assert line == f"{len(started.index)} items from snapshot-000000000001"
    assert started.place.next_offsets == {0: up_to}
    if up_to < len(LOG):
        read(started, up_to, len(LOG))
    whole = read(view(), 0, len(LOG))
    assert started.place == whole.place
    queries_QD = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    assert started.index.search(queries_QD, 9).ids == whole.index.search(queries_QD, 9).ids


@pytest.mark.parametrize(
    ("doubt", "seen"),
    [
        ({"topic_id": "t2"}, "another topic"),
        ({"later_s": MAX_AGE_S + 1}, "older than 12 hours"),
        ({"ends": {0: 9}}, "more than the topic"),
        ({"ends": {}}, "more than the topic"),
        ({"release": "r2"}, "another release"),
    ],
)
def test_a_doubtful_snapshot_is_told_and_not_used(tmp_path: Path, doubt: dict[str, object], seen: str) -> None:
    clock = Clock()
    saved(tmp_path, clock, 10)
    clock.now_s += float(str(doubt.get("later_s", 0)))
    started = view(str(doubt.get("release", "r1")))
    ends = doubt.get("ends", ENDS)
    assert isinstance(ends, dict)
    line = IndexSnapshots(tmp_path, TOPIC, str(doubt.get("topic_id", "t1")), clock=clock).load(started, ends)
    assert seen in line
    assert (len(started.index), started.place) == (0, view().place)


def test_a_damaged_snapshot_is_passed_over_and_none_is_no_trouble(tmp_path: Path) -> None:
    clock = Clock()
    assert "no snapshot" in IndexSnapshots(tmp_path, TOPIC, "t1", clock=clock).load(view(), ENDS)
    snapshots = saved(tmp_path, clock, 9)
    more = read(view(), 0, 11)
    snapshots.save(more.index, more.place)
    newest = max(tmp_path.glob("snapshot-*"))
    (newest / "manifest.json").write_bytes(b"{")
    started = view()
    assert "snapshot-000000000001" in IndexSnapshots(tmp_path, TOPIC, "t1", clock=clock).load(started, ENDS)
    assert started.place.next_offsets == {0: 9}


def test_what_others_built_is_used_where_there_is_nothing_of_ones_own(tmp_path: Path) -> None:
    clock, started = Clock(), view()
    saved(tmp_path / "built", clock, 9)
    own = IndexSnapshots(tmp_path / "own", TOPIC, "t1", [tmp_path / "built"], clock)
    assert own.load(started, ENDS).startswith("9 items")
    saved(tmp_path / "own", clock, 4)
    assert own.load(view(), ENDS).startswith("4 items")


def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    clock, held = Clock(), read(view(), 0, 10)
    snapshots = IndexSnapshots(tmp_path, TOPIC, "t1", clock=clock)
    for _ in range(3):
        snapshots.save(held.index, held.place)
    again = view()
    later = IndexSnapshots(tmp_path, TOPIC, "t1", clock=clock)
    later.load(again, ENDS)
    later.save(again.index, again.place)
    assert len(list(tmp_path.glob("snapshot-*"))) == 1


def test_a_full_disk_is_told_and_the_next_try_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_snapshots, "EVERY_S", 0.01)
    folder = tmp_path / "index"
    folder.write_text("in the way")
    snapshots = IndexSnapshots(folder, TOPIC, "t1", clock=Clock())

    async def story() -> None:
        saving = asyncio.create_task(keep_saving(read(view(), 0, 10), snapshots))
        await asyncio.sleep(0.03)
        folder.unlink()
        async with asyncio.timeout(30):
            while not list(folder.glob("snapshot-*")):
                await asyncio.sleep(0.01)
        saving.cancel()

    asyncio.run(story())


@pytest.mark.kafka
def test_a_topic_made_anew_is_not_the_snapshots(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers))
    kafka = connection(settings)
    topics = [f"{topic_prefix}{number}" for number in range(2)]

    async def story() -> None:
        await create_topics(broker.bootstrap_servers, dict.fromkeys(topics, 1))
        for topic in topics:
            await publish(broker.bootstrap_servers, [(topic, 0, key, value) for key, value in LOG])
        snapshots, ends = await open_snapshots(kafka, topics[0], tmp_path)
        assert ends == {0: len(LOG)}
        held = read(view(), 0, 10)
        snapshots.save(held.index, held.place)
        for topic, seen in zip(topics, ("9 items", "another topic"), strict=True):
            again, ends = await open_snapshots(kafka, topic, tmp_path)
            assert seen in again.load(view(), ends)

    asyncio.run(story())
