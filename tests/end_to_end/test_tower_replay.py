"""A log with a catalogue of titles through the real roles and through the same stages in one process, with a model that
reads them: new items have a vector of the tower on both ways, and the recordings are equal, byte for byte."""

from __future__ import annotations

import asyncio
import gzip
from itertools import islice
from pathlib import Path

import msgspec
import orjson
import pytest
from click.testing import CliRunner

from encoders.training_config import TrainConfig
from stream_app.broker import EmbeddedBroker
from stream_app.cli import main
from stream_app.demo import CONFIG_FILE, EVENTS_FILE, ITEMS_FILE, MODEL_FOLDER
from stream_app.event_log import read_events
from stream_app.inspection.catalogue import file_records
from stream_app.item_contents import item_contents
from stream_app.preflight import ensure_topics
from stream_app.role_process import settings_environment
from stream_app.settings import load_settings
from stream_app.training import TrainingItems, train
from tests.end_to_end.conftest import SAMPLE, Commands
from tests.end_to_end.test_offline_replay import Inputs, Row, rows_of, settings_for, through_roles

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

NUM_TRAINED = 1000
NUM_REPLAYED = 120
NUM_NEW = 40
SOLD_OUT = "new-0"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short log, the catalogue with items that nobody touched, and a model of one epoch that reads words and tags."""
    folder = tmp_path_factory.mktemp("tower")
    settings = load_settings(SAMPLE / CONFIG_FILE, environ={})
    contents, _ = item_contents(file_records(SAMPLE / ITEMS_FILE))
    events = list(islice(read_events(SAMPLE / EVENTS_FILE, settings).events, NUM_TRAINED))
    config = TrainConfig(dim=16, num_layers=1, max_epochs=1)
    train(events, settings, folder / MODEL_FOLDER, config=config, items=TrainingItems(contents))
    with gzip.open(SAMPLE / EVENTS_FILE) as full:
        (folder / "events.ndjson").write_bytes(b"".join(islice(full, NUM_REPLAYED)))
    touched = {event.item_id for event in events[:NUM_REPLAYED]}
    rows: list[Row] = [{"item_id": item, "title": contents[item].title} for item in sorted(touched & contents.keys())]
    titled = [one for one in contents.values() if one.title][:NUM_NEW]
    rows += [
        {"item_id": f"new-{number}", "title": one.title, "tags": list(one.tags), "available": number > 0}
        for number, one in enumerate(titled)
    ]
    (folder / "items.ndjson").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return folder


def test_both_ways_list_new_items_by_what_is_said_of_them(
    broker: EmbeddedBroker, topic_prefix: str, example: Path, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    # Lists as long as they may be: whatever the index gives is in them.
    settings = msgspec.structs.replace(settings, model=str(example / MODEL_FOLDER), list_items=5000, candidates=1000)
    environ = settings_environment(settings, {})
    commands = Commands(tmp_path / "state", environ)
    inputs = Inputs(example / "events.ndjson", example / "items.ndjson", {})
    on_kafka, offline = tmp_path / "kafka.ndjson", tmp_path / "offline.ndjson"
    ensure_topics(settings, create=True)
    asyncio.run(through_roles(settings, inputs, commands, on_kafka))

    args = ["replay", str(inputs.log), "--offline", "--items", str(inputs.catalogue), "--record", str(offline)]
    done = CliRunner().invoke(main, [*args, "--check", str(on_kafka)], env={**environ, "KAFKA_BOOTSTRAP_SERVERS": ""})
    assert done.exit_code == 0, done.output
    assert offline.read_bytes() == on_kafka.read_bytes()
    listed = {item["item_id"] for row in rows_of(offline) if row["record"] == "list" for item in row["items"]}
    new = {f"new-{number}" for number in range(NUM_NEW)}
    assert listed & new == new - {SOLD_OUT}
