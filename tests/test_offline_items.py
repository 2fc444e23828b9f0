"""Items of a catalogue in a replay and in a walk without a broker: they are found by what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from encoders.item_features import ItemContent
from encoders.training_config import TrainConfig
from stream_app.evaluation.own_lists import stream_lists
from stream_app.event_log import read_events
from stream_app.inspection.catalogue import file_records
from stream_app.item_contents import item_contents
from stream_app.models import list_rule, load_encoder, served_model
from stream_app.offline import OfflineStream
from stream_app.offline_replay import replay_offline
from stream_app.recording import RecordedList, Recorder
from stream_app.records import Event
from stream_app.replay.readers import open_log
from stream_app.settings import Settings
from stream_app.training import TrainingItems, train
from tests.replay_cases import SAMPLE, demo_settings, first_line, sample_rows

pytestmark = pytest.mark.slow

NUM_EVENTS = 1000
NUM_REPLAYED = 80
TITLE = "The War of the Worlds"
NEW = {"item_id": "new", "title": TITLE, "tags": ["Sci-Fi", "Drama"]}


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "events.ndjson"
    path.write_bytes(b"\n".join(map(orjson.dumps, sample_rows(NUM_EVENTS))))
    return path


@pytest.fixture(scope="module")
def settings(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """With a model that reads words and tags; lists are as long as they may be."""
    folder = tmp_path_factory.mktemp("tower") / "model"
    plain = demo_settings()
    contents, _ = item_contents(file_records(SAMPLE / "items.ndjson.gz"))
    config = TrainConfig(dim=16, num_layers=1, max_epochs=1)
    train(read_events(log_file, plain).events, plain, folder, config=config, items=TrainingItems(contents))
    return demo_settings(model=str(folder), list_items=5000, candidates=1000, state_dir=str(folder.parent))


def listed(log_file: Path, settings: Settings, items: Path | None) -> dict[str, set[str]]:
    """The items of each user's last list."""
    recorder = Recorder()
    outcome = replay_offline(open_log(log_file), settings, items=items, recorder=recorder)
    records = recorder.recording(first_line(outcome, settings)).records()
    return {one.user_id: {item.item_id for item in one.items} for one in records if isinstance(one, RecordedList)}


def test_a_new_item_of_the_catalogue_is_in_every_list(log_file: Path, settings: Settings, tmp_path: Path) -> None:
    catalogue = tmp_path / "items.ndjson"
    rows = [{**NEW, "title": "?", "available": False}, {"item_id": "plain"}, NEW]
    catalogue.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    short = tmp_path / "events.ndjson"
    short.write_bytes(b"\n".join(log_file.read_bytes().splitlines()[:NUM_REPLAYED]))
    before, after = listed(short, settings, None), listed(short, settings, catalogue)
    assert before.keys() == after.keys() and len(before) > 20
    assert all(after[user] == items | {"new"} for user, items in before.items())
    gone = tmp_path / "gone.ndjson"
    gone.write_bytes(orjson.dumps({**NEW, "available": False}))
    assert listed(short, settings, gone) == before


def test_in_a_walk_an_item_is_known_from_its_first_event_on(log_file: Path, settings: Settings) -> None:
    events = read_events(log_file, settings).events
    last = events[-1].ts
    users = list(dict.fromkeys(event.user_id for event in events))[:3]
    later = [
        Event(user_id=user, item_id="new", type="rating", ts=last + 1000 * (place + 1))
        for place, user in enumerate(users)
    ]
    lists_of = stream_lists(settings, {"new": ItemContent(TITLE)})
    lists = list(lists_of([*events, *later], last + 1))[-3:]
    assert [made is not None and "new" in made for made in lists] == [False, True, True]


def test_the_vector_of_a_walk_is_the_one_it_was_given(log_file: Path, settings: Settings) -> None:
    encoder, rule = load_encoder(settings), list_rule(settings, served_model(settings))
    stream = OfflineStream(settings, encoder, rule, {"new": np.ones(encoder.dim, dtype=np.float32)})
    event = Event(user_id="ann", item_id="new", type="rating", ts=1_380_000_000_000)
    list(stream.walk([event], ask_from_ms=event.ts + 1))
    vectors_ND, found_N = stream._roles.index.vectors_of(["new"])
    assert found_N.all() and (vectors_ND == 1).all()
