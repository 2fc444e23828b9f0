"""Breaking off and going on: the place file, what had arrived behind it, and replays killed on a real broker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker import EmbeddedBroker
from stream_app.errors import UsageError
from stream_app.preflight import ensure_topics
from stream_app.records import STRICT_HEADER, TICK_HEADER
from stream_app.replay.pausing import Pauses
from stream_app.replay.place import FORMAT, Arrived, Keeping, Place, PlaceFile, check_same
from stream_app.replay.planning import PlannedRecord, ReplayPlan
from stream_app.replay.producer import replay_log
from stream_app.replay.readers import EventLog, open_log
from stream_app.settings import KafkaSettings, Settings
from stream_app.topic_reader import StoredRecord
from tests.replay.test_producer import events_of
from tests.support import DEADLINE_S, read_all, wait_until

NUM_PARTITIONS = 2
EPOCH_MS = 1000
STRICT = [(STRICT_HEADER, b"1")]


def place_of(**changes: Any) -> Place:
    """Some place."""
    facts = {"format": FORMAT, "identity": {"log": {"file": "x"}}, "num_rows": 7, "ends": {0: 3}, "before": {"a": 1}}
    return Place(**{**facts, **changes})


def test_a_place_is_kept_and_forgotten(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path))
    file = PlaceFile(settings, "events", "log.ndjson")
    with pytest.raises(UsageError, match="no replay to go on with"):
        file.read()
    file.write(place_of())
    assert PlaceFile(settings, "events", "log.ndjson").read() == place_of()
    assert PlaceFile(settings, "events", "other").path != file.path != PlaceFile(settings, "e2", "log.ndjson").path
    file.write(place_of(num_rows=8))  # too soon after the first
    assert file.read().num_rows == 7
    file.write(place_of(num_rows=9), is_due=True)
    assert file.read().num_rows == 9
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]
    file.remove()
    assert not list(file.path.parent.iterdir())


def test_what_a_killed_process_left_goes_with_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = PlaceFile(Settings(state_dir=str(tmp_path)), "events", "log.ndjson")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", _die)
        file.write(place_of(), is_due=True)
    assert len(list(file.path.parent.iterdir())) == 1
    file.remove()
    assert not list(file.path.parent.iterdir())


def _die(*_: object) -> None:
    """Stands for a kill just before the file is put into its place."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format":2,"identity":{},"num_rows":1,"ends":{},"before":{}}'])
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    file = PlaceFile(Settings(state_dir=str(tmp_path)), "events", "log.ndjson")
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(content)
    with pytest.raises(UsageError, match=str(file.path)) as caught:
        file.read()
    assert "without --resume" in caught.value.mend


def test_another_replay_does_not_go_on() -> None:
    check_same(place_of(), {"log": {"file": "x"}})
    with pytest.raises(UsageError, match=r'another log: {"file":"x"}, this one has {"file":"y"}'):
        check_same(place_of(), {"log": {"file": "y"}})
    with pytest.raises(UsageError, match="another limit: null, this one has 5"):
        check_same(place_of(), {"log": {"file": "x"}, "limit": 5})


EVENTS = st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=2)), max_size=20)


@given(EVENTS, st.integers(0, 20), st.integers(0, 20))
def test_what_has_arrived_of_each_partition_is_not_sent_again(
    events: list[tuple[int, bytes]], num_first: int, num_second: int
) -> None:
    planned = [PlannedRecord(partition, 0, b"k", value, STRICT) for partition, value in events]
    with_ticks = [one for event in planned for one in (PlannedRecord(0, 0, None, b"", [(TICK_HEADER, b"1")]), event)]
    lanes = [[one for one in planned if one.partition == number] for number in (0, 1)]
    kept = [lane[:num] for lane, num in zip(lanes, (num_first, num_second), strict=True)]
    arrived = Arrived(
        StoredRecord("events", one.partition, place, 0, one.key, one.value, tuple(STRICT))
        for lane in kept
        for place, one in enumerate(lane)
    )
    sent = list(arrived.missing(with_ticks))
    assert sum(TICK_HEADER in dict(one.headers) for one in sent) == len(planned)
    for number, lane in enumerate(lanes):
        events_sent = [one for one in sent if one.partition == number and one.headers == STRICT]
        assert events_sent == lane[len(kept[number]) :]


def test_something_else_on_the_topic_is_told() -> None:
    arrived = Arrived([StoredRecord("events", 0, 41, 0, b"k", b"other", tuple(STRICT))])
    with pytest.raises(UsageError, match=r"events\[0\] has at offset 41"):
        list(arrived.missing([PlannedRecord(0, 0, b"k", b"mine", STRICT)]))


# ---------------------------------------------------------------- on a broker


def settings_for(broker: EmbeddedBroker, prefix: str, folder: Path) -> Settings:
    """Settings of one test, with all topics there."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    settings = Settings(kafka=kafka, prefix=prefix, partitions=NUM_PARTITIONS, epoch_s=1.0, state_dir=str(folder))
    ensure_topics(settings, create=True)
    return settings


def write_log(folder: Path, num_events: int) -> Path:
    """Events 100 ms apart, of five users, a few of them repeated, with lines that are none between."""
    lines = []
    for n in range(num_events):
        event = {"user_id": f"u{n % 5}", "item_id": f"i{n}", "type": "click", "ts": 10**12 + 100 * n}
        lines += [orjson.dumps(event)] * (2 if n % 7 == 0 else 1) + ([b"{"] if n % 11 == 0 else [])
    path = folder / "log.ndjson"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def planned_lanes(log: EventLog) -> list[list[Any]]:
    """Key and value of all events, by partition, as one whole replay sends them."""
    plan = ReplayPlan(NUM_PARTITIONS, EPOCH_MS)
    records = [one for chunk in log.iter_chunks() for one in plan.records_of(chunk)]
    return [
        [(one.key, one.value) for one in records if one.partition == number and TICK_HEADER not in dict(one.headers)]
        for number in range(NUM_PARTITIONS)
    ]


def found_lanes(settings: Settings) -> list[list[Any]]:
    """The same of what lies on the topic."""
    found = asyncio.run(read_all(settings.kafka.bootstrap_servers, f"{settings.prefix}events", NUM_PARTITIONS))
    events = events_of(found)
    return [[(one.key, one.value) for one in events if one.partition == number] for number in range(NUM_PARTITIONS)]


def marks_of(settings: Settings, partition: int) -> list[bytes]:
    """The ticks of a partition, in order."""
    found = asyncio.run(read_all(settings.kafka.bootstrap_servers, f"{settings.prefix}events", NUM_PARTITIONS))
    marks = [dict(one.headers).get(TICK_HEADER) for one in found if one.partition == partition]
    return [mark for mark in marks if mark is not None]


async def replay_part(settings: Settings, log: EventLog, stop_after: int | None, *, goes_on: bool) -> bool:
    """Replay until so many events are sent, a few at a time; whether that was all."""
    stop = asyncio.Event()
    file = PlaceFile(settings, f"{settings.prefix}events", "log")
    keeping = Keeping(file, {}, file.read() if goes_on else None)

    def on_sent(num_sent: int) -> None:
        if stop_after is not None and num_sent >= stop_after:
            stop.set()

    counted = await replay_log(log, settings, speed=100.0, stop=stop, keeping=keeping, on_sent=on_sent)
    return not counted.is_broken_off


@pytest.mark.kafka
def test_a_replay_that_is_stopped_goes_on_where_it_stood(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    log = open_log(write_log(tmp_path, 900))
    assert not asyncio.run(replay_part(settings, log, 100, goes_on=False))
    assert not asyncio.run(replay_part(settings, log, 300, goes_on=True))
    assert asyncio.run(replay_part(settings, log, None, goes_on=True))
    assert found_lanes(settings) == planned_lanes(log)
    for partition in range(NUM_PARTITIONS):
        marks = marks_of(settings, partition)
        times = [int(mark.split()[0]) for mark in marks]
        assert times == sorted(times)
        # Let go of twice, then at the end; taken up again twice, at the very same time.
        last = [place for place, mark in enumerate(marks) if mark.endswith(b"last")]
        assert [marks[place + 1] for place in last[:-1]] == [marks[place].split()[0] for place in last[:-1]]
        assert (len(last), last[-1]) == (3, len(marks) - 1)
    # All is sent: going on once more only says so.
    assert asyncio.run(replay_part(settings, log, None, goes_on=True))
    assert found_lanes(settings) == planned_lanes(log)


@pytest.mark.kafka
def test_others_may_send_meanwhile_but_no_other_replay(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    log = open_log(write_log(tmp_path, 300))
    assert not asyncio.run(replay_part(settings, log, 100, goes_on=False))

    async def send(headers: list[tuple[str, bytes]]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
            await producer.send_and_wait(f"{topic_prefix}events", b"live", key=b"k", partition=0, headers=headers)

    asyncio.run(send([]))
    assert not asyncio.run(replay_part(settings, log, 200, goes_on=True))
    asyncio.run(send(STRICT))
    with pytest.raises(UsageError, match="an event of another replay"):
        asyncio.run(replay_part(settings, log, None, goes_on=True))
    changed = open_log(write_log(tmp_path, 299))
    with pytest.raises(UsageError, match="another log"):
        asyncio.run(replay_part(settings, changed, None, goes_on=True))


def start_command(settings: Settings, path: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command as a process of its own, paced so that it takes seconds."""
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SLICEFLOW_", "KAFKA_"))},
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "SLICEFLOW_PREFIX": settings.prefix,
        "SLICEFLOW_PARTITIONS": str(NUM_PARTITIONS),
        "SLICEFLOW_EPOCH_S": "1",
        "SLICEFLOW_STATE_DIR": settings.state_dir,
    }
    args = ["replay", str(path), "--no-wait", "--json", *options]
    command = [sys.executable, "-m", "stream_app.cli", *args]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def num_events(settings: Settings) -> int:
    """How many events lie on the topic."""
    return sum(map(len, found_lanes(settings)))


@pytest.mark.kafka
@pytest.mark.slow
def test_a_replay_that_is_killed_again_and_again_sends_every_event_once(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    path = write_log(tmp_path, 3000)
    total = sum(map(len, planned_lanes(open_log(path))))
    for place in range(3):
        process = start_command(settings, path, "--speed", "x60", *(["--resume"] if place else []))
        goal = total * (place + 1) // 5
        wait_until(lambda goal=goal: num_events(settings) > goal, what=f"{goal} events")  # type: ignore[misc]
        process.kill()
        process.communicate()
    assert num_events(settings) < total
    process = start_command(settings, path, "--resume")
    facts = orjson.loads(process.communicate(timeout=DEADLINE_S)[0])
    assert process.returncode == 0
    assert (facts["events_in"], facts["users"]) == (total, 5)
    assert found_lanes(settings) == planned_lanes(open_log(path))
    assert not list((tmp_path / "replays").iterdir())


@pytest.mark.kafka
@pytest.mark.slow
def test_the_terminal_can_stop_a_replay_and_let_it_go_on(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    path = write_log(tmp_path, 600)
    process = start_command(settings, path, "--speed", "x10")
    wait_until(lambda: num_events(settings) > 20)
    process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP
    stopped = found_lanes(settings)
    lanes = planned_lanes(open_log(path))
    assert 20 < sum(map(len, stopped)) < sum(map(len, lanes))
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: num_events(settings) > sum(map(len, stopped)))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=DEADLINE_S)
    facts = orjson.loads(output)
    assert facts["broken_off"] and Path(facts["place"]).is_file()
    found = found_lanes(settings)
    assert [lane[: len(part)] for lane, part in zip(lanes, found, strict=True)] == found


@pytest.mark.kafka
@pytest.mark.slow
def test_a_pause_of_the_command_ends_with_a_signal(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    path = write_log(tmp_path, 60)
    process = start_command(settings, path, "--pause-at", f"{10**12 + 3000}ms")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith(b"paused after %d events; " % num_events(settings))
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, "broken_off" in orjson.loads(output)) == (0, False)
    assert found_lanes(settings) == planned_lanes(open_log(path))


@pytest.mark.kafka
@pytest.mark.parametrize("speed", [None, 1000.0])
def test_a_replay_stands_still_at_the_time_asked_for(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path, speed: float | None
) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    log = open_log(write_log(tmp_path, 90))
    at_ms = 10**12 + 4250

    async def story() -> tuple[list[int], int]:
        told: list[int] = []
        paused = asyncio.Event()

        def on_pause(num_sent: int) -> None:
            told.append(num_sent)
            paused.set()

        pauses = Pauses(at_ms, on_pause)
        replaying = asyncio.create_task(replay_log(log, settings, speed=speed, pauses=pauses))
        await asyncio.wait_for(paused.wait(), DEADLINE_S)
        found = await read_all(broker.bootstrap_servers, f"{topic_prefix}events", NUM_PARTITIONS)
        assert not replaying.done()
        pauses.go_on.set()
        await asyncio.wait_for(replaying, DEADLINE_S)
        return told, len(events_of(found))

    told, num_before = asyncio.run(story())
    rows = [row for chunk in log.iter_chunks() for row in chunk]
    expected = next(place for place, row in enumerate(rows) if isinstance(row, dict) and row["ts"] == 10**12 + 4300)
    assert told == [num_before] == [expected]
    assert found_lanes(settings) == planned_lanes(log)


@pytest.mark.kafka
def test_a_paused_replay_can_be_stopped(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    settings = settings_for(broker, topic_prefix, tmp_path)
    log = open_log(write_log(tmp_path, 20))

    async def story() -> tuple[int, bool]:
        stop = asyncio.Event()
        counted = await replay_log(log, settings, stop=stop, pauses=Pauses(10**12 + 500, lambda _: stop.set()))
        return counted.num_events, counted.is_broken_off

    assert asyncio.run(asyncio.wait_for(story(), DEADLINE_S)) == (7, True)
