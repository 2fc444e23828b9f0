"""The Kafka Streams peer: its outputs and its state are the oracle's."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import GroupCoordinatorNotAvailableError

from stream_app.broker import EmbeddedBroker
from stream_app.broker.jars import load_lock
from tests.bench.sequence.job import HISTORY_EVENTS, NUM_PARTITIONS, Event, Load, Task, Variant, oracle
from tests.bench.sequence.peers.kafka_streams.launch import (
    Guarantee,
    decode_state,
    read_lock,
    state_topic,
    version,
    why_not,
)
from tests.support import committed, create_topics, read_all, unique_topics, wait_until

REPOSITORY = Path(__file__).parents[5]
ENDED_BY_SIGTERM = 143
"""Java's exit status after a SIGTERM: 128 and the signal's number."""

LOAD = Load(num_events=3_000, num_users=20)
"""Small, and yet most users have more than `HISTORY_EVENTS` events."""

REASON = why_not()


@dataclass
class Expected:
    """What the oracle says of each user: all outputs in order, and the state in the end."""

    outputs: dict[bytes, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    states: dict[bytes, tuple[int, list[str]]] = field(default_factory=dict)


def expected_of(records: Iterable[tuple[bytes, bytes]]) -> Expected:
    kept = list(records)
    expected = Expected()
    for (key, _), output in zip(kept, oracle(kept), strict=True):
        expected.outputs[key].append(output)
    items: dict[bytes, list[str]] = defaultdict(list)
    for key, value in kept:
        items[key].append(msgspec.json.decode(value, type=Event).item_id)
    expected.states = {key: (len(all_items), all_items[-HISTORY_EVENTS:]) for key, all_items in items.items()}
    return expected


async def fill(servers: str, topic: str, records: Iterable[tuple[bytes, bytes]]) -> list[int]:
    """Send the records and wait for their acknowledgement; return how many each partition got."""
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
        sent = [await producer.send(topic, value, key=key) for key, value in records]
        partitions = [(await acknowledged).partition for acknowledged in sent]
    return [partitions.count(number) for number in range(NUM_PARTITIONS)]


@contextmanager
def running(task: Task, guarantee: Guarantee) -> Iterator[subprocess.Popen[str]]:
    """The job as a process, which is dead after the block."""
    arguments = [msgspec.json.encode(task).decode(), guarantee]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.sequence.peers.kafka_streams", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def reached(process: subprocess.Popen[str], task: Task, ends: list[int]) -> bool:
    """Whether the group has committed the whole input."""
    assert process.poll() is None, f"it ended with status {process.returncode}"
    try:
        return asyncio.run(committed(task.servers, task.group, task.input_topic, NUM_PARTITIONS)) == ends
    except GroupCoordinatorNotAvailableError:
        return False  # the broker still makes the topic of the groups


def by_user(records: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    grouped: dict[bytes, list[bytes]] = defaultdict(list)
    for key, value in records:
        grouped[key].append(value)
    return grouped


def is_in_order_within(some: list[bytes], every: list[bytes]) -> bool:
    """Whether `some` is `every` with some left out."""
    rest = iter(every)
    return all(one in rest for one in some)


def check(task: Task, expected: Expected) -> None:
    """The outputs and the state topic against the oracle."""
    topics = (task.output_topic, state_topic(task))
    outputs, states = (
        by_user((record.key, record.value) for record in asyncio.run(read_all(task.servers, topic, NUM_PARTITIONS)))
        for topic in topics
    )
    if task.variant == "each":
        assert outputs == expected.outputs
    else:
        assert outputs.keys() == expected.outputs.keys()
        for user, told in outputs.items():
            assert told[-1] == expected.outputs[user][-1]
            assert is_in_order_within(told, expected.outputs[user])
    assert {user: decode_state(values[-1]) for user, values in states.items()} == expected.states


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize(
    ("variant", "guarantee"),
    [("each", "at_least_once"), ("latest", "at_least_once"), ("each", "exactly_once_v2")],
)
def test_outputs_and_state_are_the_oracles(
    variant: Variant, guarantee: Guarantee, broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    inputs, outputs, group = unique_topics(topic_prefix, "in", "out", "group")
    task = Task(
        servers=broker.bootstrap_servers,
        group=group,
        input_topic=inputs,
        output_topic=outputs,
        state_topic=f"{group}-histories-changelog",
        folder=str(tmp_path),
        num_events=LOAD.num_events,
        variant=variant,
        commit_s=0.2,
    )
    asyncio.run(create_topics(task.servers, {inputs: NUM_PARTITIONS, outputs: NUM_PARTITIONS}))
    ends = asyncio.run(fill(task.servers, inputs, LOAD.records()))
    with running(task, guarantee) as process:
        wait_until(lambda: reached(process, task, ends), what="the commit of the whole input")
        process.terminate()
        told, _ = process.communicate()
    assert process.returncode == ENDED_BY_SIGTERM
    assert [json.loads(line).keys() for line in told.splitlines()] == [{"first"}]
    check(task, expected_of(LOAD.records()))


def test_it_talks_to_the_broker_in_its_own_version() -> None:
    versions = {jar.artifact: jar.version for jar in itertools.chain(load_lock(), read_lock())}
    assert version() == versions["kafka-clients"] == versions["kafka_2.13"]


def test_a_state_is_a_count_and_items_oldest_first() -> None:
    assert decode_state(b"\x00\x00\x01\x02a\nbc\n") == (258, ["a", "bc"])
    assert decode_state(b"\x00\x00\x00\x00") == (0, [])
