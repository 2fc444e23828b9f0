"""The drift meter in a real encode worker: figures appear on the topic while slices flow."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.demo import CONFIG_FILE, MODEL_FOLDER
from stream_app.drift_meter import EVERY_SLICES
from stream_app.local_broker import with_broker
from stream_app.preflight import ensure_topics
from stream_app.records import SliceEvent, SliceRecord, encode
from stream_app.settings import Settings, load_settings
from tests.end_to_end.conftest import SAMPLE, Commands, last_json
from tests.replay_cases import known_items
from tests.support import publish, read_all, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def settings(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Settings:
    """The sample's settings and model with one partition, in a namespace and a state folder of this test."""
    overrides = {
        "prefix": topic_prefix,
        "state_dir": str(tmp_path / "state"),
        "model": str(SAMPLE / MODEL_FOLDER),
        "partitions": 1,
    }
    made = with_broker(load_settings(SAMPLE / CONFIG_FILE, environ={}, overrides=overrides), broker.bootstrap_servers)
    ensure_topics(made, create=True)
    return made


def send_slices(settings: Settings, seqs: range) -> None:
    """Slices of one event each of one user."""
    records = []
    for seq in seqs:
        event = SliceEvent(known_items()[seq % 6], "rating", 1_000_000_000 * (seq + 1), 1_000_000_000 if seq else -1)
        made = SliceRecord(
            user_id="ann", seq=seq, revision=1, closed=True, fresh=True, events=[event], partition=0, offset=seq
        )
        records.append((settings.prefix + topics.SLICES, 0, b"ann", encode(made)))
    asyncio.run(publish(settings.kafka.bootstrap_servers, records))


def num_on(settings: Settings, topic: str) -> int:
    """How many records lie on a topic of one partition."""
    return len(asyncio.run(read_all(settings.kafka.bootstrap_servers, settings.prefix + topic, 1)))


def test_figures_appear_while_slices_flow(settings: Settings) -> None:
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "SLICEFLOW_CONFIG": str(SAMPLE / CONFIG_FILE),
        "SLICEFLOW_MODEL": settings.model,
        "SLICEFLOW_PREFIX": settings.prefix,
        "SLICEFLOW_PARTITIONS": "1",
        "SLICEFLOW_DRIFT_USERS_SHARE": "1",
    }
    commands = Commands(settings.state_path, environ)
    sent = EVERY_SLICES

    def figures_are_there() -> bool:
        nonlocal sent
        # The figures come with the run after the check: so there must be another one.
        send_slices(settings, range(sent, sent + 1))
        sent += 1
        return num_on(settings, topics.DRIFT) > 0

    try:
        send_slices(settings, range(EVERY_SLICES))
        worker = commands.start("worker", "encode")
        wait_until(lambda: num_on(settings, topics.SLICE_VECTORS) >= EVERY_SLICES, what="the first vectors")
        wait_until(figures_are_there, what="figures of the drift")
        shown = commands.run("drift", "--json")
        commands.stop(worker)
    finally:
        commands.close()
    assert shown.returncode == 0, shown.stderr
    figures = last_json(shown.stdout)
    assert (figures["users"], figures["users_left_out"]) == (1, 0)
    assert figures["slices"] >= EVERY_SLICES
    assert figures["mean_cosine"] > 1 - 1e-4
    assert figures["mean_overlap_10"] == 1.0
