"""What an event costs the encode role as its users grow: memories read from the store, slices encoded, memories kept.

No broker. The store of one partition is filled with a memory for each user; then runs of events come, each of another
user, drawn with equal chances: the worst case for every cache. Each event is a revision of its user's open slice. What
an event costs by the length of a history is in `bench-encode`, a search by the number of items in `bench-index`.

    make bench-scale                     up to a million users: 3 GB of disk
    python -m tests.bench.scale --users 1000,10000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch

from stream_app import tables
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.faustkit.store import PartitionStore, StoreMemory, seal
from stream_app.records import SliceRecord
from stream_app.slice_encoding import encode_slices
from stream_app.stages.merging import UserMemory
from tests.bench.common import BenchResult, Figure, finish, table
from tests.bench.encode import Work, example_work
from tests.bench.plain_model import PLAIN_BATCH
from tests.bench.timing import Took, in_turn, median_cpu_s, median_wall_s

USERS: Final = (1_000, 10_000, 100_000, 1_000_000)
LOADED_AT_ONCE: Final = 10_000
COLUMNS: Final = ("users", "cpu us/event", "wall us/event")


class Users:
    """The users of one partition, in a store of their own.

    Args:
        folder: For the store.
        num_users: How many.
        work: The encoder, and slices to take a model from.
        seed: Decides who has events.
    """

    def __init__(self, folder: Path, num_users: int, work: Work, seed: int = 0) -> None:
        self.num_users = num_users
        self._work = work
        self._generator = np.random.default_rng(seed)
        self._record, memory = _typical(work)
        self._num_runs = 0
        self.store = PartitionStore(folder, StoreMemory(work.settings.store_memory_mb * 2**20))
        value = seal(0, tables.encode_value(memory))
        for start in range(0, num_users, LOADED_AT_ONCE):
            ids = range(start, min(start + LOADED_AT_ONCE, num_users))
            self.store.load({_key(number): value for number in ids}, start, use_log=False)
        self.store.flush()

    def run(self, num_events: int = PLAIN_BATCH) -> int:
        """One run with so many events of as many users, as the role carries it out but for Kafka; how many vectors it
        makes.
        """
        self._num_runs += 1
        revision = self._record.revision + self._num_runs
        drawn = self._generator.choice(self.num_users, num_events, replace=False).tolist()
        records = [
            msgspec.structs.replace(self._record, user_id=f"user-{number}", revision=revision, offset=place)
            for place, number in enumerate(drawn)
        ]
        kept = self.store.get_many([tables.key_of(record.user_id) for record in records])
        memories = {
            record.user_id: tables.MEMORY.decode(stored.payload)
            for record, stored in zip(records, kept, strict=True)
            if stored is not None
        }
        vectors = encode_slices(self._work.encoder, records, memories, self._work.settings.event_types)
        changed: Mapping[bytes, bytes] = {
            tables.key_of(user_id): seal(self._num_runs, tables.encode_value(memory))
            for user_id, memory in memories.items()
        }
        self.store.write(changed, self._num_runs)
        return len(vectors)


def _key(number: int) -> bytes:
    return tables.key_of(f"user-{number}")


def _typical(work: Work) -> tuple[SliceRecord, UserMemory]:
    """The newest slice of the user with the most slices among those at hand, and the memory that it left."""
    memories: dict[str, UserMemory] = {}
    records = [record for run in work.runs for record in run]
    encode_slices(work.encoder, records, memories, work.settings.event_types)
    user_id, memory = max(memories.items(), key=lambda pair: pair[1].num_merged)
    return next(record for record in reversed(records) if record.user_id == user_id), memory


@contextmanager
def all_users(numbers: Sequence[int], work: Work) -> Iterator[dict[int, Users]]:
    """Stores with so many users each, for the block."""
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        made = {number: Users(Path(folder) / str(number), number, work) for number in numbers}
        try:
            yield made
        finally:
            for users in made.values():
                users.store.close()


def rows_of(times: Mapping[int, Sequence[Took]]) -> list[list[str]]:
    """A line for each number of users."""
    return [
        [f"{number:,}", *(f"{median(runs) / PLAIN_BATCH * 1e6:.1f}" for median in (median_cpu_s, median_wall_s))]
        for number, runs in times.items()
    ]


def result_of(times: Mapping[int, Sequence[Took]]) -> BenchResult:
    """The figures: an event's cost at each number of users, and how it grows from the fewest to the most."""
    figures = {
        f"cpu_us_per_event_at_{number}": Figure(median_cpu_s(runs) / PLAIN_BATCH * 1e6)
        for number, runs in times.items()
    }
    fewest, most = min(times), max(times)
    figures["most_over_fewest"] = Figure(median_cpu_s(times[most]) / median_cpu_s(times[fewest]))
    return BenchResult("scale", figures, {"users": list(times), "run_events": PLAIN_BATCH})


def numbers_of(text: str) -> list[int]:
    """Numbers of users out of a list with commas.

    Raises:
        argparse.ArgumentTypeError: One is no number, or there are not enough users for a run.

    >>> numbers_of("1000,10000")
    [1000, 10000]
    """
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) >= PLAIN_BATCH for part in parts):
        raise argparse.ArgumentTypeError(f"users are {text!r}, expected numbers from {PLAIN_BATCH} on: 1000,10000")
    return [int(part) for part in parts]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=numbers_of, default=list(USERS), help="how many, with commas")
    parser.add_argument("--rounds", type=int, default=20, help="runs for each number of users")
    options: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with terminate_as_interrupt(), all_users(options.users, example_work(2)) as users:
        times = in_turn({number: partial(one.run, PLAIN_BATCH) for number, one in users.items()}, options.rounds)
    print(f"{table(COLUMNS, rows_of(times))}\n")
    return finish(result_of(times))


if __name__ == "__main__":
    sys.exit(main())
