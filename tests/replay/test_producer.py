"""Replaying to a real broker: what lies on the topics afterwards, and what is refused before anything is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.errors import LogFormatError, TopicMismatchError, UsageError
from stream_app.preflight import ensure_topics
from stream_app.records import TICK_HEADER
from stream_app.replay.planning import Counted, ReplayPlan
from stream_app.replay.producer import check_types, item_record, replay_log, send_items
from stream_app.replay.readers import EventLog, open_log
from stream_app.settings import KafkaSettings, Settings
from tests.support import DEADLINE_S, read_all

NUM_PARTITIONS = 2


def settings_for(broker: EmbeddedBroker, prefix: str) -> Settings:
    """Settings of one test."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    return Settings(kafka=kafka, prefix=prefix, partitions=NUM_PARTITIONS, epoch_s=1.0)


def write_log(folder: Path, num_events: int, bad: bytes = b"") -> EventLog:
    """A log of events 100 ms apart, of five users."""
    lines = [
        orjson.dumps({"user_id": f"u{n % 5}", "item_id": f"i{n}", "type": "click", "ts": 10**12 + 100 * n})
        for n in range(num_events)
    ]
    path = folder / "log.ndjson"
    path.write_bytes(b"\n".join([*lines, *([bad] if bad else [])]) + b"\n")
    return open_log(path)


def events_of(records: list[Any]) -> list[Any]:
    """The records that are no ticks."""
    return [record for record in records if TICK_HEADER not in dict(record.headers)]


@pytest.mark.kafka
def test_a_log_lies_on_the_topic_as_it_was_planned(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    settings = settings_for(broker, topic_prefix)
    ensure_topics(settings, create=True)
    log = write_log(tmp_path, 5000, bad=b"{broken")
    counted = asyncio.run(replay_log(log, settings))
    assert (counted.num_events, counted.num_malformed, len(counted.users)) == (5001, 1, 5)

    found = asyncio.run(read_all(broker.bootstrap_servers, f"{topic_prefix}events", NUM_PARTITIONS))
    plan = ReplayPlan(NUM_PARTITIONS, settings.epoch_ms)
    rows = [row for chunk in log.iter_chunks() for row in chunk]
    expected = [*plan.records_of(rows), *plan.last_ticks()]
    for partition in range(NUM_PARTITIONS):
        seen = [(r.timestamp, r.key, r.value, list(r.headers)) for r in found if r.partition == partition]
        wanted = [tuple(record[1:]) for record in expected if record.partition == partition]
        assert seen == wanted


@pytest.mark.kafka
def test_a_stopped_replay_lets_go_of_the_clock_where_it_stands(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix)
    ensure_topics(settings, create=True)
    log = write_log(tmp_path, 20)

    async def story() -> Counted:
        stop = asyncio.Event()
        # A hundredth of real time: after the first event the next one is far away.
        counted = await replay_log(log, settings, speed=0.01, stop=stop, on_sent=lambda _: stop.set())
        return counted

    counted = asyncio.run(asyncio.wait_for(story(), DEADLINE_S))
    assert (counted.num_events, counted.is_broken_off) == (1, True)
    found = asyncio.run(read_all(broker.bootstrap_servers, f"{topic_prefix}events", NUM_PARTITIONS))
    assert len(events_of(found)) == 1
    ends = [dict(record.headers)[TICK_HEADER] for record in found if record not in events_of(found)]
    assert [ends.count(mark) for mark in (b"%d" % 10**12, b"%d last" % 10**12)] == [NUM_PARTITIONS] * 2
    assert len(ends) == 2 * NUM_PARTITIONS


@pytest.mark.kafka
def test_nothing_is_sent_of_a_log_whose_types_nobody_named(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix)
    ensure_topics(settings, create=True)
    path = tmp_path / "log.ndjson"
    path.write_text('{"user_id":"a","item_id":"i","type":"VIEW","ts":1700000000000}\n')
    with pytest.raises(UsageError, match="VIEW"):
        asyncio.run(replay_log(open_log(path), settings))
    assert not asyncio.run(read_all(broker.bootstrap_servers, f"{topic_prefix}events", NUM_PARTITIONS))
    sent = asyncio.run(replay_log(open_log(path), settings, send_unknown_types=True))
    assert sent.num_events == 1
    sent = asyncio.run(replay_log(open_log(path), settings, type_map={"VIEW": "browse"}, limit=1))
    assert sent.num_events == 1


@pytest.mark.kafka
def test_a_missing_topic_is_told(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    with pytest.raises(TopicMismatchError, match=f"{topic_prefix}events"):
        asyncio.run(replay_log(write_log(tmp_path, 1), settings_for(broker, topic_prefix)))


@pytest.mark.kafka
def test_items_go_to_their_topic(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    settings = settings_for(broker, topic_prefix)
    ensure_topics(settings, create=True)
    path = tmp_path / "items.ndjson"
    path.write_text('{"item":1,"name":"One","genres":"a|b"}\n{"item":"2"}\n')
    assert asyncio.run(send_items(path, settings)) == 2
    found = asyncio.run(read_all(broker.bootstrap_servers, f"{topic_prefix}items", NUM_PARTITIONS))
    assert {record.key: orjson.loads(record.value) for record in found} == {
        b"1": {"item_id": "1", "title": "One", "tags": ["a", "b"]},
        b"2": {"item_id": "2"},
    }


def test_the_message_names_the_types_and_two_ways_out() -> None:
    rows: list[Any] = [{"type": "VIEW"}, {"type": "click"}, b"{", {"type": "buy"}]
    with pytest.raises(UsageError) as caught:
        check_types(rows, ReplayPlan(1, 1000, type_map={"buy": "purchase"}), Settings())
    assert "VIEW" in caught.value.message and "buy" not in caught.value.message
    assert "--type-map VIEW=click" in caught.value.mend
    assert "--send-unknown-types" in caught.value.mend


def test_an_item_with_a_field_of_another_kind_is_refused() -> None:
    with pytest.raises(LogFormatError, match="'7'"):
        item_record({"item_id": "7", "price": "cheap"}, 1, 0)
