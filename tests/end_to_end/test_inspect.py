"""Inspecting the running system: the list made anew is the published one, item by item; without an event it is the one
that a log without that event would have given. Nothing is written, and no group is joined.

The log has repeats, refused events, and late ones that repair slices which were merged already.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from stream_app.broker import EmbeddedBroker
from stream_app.demo import CONFIG_FILE, MODEL_FOLDER
from stream_app.errors import SliceflowError
from stream_app.inspection.from_topics import BY_PUBLISHED, BY_TICKS, LEARNED_WITH_EVENT, inspect_topics
from stream_app.inspection.question import Question
from stream_app.inspection.report import PUBLISHED, RECOMPUTED, Inspection, Snapshot
from stream_app.kafka import admin_client, partition_of
from stream_app.local_broker import with_broker
from stream_app.preflight import ensure_topics
from stream_app.recording import RecordedList
from stream_app.records import Event, encode
from stream_app.replay.caught_up import wait_caught_up
from stream_app.replay.producer import replay_log, send_items
from stream_app.replay.readers import open_log
from stream_app.settings import Settings, load_settings
from stream_app.topic_reader import TopicReader
from stream_app.topics import EVENTS, topic_specs
from tests.bench.stack import running_roles
from tests.cli.conftest import Cli
from tests.end_to_end.conftest import SAMPLE
from tests.replay_cases import MINUTE_MS, replayed, row_of, sample_rows

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NUM_EVENTS = 500
LATE_USER, LIVE_USER = "late-one", "live-one"

LIVE_MINUTES = (0, 40, 80, 1, 120)
"""When the live events are, after the end of the log; the one before the last comes late, into the first slice."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Replayed:
    """A log that went through the roles on Kafka, its file, and the lists of a replay of any rows without Kafka."""

    settings: Settings
    rows: Sequence[Row]
    file: Path

    def lists(self, rows: Sequence[Row]) -> dict[str, RecordedList]:
        """The last list of each user, made in one process."""
        recording, _ = replayed(self.settings, [rows])
        return {record.user_id: record for record in recording.records() if isinstance(record, RecordedList)}

    def numbers(self, user: str) -> list[int]:
        """The places of a user's rows."""
        return [number for number, row in enumerate(self.rows) if row["user_id"] == user]


def log_rows() -> list[Row]:
    """The first events of the sample, some twice, some refused; and a user whose late events repair merged slices."""
    sample = sample_rows(NUM_EVENTS)
    rows: list[Row] = []
    for number, row in enumerate(sample):
        rows.append(row)
        if number % 50 == 7:
            rows.append(row)
        if number % 90 == 11:
            rows.append({**row, "type": "gaze"})
    start_ms = sample[0]["ts"]
    own = [row_of(LATE_USER, sample[place]["item_id"], start_ms + place * 40 * MINUTE_MS) for place in range(12)]
    for place, row in enumerate(own):
        found = next(number for number, other in enumerate(rows) if other["ts"] >= row["ts"])
        rows.insert(found, row)
        if place % 3 == 2:
            # A minute after the event before the last: into a slice that is merged by now.
            late = row_of(LATE_USER, sample[20 + place]["item_id"], own[place - 1]["ts"] + MINUTE_MS)
            rows.insert(found + 1, late)
    return rows


async def through_roles(settings: Settings, file: Path, items: Path) -> None:
    """Replay the log through all roles, then send a few live events."""
    await send_items(items, settings)
    async with running_roles(settings) as roles:
        assert roles.supervisor is not None
        await roles.supervisor.watch(_replay(settings, file))


async def _replay(settings: Settings, file: Path) -> None:
    await replay_log(open_log(file), settings, send_unknown_types=True)
    await wait_caught_up(settings)
    last_ms = log_rows()[-1]["ts"]
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        for minutes, row in zip(LIVE_MINUTES, sample_rows(20)[10:], strict=False):
            ts = last_ms + minutes * MINUTE_MS
            event = Event(user_id=LIVE_USER, item_id=row["item_id"], type="click", ts=ts)
            await producer.send_and_wait(
                settings.prefix + EVENTS, encode(event), key=LIVE_USER.encode(), timestamp_ms=ts
            )
            # Each in a run of its own, so that the slice that the late one repairs was merged before.
            await wait_caught_up(settings)


async def state_of(settings: Settings) -> tuple[dict[str, Any], list[Any]]:
    """The bounds of every topic, and the consumer groups."""
    async with TopicReader(settings) as reader:
        names = [spec.name for spec in topic_specs(settings.prefix, settings.partitions)]
        bounds = {name: await reader.bounds(name) for name in names}
    async with admin_client(settings) as admin:
        groups = sorted(name for name, _ in await admin.list_consumer_groups() if name.startswith(settings.prefix))
    return bounds, groups


@pytest.fixture(scope="module")
def replayed_log(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """The log, after the roles have worked it off and stopped."""
    folder = tmp_path_factory.mktemp("inspect")
    overrides = {
        "prefix": "t-inspect-",
        "state_dir": str(folder / "state"),
        "model": str(SAMPLE / MODEL_FOLDER),
        "partitions": 3,
    }
    settings = with_broker(
        load_settings(SAMPLE / CONFIG_FILE, environ={}, overrides=overrides), broker.bootstrap_servers
    )
    rows = log_rows()
    file, items = folder / "events.ndjson", folder / "items.ndjson"
    file.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
    items.write_bytes(orjson.dumps({"item_id": "unheard-of", "title": "Unheard of"}) + b"\n")
    ensure_topics(settings, create=True)
    asyncio.run(through_roles(settings, file, items))
    return Replayed(settings, rows, file)


def inspect(made: Replayed, user: str, at_ms: int | None = None, without: str | None = None) -> Inspection:
    return inspect_topics(made.settings, Question(user, at_ms, without))[0]


def sampled_users(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Users with several events, in order, and some others."""
    counted: dict[str, int] = {}
    for row in rows:
        counted[row["user_id"]] = counted.get(row["user_id"], 0) + 1
    del counted[LATE_USER]
    several = [user for user, num in counted.items() if num > 3]
    return several[:12] + [user for user, num in counted.items() if num == 1][:3]


def assert_published(snapshot: Snapshot) -> None:
    assert snapshot.answer is not None and snapshot.vector is not None
    assert (snapshot.answer.origin, snapshot.answer.epoch_by) == (PUBLISHED, BY_PUBLISHED)
    assert snapshot.answer.differences == []
    assert snapshot.vector.is_as_published is True
    assert [(one.item_id, one.score, one.sources) for one in snapshot.candidates if one.is_listed] == [
        (item.item_id, item.score, item.sources) for item in snapshot.answer.recommendation.items
    ]


def test_lists_made_anew_are_the_published_ones(replayed_log: Replayed) -> None:
    before = asyncio.run(state_of(replayed_log.settings))
    lists = replayed_log.lists(replayed_log.rows)
    for user in [*sampled_users(replayed_log.rows), LATE_USER]:
        made = inspect(replayed_log, user)
        assert made.notes == []
        assert_published(made.snapshot)
        assert made.snapshot.answer is not None
        assert made.snapshot.answer.recommendation.epoch == lists[user].epoch
        assert len(made.snapshot.events) == len(replayed_log.numbers(user))
    assert asyncio.run(state_of(replayed_log.settings)) == before


def test_late_events_are_told_and_repaired_vectors_have_the_published_bytes(replayed_log: Replayed) -> None:
    for user, num_late in ((LATE_USER, 4), (LIVE_USER, 1)):
        made = inspect(replayed_log, user).snapshot
        assert [event.outcome for event in made.events].count("applied_late") == num_late
        assert max(part.revision for part in made.slices) > 2
        assert_published(made)


def test_a_live_list_is_made_anew_with_the_epoch_that_it_names(replayed_log: Replayed) -> None:
    events = inspect(replayed_log, LIVE_USER).snapshot.events
    for event in events:
        if event.outcome == "applied":
            assert event.ts is not None
            assert_published(inspect(replayed_log, LIVE_USER, event.ts).snapshot)
    made = inspect(replayed_log, LIVE_USER, without=str(events[1].offset))
    assert made.without is not None and made.snapshot.answer is not None
    listed = {item.item_id for item in made.snapshot.answer.recommendation.items}
    left = {one.item_id for one in made.without.snapshot.candidates if one.is_listed}
    assert set(made.without.changes.items_in) == left - listed
    assert [event.offset for event in made.without.snapshot.events].count(events[1].offset) == 0
    assert events[1].item_id not in {one.item_id for one in made.without.snapshot.removed}


def test_without_an_event_it_is_a_fresh_replay_without_it(replayed_log: Replayed) -> None:
    for place, user in enumerate([*sampled_users(replayed_log.rows)[:6], LATE_USER]):
        whole = inspect(replayed_log, user).snapshot.events
        number = place % len(whole)
        row = replayed_log.numbers(user)[number]
        expected = replayed_log.lists([*replayed_log.rows[:row], *replayed_log.rows[row + 1 :]])
        made = inspect(replayed_log, user, without=str(whole[number].offset))
        assert made.without is not None and made.without.snapshot.answer is not None
        answer = made.without.snapshot.answer
        assert answer.origin == RECOMPUTED
        if made.notes:
            assert made.notes == [LEARNED_WITH_EVENT]
            found = {item.item_id for item in answer.recommendation.items}
            assert expected[user].items[0].item_id in found, (user, number)
        else:
            assert answer.recommendation.items == expected[user].items, (user, number)
        assert answer.recommendation.epoch == expected[user].epoch


def test_as_of_a_time_it_is_a_replay_that_ends_there(replayed_log: Replayed) -> None:
    user = sampled_users(replayed_log.rows)[0]
    times = [replayed_log.rows[number]["ts"] for number in replayed_log.numbers(user)]
    for at_ms in times[:-1]:
        made = inspect(replayed_log, user, at_ms).snapshot
        expected = replayed_log.lists([row for row in replayed_log.rows if row["ts"] <= at_ms])[user]
        assert made.answer is not None
        assert (made.answer.recommendation.items, made.answer.recommendation.epoch) == (expected.items, expected.epoch)
        assert made.answer.differences in ([], None)  # a user's events of one run are answered by one list
        assert made.answer.epoch_by in (BY_PUBLISHED, BY_TICKS)


def test_who_is_not_there_is_named(replayed_log: Replayed) -> None:
    with pytest.raises(SliceflowError, match=r"no event of the user 'nobody' in t-inspect-events"):
        inspect(replayed_log, "nobody")
    with pytest.raises(SliceflowError, match="The first event"):
        inspect(replayed_log, LATE_USER, at_ms=0)


def test_the_command_reads_the_running_system(replayed_log: Replayed, tmp_path: Path) -> None:
    settings = replayed_log.settings
    cli = Cli(
        {
            "SLICEFLOW_HOME": str(tmp_path / "state"),
            "SLICEFLOW_CONFIG": str(SAMPLE / CONFIG_FILE),
            "SLICEFLOW_MODEL": settings.model,
            "SLICEFLOW_PREFIX": settings.prefix,
            "SLICEFLOW_PARTITIONS": str(settings.partitions),
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
            "COLUMNS": "200",
        }
    )
    shown = json.loads(cli.ok("inspect", LATE_USER, "--json"))
    assert shown["partition"] == partition_of(LATE_USER.encode(), settings.partitions)
    assert shown["snapshot"]["list"]["origin"] == "published"
    text = cli.ok("inspect", LATE_USER)
    assert "published; made anew it is the same, item by item" in text
    assert "user vector" in text and "; as published" in text
