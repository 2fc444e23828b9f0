"""The local stores beside the changelogs: each is the fold of its changelog up to the offset that it reflects.

A store may be far behind its changelog: that of a worker that lost the partition, or a copy that is kept for others.
It is compared with the fold as of its own offset, so that this makes no difference.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rocksdict import AccessType, Options, Rdict

from stream_app.audit.changelogs import Entries, PartitionFold, entry_of, position_in
from stream_app.audit.findings import Check
from stream_app.audit.runs import cut_after
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import PartitionStore, Stored
from stream_app.faustkit.table import partitions_on_disk

NUM_TRIES = 5
"""Tries to open a store. One may fail while the worker that holds it puts files in the place of others; this takes
milliseconds and happens a few times a minute at most."""


class StoreSnapshot(PartitionStore):
    """A store as it is at this moment, for reading only. The worker that holds it is not disturbed.

    RocksDB calls this a secondary instance. Values and changelog offset are written together, so they are read as of
    one moment.

    Args:
        path: Folder of the database.
        own_files: An empty folder for what RocksDB writes about this reading.
    """

    def __init__(self, path: Path, own_files: Path) -> None:
        self.path = path
        # rocksdict puts down its own settings beside the database again, the same ones.
        self._db = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.secondary(str(own_files)))


@contextmanager
def open_snapshots(paths: Sequence[Path], check: Check) -> Iterator[list[StoreSnapshot]]:
    """The stores as they are now, closed at the end of the block.

    One that is damaged is noted as a breach, one that cannot be opened for another reason as not checked.
    """
    with tempfile.TemporaryDirectory(prefix="sliceflow-audit-") as folder:
        opened: list[StoreSnapshot] = []
        try:
            for number, path in enumerate(paths):
                if (snapshot := _open(path, Path(folder) / str(number), check)) is not None:
                    opened.append(snapshot)
            yield opened
        finally:
            for snapshot in opened:
                snapshot.close()


def _open(path: Path, own_files: Path, check: Check) -> StoreSnapshot | None:
    for _ in range(NUM_TRIES):
        try:
            return StoreSnapshot(path, own_files)
        except Exception as error:  # rocksdict has no finer class
            reason = str(error)
    if "Corruption" in reason:
        check.breach(f"the store {path} is damaged: {reason}", "a store that RocksDB can read")
    else:
        check.leave_out(f"the store {path}", f"RocksDB cannot read it: {reason}")
    return None


def local_stores(workers: Path, role: str, table: str) -> dict[int, list[Path]]:
    """The stores of a table on this machine, by partition: those of all workers of the role, and copies.

    Args:
        workers: The folder that holds a folder for each worker.
        role: The role that keeps the table.
        table: Name of the table.
    """
    found: dict[int, list[Path]] = {}
    for worker in sorted(workers.glob(f"{role}-*")):
        for partition in partitions_on_disk(worker / table):
            found.setdefault(partition, []).append(worker / table / str(partition))
    return found


class Readable(Protocol):
    """What a comparison reads of a store."""

    path: Path

    @property
    def changelog_offset(self) -> int | None:
        """Offset of the last changelog record it reflects."""

    def items(self) -> Iterator[tuple[bytes, Stored]]:
        """All keys and values."""

    def get(self, key: bytes) -> Stored | None:
        """The value of one key."""


@dataclass
class _Place:
    topic: str
    partition: int


class StoreComparison:
    """Compares one store with the fold of its changelog.

    Args:
        check: Takes the breaches.
        store: As it was before the changelog's end was asked for, so that it cannot be ahead.
        fold: The fold, which has taken nothing yet.
    """

    def __init__(self, check: Check, store: Readable, fold: PartitionFold) -> None:
        offset = store.changelog_offset
        self.offset = -1 if offset is None else offset
        self.num_keys = 0
        self._check = check
        self._store = store
        self._entries: Entries = fold.entries
        self._removed = fold.removed
        self._where = _Place(fold.topic, fold.partition)
        self._later: dict[bytes, int] = {}

    def compare(self) -> None:
        """Compare, now that the fold has taken everything up to `offset` and nothing beyond."""
        num_both = 0
        for key, stored in self._store.items():
            self.num_keys += 1
            entry = self._entries.get(key)
            if entry is None and key in self._removed:
                self._breach(key, f"a value at source position {stored.position}", "none: the changelog removed it")
                continue
            if entry is None:
                self._later[key] = stored.position
                continue
            num_both += 1
            if entry != entry_of(stored):
                self._breach(key, self._difference(stored, entry), f"the changelog's value at {position_in(entry)}")
        if num_both < len(self._entries):
            for key, entry in self._entries.items():
                if self._store.get(key) is None:
                    self._breach(key, "nothing in the store", f"the changelog's value at {position_in(entry)}")

    def finish(self) -> None:
        """Look for what was in the store alone, now that the fold is complete.

        Compaction leaves only the newest record of a key. So where the changelog has gone on, it may be beyond the
        store's offset, and its key may be removed by then.
        """
        for key, position in self._later.items():
            entry = self._entries.get(key)
            if entry is None and key in self._removed:
                continue
            if entry is None or position_in(entry) < position:
                in_changelog = "nothing" if entry is None else f"a value at {position_in(entry)}"
                self._breach(
                    key, f"a value at source position {position}, the changelog has {in_changelog}", "it there"
                )

    def refuse(self, end: int) -> None:
        """Note that the changelog ends before what the store reflects."""
        self._breach(None, f"changelog offset {self.offset}", f"one below the changelog's end {end}")

    def _difference(self, stored: Stored, entry: bytes) -> str:
        position = position_in(entry)
        if stored.position == position:
            return "other bytes at the same source position"
        return f"a value at source position {stored.position}"

    def _breach(self, key: bytes | None, seen: str, expected: str) -> None:
        where = self._where
        self._check.breach(
            f"in the store {self._store.path}: {seen}", expected, topic=where.topic, partition=where.partition, key=key
        )


class ChangelogPass:
    """Takes a changelog into its fold, and compares each store when the fold is where the store is."""

    def __init__(self, fold: PartitionFold, comparisons: Sequence[StoreComparison]) -> None:
        self._fold = fold
        self._all = list(comparisons)
        self._waiting = sorted(comparisons, key=lambda one: one.offset)

    def take(self, run: Run) -> None:
        """Take consecutive records."""
        for part in cut_after(run, [one.offset for one in self._waiting]):
            self._compare_before(part.offsets[0])
            self._fold.take(part)

    def finish(self, end: int) -> None:
        """Everything below offset `end` was taken."""
        self._compare_before(end)
        for one in self._waiting:
            one.refuse(end)
        for one in self._all:
            one.finish()

    def _compare_before(self, offset: int) -> None:
        while self._waiting and self._waiting[0].offset < offset:
            self._waiting.pop(0).compare()
