"""The metrics of a running chain: what was sent is what they say, in every role."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.demo import CONFIG_FILE, MODEL_FOLDER
from stream_app.monitoring.endpoint import metrics_port
from stream_app.roles import ROLE_INPUTS, ROLES
from stream_app.topics import EVENTS
from tests.end_to_end.conftest import SAMPLE, Commands
from tests.monitoring.cases import Samples, samples_of
from tests.replay_cases import known_items
from tests.support import DEADLINE_S, publish, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NUM_EVENTS = 6
READY_WITHIN_S = 150.0


def free_first_port() -> int:
    """A first port whose ports for the first worker of each role are free now."""
    for first in range(20_000, 60_000, 1000):
        try:
            for role in ROLES:
                socket.create_server(("127.0.0.1", metrics_port(first, role, 0))).close()
        except OSError:
            continue
        return first
    raise AssertionError("no ports are free")


class Scrapes:
    """Asks the roles for their metrics."""

    def __init__(self, first_port: int) -> None:
        self._first_port = first_port

    def of(self, role: str) -> Samples:
        """All samples of a role."""
        port = metrics_port(self._first_port, role, 0)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
            return samples_of(answer.read().decode())

    def value(self, role: str, name: str, **labels: str) -> float:
        """One sample; 0 where it is not there yet."""
        return self.of(role).get((name, frozenset({"role": role, **labels}.items())), 0.0)


def send(servers: str, topic: str) -> None:
    """Live events of one user, one of them twice, and a record that is none."""
    now_ms = int(time.time() * 1000)
    values = [
        json.dumps({"user_id": "ann", "item_id": item, "type": "rating", "ts": now_ms - 1000 + place}).encode()
        for place, item in enumerate(known_items()[:NUM_EVENTS])
    ]
    records = [(topic, 0, b"ann", value) for value in [*values, values[-1], b"no event"]]
    asyncio.run(publish(servers, records))


def test_every_role_tells_what_it_did(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    first_port = free_first_port()
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "SLICEFLOW_CONFIG": str(SAMPLE / CONFIG_FILE),
        "SLICEFLOW_MODEL": str(SAMPLE / MODEL_FOLDER),
        "SLICEFLOW_PREFIX": topic_prefix,
        "SLICEFLOW_PARTITIONS": "1",
        "SLICEFLOW_SCORE_USERS_SHARE": "1",
        "SLICEFLOW_METRICS_PORT": str(first_port),
        "SLICEFLOW_LOG_JSON": "true",
    }
    commands = Commands(tmp_path / "state", environ)
    scrapes = Scrapes(first_port)
    try:
        up = commands.start("up", "--json")
        assert up.stdout is not None
        wait_until(lambda: '"all-ready"' in up.stdout.readline(), READY_WITHIN_S, "all roles")  # type: ignore[union-attr]
        send(broker.bootstrap_servers, topic_prefix + EVENTS)
        wait_until(
            lambda: scrapes.value("recommend", "sliceflow_freshness_seconds_count") > 0,
            READY_WITHIN_S,
            "the freshness of a list",
        )
        check_sequence(scrapes)
        check_others(scrapes)
        assert commands.stop(up) == 0
    finally:
        commands.close()
    lines = (commands.home / "logs" / "recommend.log").read_text().splitlines()
    assert any("metrics at" in json.loads(line)["message"] for line in lines)


def check_sequence(scrapes: Scrapes) -> None:
    """The counts of events, to the number."""
    for outcome, expected in (("applied", NUM_EVENTS), ("dropped", 1), ("dead_letter", 1)):
        assert scrapes.value("sequence", "sliceflow_events_total", outcome=outcome) == expected
    assert scrapes.value("sequence", "sliceflow_events_dropped_total", reason="duplicate") == 1
    assert scrapes.value("sequence", "sliceflow_published_records_total", topic="events-dead-letter") == 1
    assert scrapes.value("sequence", "sliceflow_run_records_sum") == NUM_EVENTS + 2


def check_others(scrapes: Scrapes) -> None:
    """Readiness, lag and work of all roles, and the freshness of a list that was made just now."""
    for role, topic in ROLE_INPUTS.items():
        labels = {"topic": topic, "partition": "0"}

        def is_level(role: str = role, labels: dict[str, str] = labels) -> bool:
            samples = scrapes.of(role)
            key = frozenset({"role": role, **labels}.items())
            return samples.get(("sliceflow_lag_records", key)) == 0

        wait_until(is_level, what=f"the lag of {role}")
        assert scrapes.value(role, "sliceflow_ready") == 1
        assert scrapes.value(role, "sliceflow_assignments_total") >= 1
        assert scrapes.of(role)["process_resident_memory_bytes", frozenset()] > 1_000_000
    assert scrapes.value("encode", "sliceflow_encode_slices_sum") >= 1
    assert scrapes.value("recommend", "sliceflow_published_records_total", topic="recommendations") >= 1
    assert scrapes.value("recommend", "sliceflow_index_search_users_sum") >= 1
    assert scrapes.value("recommend", "sliceflow_index_items") > NUM_EVENTS
    total_s = scrapes.value("recommend", "sliceflow_freshness_seconds_sum")
    assert 0 < total_s < 60 * scrapes.value("recommend", "sliceflow_freshness_seconds_count")
