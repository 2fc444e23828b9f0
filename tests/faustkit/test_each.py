"""Records one by one: what a handler is asked, what becomes of its answers, and a process that does both kinds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.each import Event, Handler, Outcome, each
from stream_app.faustkit.effects import Effects, OutRecord
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import Stored
from tests.faustkit.agents import PLAIN, Task
from tests.faustkit.stage import Process, Stage
from tests.support import committed, create_topics, publish, wait_until

NUM_PARTITIONS = 4


class Kept(dict[bytes, Stored]):
    """Values in memory."""

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """The values of `keys`, in their order."""
        return [self.get(key) for key in keys]


def run_of_keys(offset: int, keys: Sequence[bytes | None]) -> Run:
    """Records with these keys, at every second offset from `offset` on; each value is its offset."""
    offsets = [offset + 2 * place for place in range(len(keys))]
    return Run(
        topic="t",
        partition=3,
        offsets=offsets,
        keys=keys,
        values=[b"%d" % number for number in offsets],
        timestamps_ms=[1000 + number for number in offsets],
        headers=[(("h", b"%d" % number),) for number in offsets],
    )


async def count(event: Event, value: bytes | None) -> Outcome:
    """Count the events of each key, and tell the count."""
    number = int(value or b"0") + 1
    return Outcome([OutRecord("counts", event.partition, event.key, b"%d" % number)], b"%d" % number)


def process(handler: Handler, run: Run, kept: Kept) -> Effects:
    """What a new processor answers."""
    return asyncio.run(each(handler)(run.partition).process(run, kept))


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1), st.data())
def test_whole_runs_and_single_records_come_to_the_same(keys: list[bytes], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(keys)))
    kept = Kept()
    outputs = []
    for offset, part in ((0, keys[:cut]), (2 * cut, keys[cut:])):
        if part:
            effects = process(count, run_of_keys(offset, part), kept)
            outputs += effects.outputs
            kept.update(effects.changes)
    counts = [Counter(keys[: place + 1])[key] for place, key in enumerate(keys)]
    assert [output.value for output in outputs] == [b"%d" % number for number in counts]
    last = {key: 2 * place for place, key in enumerate(keys)}
    assert kept == {key: Stored(last[key], b"%d" % number) for key, number in Counter(keys).items()}


def test_a_replay_is_not_asked_about() -> None:
    keys = [b"a", b"b", b"a"]
    kept = Kept({b"a": Stored(12, b"1")})
    effects = process(count, run_of_keys(10, keys), kept)
    # 10 and 14 are of a, and what 10 caused is in its value.
    assert [(output.key, output.value) for output in effects.outputs] == [(b"b", b"1"), (b"a", b"2")]
    assert effects.changes == {b"b": Stored(12, b"1"), b"a": Stored(14, b"2")}
    kept.update(effects.changes)
    assert process(count, run_of_keys(10, keys), kept) == Effects()


def test_a_handler_sees_all_of_a_record() -> None:
    seen = []

    async def look(event: Event, value: bytes | None) -> Outcome:
        seen.append((event, value))
        return Outcome()

    effects = process(look, run_of_keys(8, [None, b"k"]), Kept({b"k": Stored(1, b"old")}))
    assert seen == [
        (Event("t", 3, 8, None, b"8", 1008, (("h", b"8"),)), None),
        (Event("t", 3, 10, b"k", b"10", 1010, (("h", b"10"),)), b"old"),
    ]
    assert effects == Effects()


def test_an_empty_value_is_kept_and_no_value_changes_nothing() -> None:
    async def mark(event: Event, value: bytes | None) -> Outcome:
        return Outcome(value=b"" if event.key == b"a" else None)

    effects = process(mark, run_of_keys(0, [b"a", b"b"]), Kept({b"b": Stored(0, b"x")}))
    assert effects.changes == {b"a": Stored(0, b"")}


def test_a_record_without_key_keeps_no_value() -> None:
    with pytest.raises(ValueError, match="record at offset 6 has no key"):
        process(count, run_of_keys(6, [None]), Kept())


@pytest.mark.kafka
def test_agents_and_runs_in_one_process_through_a_death(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    """Two workers count runs and have an agent beside; one is killed, and the other takes over both."""
    stage = Stage(broker.bootstrap_servers, topic_prefix, tmp_path, NUM_PARTITIONS)
    notes = topic_prefix + "notes"
    asyncio.run(create_topics(stage.servers, {notes: NUM_PARTITIONS}))
    num_sent = 0

    def send(num: int) -> None:
        nonlocal num_sent
        stage.send(NUM_PARTITIONS * num)
        records = [(notes, number, None, PLAIN) for number in range(NUM_PARTITIONS)]
        asyncio.run(publish(stage.servers, records * num))
        num_sent += num

    def start(worker: str) -> Process:
        whole: dict[str, Any] = {"kind": "ours", "servers": stage.servers, "prefix": topic_prefix, "worker": worker}
        task = Task(folder=str(tmp_path / worker), topic="notes", counts="inputs", **whole)
        return Process(["tests.faustkit.agents", msgspec.json.encode(task).decode()], tmp_path / f"{worker}.log")

    def wait_all_committed() -> None:
        def all_notes() -> bool:
            offsets = asyncio.run(committed(stage.servers, topic_prefix + "counting", notes, NUM_PARTITIONS))
            return offsets == [num_sent] * NUM_PARTITIONS

        stage.wait_committed()
        wait_until(all_notes, what="all notes to be committed")

    send(20)
    with start("first") as first, start("second") as second:
        first.wait_for("ready")
        second.wait_for("ready")
        while not ("done" in second.text() and {told.worker for told in stage.told()} == {"first", "second"}):
            assert num_sent < 2000, "one of the workers gets nothing"
            send(20)
            wait_all_committed()
        send(50)
        second.kill()
        send(20)
        wait_all_committed()
        assert first.terminate() == 0
    stage.check("first")
    lines = set((first.text() + second.text()).splitlines())
    assert {f"done {part}:{offset}" for part in range(NUM_PARTITIONS) for offset in range(num_sent)} <= lines
