"""Bad records, through a real sequence worker: each becomes one dead letter that names its rule; the others go on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.preflight import ensure_topics
from stream_app.settings import Settings, parse_settings
from tests.support import read_all, wait_until

pytestmark = [pytest.mark.kafka]

NOW_MS = 1_700_000_000_000


def good(**changes: Any) -> bytes:
    """A valid event with some fields changed; a field set to None is left out."""
    event = {"user_id": "u1", "item_id": "i1", "type": "click", "ts": NOW_MS, **changes}
    return orjson.dumps({name: value for name, value in event.items() if value is not None})


BAD: dict[str, tuple[bytes | None, bytes | None]] = {
    "not JSON": (b"u1", b"click!"),
    "an array": (b"u1", b"[1]"),
    "a wrong type": (b"u1", good(item_id=7)),
    "a missing field": (b"u1", good(item_id=None)),
    "a null value": (b"u1", None),
    "a null key": (None, good()),
    "another key": (b"u2", good()),
    "bad UTF-8": (b"u1", good().replace(b"i1", b"\xff\xfe")),
    "deep nesting": (b"u1", b'{"user_id":"u1","context":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "a huge number": (b"u1", good().replace(str(NOW_MS).encode(), b"9" * 400)),
    "NaN": (b"u1", good(price=1).replace(b'"price":1', b'"price":NaN')),
    "a duplicate key": (b"u1", good().replace(b'"type"', b'"item_id":"i2","type"')),
    "an unknown type": (b"u1", good(type="gaze")),
    "an empty id": (b"u1", good(item_id="")),
    "a long id": (b"u1", good(item_id="i" * 300)),
    "a time in the future": (b"u1", good(ts=NOW_MS + 10 * 86_400_000)),
    "a negative time": (b"u1", good(ts=-5)),
    "an oversize value": (b"u1", good(query="q" * 200_000)),
}


@pytest.fixture
def settings(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Settings:
    made = parse_settings(
        {
            "kafka": {"bootstrap_servers": broker.bootstrap_servers},
            "prefix": topic_prefix,
            "state_dir": str(tmp_path),
            "partitions": 1,
        }
    )
    ensure_topics(made, create=True)
    return made


@pytest.fixture
def sequence_worker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "SLICEFLOW_PREFIX": settings.prefix,
        "SLICEFLOW_STATE_DIR": settings.state_dir,
        "SLICEFLOW_PARTITIONS": "1",
    }
    command = [sys.executable, "-m", "stream_app.cli", "worker", "sequence"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    yield process
    process.terminate()
    assert process.wait(30) == 0
    if process.stdout is not None:
        process.stdout.close()


async def _send(settings: Settings, records: list[tuple[bytes | None, bytes | None]]) -> None:
    topic = topics.prefixed(settings.prefix, topics.EVENTS)
    async with AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers, max_request_size=4_000_000
    ) as producer:
        for key, value in records:
            await producer.send_and_wait(topic, value, key=key, partition=0, timestamp_ms=NOW_MS)


def _read(settings: Settings, name: str) -> list[Any]:
    servers = settings.kafka.bootstrap_servers
    return asyncio.run(read_all(servers, topics.prefixed(settings.prefix, name), 1))


def _newest_status(settings: Settings, num_events: int) -> dict[str, Any] | None:
    for record in reversed(_read(settings, topics.STATUS)):
        status: dict[str, Any] = orjson.loads(record.value)
        return status if status["events"] == num_events else None
    return None


def test_each_bad_record_is_a_dead_letter_and_disturbs_nothing(
    settings: Settings, sequence_worker: subprocess.Popen[bytes]
) -> None:
    bad = list(BAD.values())
    records = [(b"u1", good(item_id="first")), *bad, (b"u1", good(item_id="last", ts=NOW_MS + 1))]
    asyncio.run(_send(settings, records))

    status = wait_until(lambda: _newest_status(settings, len(records)), what="all records to be counted")
    assert status is not None
    assert (status["applied"], status["dead_lettered"], status["dropped"]) == (2, len(bad), {})

    letters = _read(settings, topics.DEAD_LETTER)
    facts = [{name: value.decode() for name, value in letter.headers} for letter in letters]
    assert [int(fact["offset"]) for fact in facts] == list(range(1, 1 + len(bad)))
    events = topics.prefixed(settings.prefix, topics.EVENTS)
    for fact, letter, (name, (key, value)) in zip(facts, letters, BAD.items(), strict=True):
        assert fact["topic"] == events and fact["partition"] == "0", name
        assert fact["class"] == "rejected" and fact["reason"] and fact["detail"], name
        assert letter.key == key and letter.value == (value or b""), name
    assert len({fact["reason"] for fact in facts}) >= 12

    # A record without a key is a mark of progress, and no slice.
    slices = [orjson.loads(record.value) for record in _read(settings, topics.SLICES) if record.key]
    assert [event[0] for event in slices[-1]["events"]] == ["first", "last"]
