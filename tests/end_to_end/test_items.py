"""The life of an item through real workers: its record, its vector, the lists it is in; and what must not get in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from encoders.training_config import TrainConfig
from index.checks import ALL_ZEROS, NOT_FINITE
from stream_app.broker import EmbeddedBroker
from stream_app.cli import main
from stream_app.demo import CONFIG_FILE, EVENTS_FILE, ITEMS_FILE
from stream_app.event_log import read_events
from stream_app.inspection.catalogue import file_records
from stream_app.item_contents import item_contents
from stream_app.models import served_model
from stream_app.records import (
    VECTORS_KEY,
    Item,
    ItemVectorRecord,
    Recommendation,
    SliceEvent,
    SliceRecord,
    VectorsCompleteRecord,
    encode,
    pack_vector,
)
from stream_app.role_process import settings_environment
from stream_app.settings import load_settings
from stream_app.topic_reader import StoredRecord
from stream_app.topics import DEAD_LETTER, ITEM_VECTORS, ITEMS, RECOMMENDATIONS, SLICES
from stream_app.training import TrainingItems, train
from tests.faults.rig import Rig, Sent, example_settings
from tests.support import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SAMPLE = Path(__file__).parents[2] / "examples" / "movietweetings"
NUM_EVENTS = 1200
"""Few enough items that each list may hold them all: who is in the index is in the list."""

NEW = Item(item_id="new", title="Iron Man and the War of the Worlds", tags=["Drama", "Sci-Fi"])
READY = '{"ready":'
READY_S = 150.0
"""Two workers that import torch at once need more than a minute on a machine that does much else."""

PLAIN = Item(item_id="plain")
"""Nothing is said of it, so it has no vector."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one epoch that reads words and tags."""
    folder = tmp_path_factory.mktemp("tower")
    with gzip.open(SAMPLE / EVENTS_FILE) as full, gzip.open(folder / EVENTS_FILE, "wb") as cut:
        cut.writelines(islice(full, NUM_EVENTS))
    settings = load_settings(SAMPLE / CONFIG_FILE, environ={})
    contents, _ = item_contents(file_records(SAMPLE / ITEMS_FILE))
    train(
        read_events(folder / EVENTS_FILE, settings).events,
        settings,
        folder / "model",
        config=TrainConfig(dim=16, num_layers=1, max_epochs=1),
        items=TrainingItems(contents),
    )
    return folder / "model"


@pytest.fixture
def rig(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path, model: Path) -> Rig:
    """Lists as long as they may be, and snapshots of the index."""
    settings = example_settings(
        broker.bootstrap_servers,
        topic_prefix,
        tmp_path,
        model=str(model),
        index_kind="live",
        list_items=5000,
        candidates=1000,
    )
    return Rig(settings, tmp_path)


def told(item: Item) -> Sent:
    return Sent(item.item_id.encode(), encode(item))


def on_topic(rig: Rig, item_id: str) -> list[StoredRecord]:
    """The records of an item on `item-vectors`."""
    return [record for record in rig.read(ITEM_VECTORS) if record.key == item_id.encode()]


def encoded_up_to(rig: Rig) -> Mapping[int, int]:
    """How far `items` is reflected on `item-vectors`, by partition."""
    markers = {r.partition: r.value for r in rig.read(ITEM_VECTORS) if r.key == VECTORS_KEY and r.value}
    return {p: msgspec.json.decode(value, type=VectorsCompleteRecord).items_offset for p, value in markers.items()}


def wait_encoded(rig: Rig) -> None:
    """Wait until all of `items` is."""
    ends = {partition: end for partition, (_, end) in rig.bounds(ITEMS).items()}
    wait_until(lambda: encoded_up_to(rig) == ends, what="the catalogue to be encoded")


class Lists:
    """Asks for lists, each time for another user."""

    def __init__(self, rig: Rig, touched: str) -> None:
        self._rig = rig
        self._touched = touched
        self._number = 0

    def next(self) -> set[str]:
        """The items of the next list; it is replayed, so the catalogue is waited for."""
        self._number += 1
        user = f"user-{self._number}"
        event = SliceEvent(self._touched, "rating", 1_380_000_000_000, -1)
        record = SliceRecord(
            user_id=user,
            seq=0,
            revision=1,
            closed=False,
            fresh=True,
            events=[event],
            partition=0,
            offset=self._number,
            join_epoch=-1,
        )
        self._rig.send([Sent(user.encode(), encode(record))], SLICES)
        found = wait_until(lambda: self._list_of(user), what=f"the list of {user}")
        assert found is not None
        return {item.item_id for item in found.items}

    def _list_of(self, user: str) -> Recommendation | None:
        for record in self._rig.read(RECOMMENDATIONS):
            if record.key == user.encode() and record.value:
                return msgspec.json.decode(record.value, type=Recommendation)
        return None


def reasons(rig: Rig, topic: str) -> list[str]:
    """Of the dead letters of a topic, in order."""
    letters = [dict(record.headers) for record in rig.read(DEAD_LETTER)]
    return [(facts["reason"] or b"").decode() for facts in letters if facts["topic"] == rig.name(topic).encode()]


def test_an_item_comes_changes_and_goes(rig: Rig) -> None:
    release = served_model(rig.settings).release
    with rig.worker("encode") as encoder, rig.worker("recommend") as recommend:
        encoder.wait_for(READY, READY_S)
        recommend.wait_for(READY, READY_S)
        trained = sorted(r.key.decode() for r in rig.read(ITEM_VECTORS) if r.key and not r.key.startswith(b"\xff"))
        lists = Lists(rig, trained[0])
        assert lists.next() == set(trained[1:])

        broken = Sent(b"broken", b'{"item_id":"broken"')
        rig.send([told(NEW), told(PLAIN), broken, told(Item(item_id=trained[1], available=False))], ITEMS)
        assert lists.next() == {*trained[2:], "new"}
        wait_encoded(rig)
        (first,) = on_topic(rig, "new")
        assert msgspec.json.decode(first.value or b"", type=ItemVectorRecord).release == release
        assert on_topic(rig, "plain") == [] and len(on_topic(rig, trained[1])) == 1
        assert reasons(rig, ITEMS) == ["not_json"]

        changed = msgspec.structs.replace(NEW, title="Heel")
        sold_out = msgspec.structs.replace(changed, available=False)
        rig.send([told(changed), told(sold_out), told(sold_out), told(msgspec.structs.replace(sold_out))], ITEMS)
        wait_encoded(rig)
        assert len(on_topic(rig, "new")) == 2  # what is said of its stock is no news to the tower
        assert "new" not in lists.next()

        rig.send([told(changed), Sent(trained[2].encode(), None)], ITEMS)
        assert lists.next() == {*trained[3:], "new"}
        rig.send([Sent(b"new", None)], ITEMS)
        assert lists.next() == set(trained[3:])
        wait_encoded(rig)
        assert [record.value is None for record in on_topic(rig, "new")] == [False, False, True]
        recommend.stop()
        with rig.worker("recommend") as again:
            again.wait_for(READY, READY_S)
            assert f"{len(trained)} items from snapshot-" in again.text()
            assert lists.next() == set(trained[3:])
            again.stop()
        encoder.stop()


def test_a_restarted_worker_goes_on_where_the_topic_says(rig: Rig) -> None:
    def work_off() -> list[StoredRecord]:
        with rig.worker("encode") as encoder:
            encoder.wait_for(READY, READY_S)
            wait_encoded(rig)
            encoder.stop()
        records = [record for record in rig.read(ITEM_VECTORS) if record.value and record.key != VECTORS_KEY]
        return sorted(records, key=lambda record: (record.partition, record.offset))

    rig.send([told(NEW), told(PLAIN)], ITEMS)
    before = work_off()
    assert {record.key for record in before} > {b"new"}
    assert work_off() == before
    later = Item(item_id="later", title=NEW.title)
    rig.send([told(later), Sent(b"new", None)], ITEMS)
    after = work_off()
    assert [record.key for record in after if record not in before] == [b"later"]
    assert on_topic(rig, "new")[-1].value is None

    found = CliRunner().invoke(
        main, ["index", "search", NEW.title or "", "--json"], env=settings_environment(rig.settings, {})
    )
    assert found.exit_code == 0, found.stderr
    first = json.loads(found.stdout)["items"][0]
    assert (first["item_id"], first["title"]) == ("later", NEW.title)


def bad_vector(rig: Rig, item_id: str, value: float, release: str) -> Sent:
    vector = np.full(served_model(rig.settings).dim, value, dtype=np.float32)
    return Sent(
        item_id.encode(), encode(ItemVectorRecord(item_id=item_id, release=release, vector=pack_vector(vector)))
    )


def test_a_bad_vector_is_refused_by_name_and_the_last_good_one_stays(rig: Rig) -> None:
    release = served_model(rig.settings).release
    rig.send([told(NEW)], ITEMS)
    with rig.worker("encode") as encoder, rig.worker("recommend") as recommend:
        encoder.wait_for(READY, READY_S)
        recommend.wait_for(READY, READY_S)
        lists = Lists(rig, "0133093")
        before = lists.next()
        assert "new" in before
        bad = [bad_vector(rig, "new", float("nan"), release), bad_vector(rig, "zeros", 0.0, release)]
        rig.send([*bad, Sent(b"junk", json.dumps({"item_id": "junk"}).encode())], ITEM_VECTORS)
        wait_until(lambda: len(reasons(rig, ITEM_VECTORS)) == 3, what="three dead letters")
        assert sorted(reasons(rig, ITEM_VECTORS)) == sorted([NOT_FINITE, ALL_ZEROS, "no vector record"])
        assert lists.next() == before
        encoder.stop()
        recommend.stop()
