"""Making a role's state anew from its input, beside the state in force, and putting it in the other's place.

1. The role's input is folded from its first record up to what the group has committed, into stores on this machine.
2. The changelog in force is folded too, to learn what differs. Nothing was changed so far.
3. Differences are put into the changelog (`swapping`), under a mark that keeps workers from starting.

Whatever the new state reflects, the outputs of it are on their topics; so nothing is published, and the offsets stay.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from stream_app.audit.reading import RunsReader
from stream_app.broker.errors import FolderInUseError
from stream_app.broker.lock import FolderLock, Holder
from stream_app.errors import TopicMismatchError, UsageError
from stream_app.faustkit.changelog import RecoveryError
from stream_app.faustkit.recovery import recover
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory, seal_all
from stream_app.kafka import admin_client, as_unreachable, connection
from stream_app.rebuild_folds import ROLE_TABLES, NewFold, role_folds
from stream_app.replay.report import Progress
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import Settings
from stream_app.swap_mark import committed, wait_unused
from stream_app.topics import changelog_name, prefixed

MEMORY_BYTES: Final = 128 * 1024 * 1024
"""Budget of all the stores that are made here."""

RUN_POSITIONS: Final = frozenset({"trend", "encode", "score"})
"""Roles whose values name the end of the run they were changed in: how runs are cut is no part of their state."""

Stores = Mapping[int, PartitionStore]
"""Stores by partition."""

Pair = tuple[bytes, Stored | None, Stored | None]
"""A key with its new and its old value; None where there is none."""


@dataclass(frozen=True)
class Differences:
    """How many keys the new state has, and how many of them differ from the state in force.

    `damage` says why the changelog in force cannot be read; empty where it can.
    """

    num_keys: int
    num_added: int
    num_changed: int
    num_removed: int
    damage: str = ""

    @property
    def num_differing(self) -> int:
        """Keys that the swap writes."""
        return self.num_added + self.num_changed + self.num_removed


@dataclass(frozen=True)
class Rebuilt:
    """A role's new state, and what it was made of.

    Args:
        role: The role.
        changelog: Full name of its changelog.
        offsets: For each partition of the input the offset behind the last record that the state reflects.
        new: The new state.
    """

    role: str
    changelog: str
    offsets: Mapping[int, int]
    new: Stores

    @property
    def num_records(self) -> int:
        """Offsets of the input that were folded."""
        return sum(self.offsets.values())

    def differing(self, partition: int, old: PartitionStore) -> Iterator[Pair]:
        """The keys of a partition whose new value is not the one in `old`, in key order."""
        for key, value, was in paired(self.new[partition], old):
            if value is None or was is None or not self._is_same(partition, value, was):
                yield key, value, was

    def count(self, old: Stores, damage: str = "") -> Differences:
        """How the new state differs from `old`."""
        added = changed = removed = 0
        for partition, store in old.items():
            for _, value, was in self.differing(partition, store):
                added += was is None
                removed += value is None
                changed += value is not None and was is not None
        num_keys = sum(1 for store in self.new.values() for _ in store.items())
        return Differences(num_keys, added, changed, removed, damage)

    def _is_same(self, partition: int, value: Stored, was: Stored) -> bool:
        if self.role in RUN_POSITIONS:
            # Any position below what is read next does; one at or above it would hide records.
            return value.payload == was.payload and was.position < self.offsets[partition]
        return value == was


@contextmanager
def workplace(settings: Settings, role: str) -> Iterator[Path]:
    """An empty folder for the stores that are made, on the disk of the state folder; removed behind the block.

    Raises:
        UsageError: Another process rebuilds this role here.
    """
    name = settings.prefix.strip(".-_") or "default"
    folder = settings.state_path / "rebuild" / name / role
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FolderLock.acquire(folder.parent / f"{role}.lock")
    except FolderInUseError as error:
        raise UsageError(f"Another process rebuilds the role {role} here.", mend="wait for its end") from error
    try:
        lock.record(Holder(pid=os.getpid(), since=datetime.now(UTC).isoformat(timespec="seconds")))
        shutil.rmtree(folder, ignore_errors=True)  # what a killed one has left
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


@contextmanager
def open_stores(folder: Path, partitions: int) -> Iterator[Stores]:
    """Stores in `folder`, closed behind the block."""
    memory = StoreMemory(MEMORY_BYTES)
    with ExitStack() as stack:
        stores = {number: PartitionStore(folder / str(number), memory) for number in range(partitions)}
        for store in stores.values():
            stack.callback(store.close)
        yield stores


async def build(settings: Settings, role: str, new: Stores, show: Progress) -> Rebuilt:
    """Fold the input into `new`, which is empty; changes nothing else.

    Raises:
        GroupInUseError: Workers of the role still run.
        TopicMismatchError: Records that are needed are not there any more, or the topic is another one.
        ModelError: The role needs a model, and its folder is missing, damaged or does not fit the settings.
        KafkaUnreachableError: The broker did not deliver in time.
    """
    topic = prefixed(settings.prefix, ROLE_INPUTS[role])
    async with admin_client(settings) as admin:
        await wait_unused(admin, settings, role, show)
        offsets = {number: offset for number, (offset, _) in (await committed(admin, settings, role)).items()}
    wanted = {number: offsets.get(number, 0) for number in new}
    with role_folds(settings, role) as new_fold:
        async with RunsReader(settings, "read_committed", show) as reader:
            check_whole(role, topic, wanted, await reader.bounds(topic))
            for number, end in wanted.items():
                await _fold_input(reader, topic, number, end, new_fold, new[number])
    return Rebuilt(role, changelog_name(settings.prefix, ROLE_TABLES[role]), wanted, new)


async def compare(settings: Settings, rebuilt: Rebuilt, old: Stores, show: Progress) -> Differences:
    """Fold the changelog in force into `old`, as far as it can be read, and count what differs.

    Raises:
        KafkaUnreachableError: The broker did not deliver in time.
    """
    show(f"reading {rebuilt.changelog}")
    async with RunsReader(settings, "read_uncommitted", show) as reader:
        damage = await fold_changelog(settings, reader, rebuilt.changelog, old)
    show("comparing")
    return rebuilt.count(old, damage)


def check_whole(role: str, topic: str, wanted: Mapping[int, int], bounds: Mapping[int, tuple[int, int]]) -> None:
    """See that the input is there from its first record up to the offsets `wanted`.

    Raises:
        TopicMismatchError: It is not; names every partition and what is missing there.
    """
    problems = []
    if len(bounds) != len(wanted):
        problems.append(f"{topic} has {len(bounds)} partitions, but the settings say {len(wanted)}")
    for number, end in sorted(wanted.items()):
        start, known_end = bounds.get(number, (0, 0))
        if number in bounds and end > known_end:
            problems.append(f"{topic}[{number}] ends at offset {known_end}, but the role has read up to {end}")
        elif end and start:
            problems.append(f"{topic}[{number}] lacks the offsets 0 to {start - 1}, which Kafka has removed")
    if problems:
        raise TopicMismatchError(
            f"The state of the role {role} cannot be made anew: {'; '.join(problems)}.",
            mend="bring the records back, or keep the state as it is; for the next time set retention.ms=-1 and "
            "retention.bytes=-1 on the topic",
        )


def paired(new: PartitionStore, old: PartitionStore) -> Iterator[Pair]:
    """Each key of either store, in key order."""
    ones, others = new.items(), old.items()
    one, other = next(ones, None), next(others, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[0] < other[0]):
            assert one is not None, "one of both is there"
            yield one[0], one[1], None
            one = next(ones, None)
        elif one is None or other[0] < one[0]:
            yield other[0], None, other[1]
            other = next(others, None)
        else:
            yield one[0], one[1], other[1]
            one, other = next(ones, None), next(others, None)


async def _fold_input(
    reader: RunsReader, topic: str, partition: int, end: int, new_fold: NewFold, store: PartitionStore
) -> None:
    fold = new_fold(partition)
    try:
        async for run in reader.runs(topic, partition, 0, end):
            envelopes = seal_all(await fold.changes(run, store))
            # Thrown away after a crash, so no write-ahead log, and no changelog that it could stand at.
            store.load(envelopes, 0, use_log=False)
    except TopicMismatchError as error:
        raise TopicMismatchError(
            error.message, mend="set retention.ms=-1 and retention.bytes=-1 on the topic, then rebuild again"
        ) from error


async def fold_changelog(settings: Settings, reader: RunsReader, changelog: str, stores: Stores) -> str:
    """Fold the changelog; why it cannot be, or nothing."""
    try:
        await reader.bounds(changelog)  # says at once that a topic is missing, for which recovery waits
        with as_unreachable(settings):
            await recover(connection(settings), changelog, stores)
    except (RecoveryError, TopicMismatchError) as error:
        return error.message if isinstance(error, TopicMismatchError) else str(error)
    return ""
