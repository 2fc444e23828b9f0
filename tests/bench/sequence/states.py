"""Made-up states on the changelog of the sequence job, and whether its stores and its changelog are the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from stream_app.faustkit.changelog import OWNER_HEADER
from stream_app.faustkit.store import PartitionStore, StoreMemory, seal, unseal
from stream_app.kafka import partition_of
from tests.bench.sequence.feed import InputRecord, batch_producer, send_batches
from tests.bench.sequence.job import FIRST_TS_MS, HISTORY_EVENTS, NUM_ITEMS, NUM_PARTITIONS, Task
from tests.bench.sequence.ours import COUNT_BYTES, END, TABLE, decode_state
from tests.bench.sequence.topics import read_topic
from tests.bench.sequence.verify import State, StateFormat, fold

CHUNK: Final = 20_000
"""Records made and acknowledged at a time: some 8 MiB of states, so that they never all lie in memory."""

READ_CACHE_BYTES: Final = 32 * 1024 * 1024
"""Memory for reading a store once from end to end."""


def _decode(envelope: bytes) -> State:
    return decode_state(unseal(envelope).payload)


STATE_FORMAT: Final = StateFormat(_decode, marker_header=OWNER_HEADER)
"""How the changelog of the sequence job on faustkit is read back."""


def made_up_states(num_users: int, seed: int) -> Iterator[InputRecord]:
    """A changelog record for each user: `HISTORY_EVENTS` items each, drawn with equal chances.

    All of them reflect offset 0 of the input: what stands there (`reflected_events`) is worked off already, and
    what comes after it is new.
    """
    rng = np.random.default_rng(seed)
    names = [b"i%d" % number + END for number in range(NUM_ITEMS)]
    count = HISTORY_EVENTS.to_bytes(COUNT_BYTES, "big")
    for user in range(num_users):
        key = b"u%d" % user
        items = b"".join([names[item] for item in rng.integers(NUM_ITEMS, size=HISTORY_EVENTS).tolist()])
        yield partition_of(key, NUM_PARTITIONS), key, seal(0, count + items)


def reflected_events() -> list[InputRecord]:
    """The first record of each input partition, which all made-up states reflect."""
    events: dict[int, InputRecord] = {}
    for user in range(64 * NUM_PARTITIONS):
        key = b"u%d" % user
        partition = partition_of(key, NUM_PARTITIONS)
        value = b'{"user_id":"%s","item_id":"i0","type":"click","ts":%d}' % (key, FIRST_TS_MS)
        events.setdefault(partition, (partition, key, value))
    return list(events.values())


async def put_states(task: Task, num_users: int, seed: int) -> None:
    """Put made-up states of so many users on the changelog of `task`, and what they reflect on its input."""
    async with batch_producer(task.servers) as producer:
        states = made_up_states(num_users, seed)
        while chunk := list(islice(states, CHUNK)):
            await send_batches(producer, task.state_topic, chunk)
        await send_batches(producer, task.input_topic, reflected_events())


async def newest_states(task: Task) -> dict[bytes, bytes]:
    """The newest envelope of each user on the changelog."""
    newest: dict[bytes, bytes] = {}
    async for _, records in read_topic(task.servers, task.state_topic):
        fold(records, STATE_FORMAT, newest)
    return newest


def stored_states(task: Task) -> Iterator[tuple[bytes, bytes]]:
    """The envelope of each user in the stores of a worker that has ended."""
    memory = StoreMemory(READ_CACHE_BYTES)
    for partition in range(NUM_PARTITIONS):
        store = PartitionStore(Path(task.folder) / TABLE / str(partition), memory)
        for key, stored in store.items():
            yield key, seal(stored.position, stored.payload)
        store.close()


def num_differing(stored: Iterable[tuple[bytes, bytes]], newest: dict[bytes, bytes]) -> int:
    """Users whose value differs between stores and changelog, or stands in one of them only."""
    num_found = num_differing_found = 0
    for key, envelope in stored:
        found = newest.get(key)
        num_found += found is not None
        num_differing_found += found != envelope
    return num_differing_found + len(newest) - num_found
