"""The local store: one RocksDB database for each partition of a table.

A value is kept in an envelope: the source position it reflects (8 bytes, big-endian), then its payload. The
same envelope is what stands in the changelog, so store and changelog can be compared byte for byte.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rocksdict import AccessType, BlockBasedOptions, Cache, Options, Rdict, WriteBatch, WriteBufferManager, WriteOptions

log = logging.getLogger("sliceflow.faustkit")

_VALUE = b"v"
"""Prefix of the keys of values; everything else in the database is our own."""

_CHANGELOG_OFFSET = b"m:changelog-offset"
_CHANGELOG_ID = b"m:changelog-id"
_INPUT_ID = b"m:marked-input-id"

_DAMAGED = "DAMAGED"
"""Name of the file that marks a database in which damage was met while it was open: it is not opened again."""

POSITION_BYTES = 8
"""Length of the source position at the front of an envelope."""


WRITE_BUFFERS_PER_BUDGET = 8
"""A store's newest values go to a file when they take this part of the budget: four stores use half of it."""

MIN_WRITE_BUFFER_BYTES = 1024 * 1024
"""Below this a store would write many small files."""

MEMTABLE_FILTER_RATIO = 0.1
"""Part of a write buffer that its filter takes."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A value and the source position (offset of the newest input record) it reflects."""

    position: int
    payload: bytes


def seal(position: int, payload: bytes) -> bytes:
    """The envelope of a value."""
    return position.to_bytes(POSITION_BYTES, "big") + payload


def seal_all(values: Mapping[bytes, Stored | None]) -> dict[bytes, bytes | None]:
    """The envelopes of values; None, where a value is removed, stays None."""
    return {key: None if stored is None else seal(stored.position, stored.payload) for key, stored in values.items()}


def unseal(envelope: bytes) -> Stored:
    """What is in an envelope.

    Raises:
        ValueError: It is too short to hold a position.
    """
    if len(envelope) < POSITION_BYTES:
        raise ValueError(f"An envelope has {len(envelope)} bytes; at least {POSITION_BYTES} were expected.")
    return Stored(int.from_bytes(envelope[:POSITION_BYTES], "big"), envelope[POSITION_BYTES:])


class StoreMemory:
    """One block cache and one write buffer budget shared by all stores of a process."""

    def __init__(self, limit_bytes: int) -> None:
        self.cache = Cache(limit_bytes)
        self.write_buffer_bytes = max(MIN_WRITE_BUFFER_BYTES, limit_bytes // WRITE_BUFFERS_PER_BUDGET)
        self.write_buffers = WriteBufferManager.new_write_buffer_manager_with_cache(limit_bytes // 2, False, self.cache)


class PartitionStore:
    """The values of one partition of one table.

    Args:
        path: Folder of the database; made if it is not there.
        memory: The budget shared with the other stores.
    """

    def __init__(self, path: Path, memory: StoreMemory) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(str(path), _options(memory), access_type=AccessType.read_write())

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """The values of `keys`, in their order; None where there is none."""
        if not keys:
            return []
        with self._marking_damage():
            envelopes = self._db.get([_VALUE + key for key in keys])
        return [None if envelope is None else unseal(envelope) for envelope in envelopes or []]

    def get(self, key: bytes) -> Stored | None:
        """The value of one key."""
        return self.get_many([key])[0]

    def write(self, envelopes: Mapping[bytes, bytes | None], changelog_offset: int) -> None:
        """Put values (None: remove the key) and the changelog offset they stand at, all or nothing."""
        self.load(envelopes, changelog_offset, use_log=True)

    def load(self, envelopes: Mapping[bytes, bytes | None], changelog_offset: int, *, use_log: bool) -> None:
        """Put what a changelog says (None: remove the key) and the offset it stands at, all or nothing.

        Without the write-ahead log it costs less, but after a crash the store is as some earlier call left it, until
        `flush`; nothing may be written with the log before that, or it would survive what came before it.
        """
        batch = WriteBatch(raw_mode=True)
        for key in sorted(envelopes):  # neighbours in memory are found faster one after the other
            envelope = envelopes[key]
            if envelope is None:
                batch.delete(_VALUE + key)
            else:
                batch.put(_VALUE + key, envelope)
        batch.put(_CHANGELOG_OFFSET, str(changelog_offset).encode())
        options = WriteOptions()
        # rocksdict's stub takes this property for a method.
        options.disable_wal = not use_log  # type: ignore[method-assign, assignment]
        with self._marking_damage():
            self._db.write(batch, options)

    def flush(self) -> None:
        """Write what is only in memory to files, and wait until it is there."""
        with self._marking_damage():
            self._db.flush()

    @property
    def changelog_offset(self) -> int | None:
        """Offset of the last changelog record the store reflects; None for an empty store."""
        with self._marking_damage():
            raw = self._db.get(_CHANGELOG_OFFSET)
        return None if raw is None else int(raw)

    @property
    def changelog_id(self) -> str | None:
        """Id of the topic that the changelog offset belongs to; None where it was never told."""
        return self._text(_CHANGELOG_ID)

    @changelog_id.setter
    def changelog_id(self, number: str) -> None:
        with self._marking_damage():
            self._db[_CHANGELOG_ID] = number.encode()

    @property
    def input_id(self) -> str | None:
        """Id of the topic that the positions of the values belong to, as a mark in the changelog says; None where none
        does.
        """
        return self._text(_INPUT_ID)

    @input_id.setter
    def input_id(self, number: str) -> None:
        with self._marking_damage():
            self._db[_INPUT_ID] = number.encode()

    def _text(self, key: bytes) -> str | None:
        with self._marking_damage():
            raw = self._db.get(key)
        return None if raw is None else raw.decode()

    def items(self) -> Iterator[tuple[bytes, Stored]]:
        """All keys and values in key order. Read it to its end: an unfinished one keeps the database open."""
        raw: Iterator[tuple[bytes, bytes]] = self._db.items(from_key=_VALUE)  # type: ignore[assignment]
        key = _VALUE
        for key, envelope in raw:
            if not key.startswith(_VALUE):
                return
            yield key[len(_VALUE) :], unseal(envelope)
        self._check_end(key)

    def _check_end(self, last_key: bytes) -> None:
        """Raise where `items` ended not because all was read: it takes damage for the end and says nothing."""
        cursor = self._db.iter()
        with self._marking_damage():
            cursor.seek(last_key)
            if cursor.valid():
                cursor.next()
            cursor.status()

    @contextmanager
    def _marking_damage(self) -> Iterator[None]:
        # Damage within a file is seen only when that place is read, by which time the store is long open.
        try:
            yield
        except Exception as error:
            if _is_damage(error):
                (self.path / _DAMAGED).touch()
            raise

    def close(self) -> None:
        """Close the database and free its lock."""
        self._db.close()


def open_or_quarantine(path: Path, memory: StoreMemory) -> PartitionStore:
    """Open a store; a damaged one is put aside and an empty one opened, to be filled from its changelog.

    Damaged is what cannot be opened for it, and what was met by a process that read it.

    Raises:
        Exception: What RocksDB says, where it is not damage (the folder is locked, the disk is full).
    """
    reason = "it could not be read"
    if not (path / _DAMAGED).exists():
        try:
            return PartitionStore(path, memory)
        except Exception as error:
            if not _is_damage(error):
                raise
            reason = str(error)
    aside = quarantine(path)
    log.error("The store %s is damaged (%s); it was put aside as %s and is rebuilt.", path, reason, aside.name)
    return PartitionStore(path, memory)


def _is_damage(error: Exception) -> bool:
    return "Corruption" in str(error)  # rocksdict has no finer class


def quarantine(path: Path) -> Path:
    """Put a damaged database aside, to be rebuilt from its changelog, and return where it went."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    shutil.move(path, aside)
    return aside


def _options(memory: StoreMemory) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_manager(memory.write_buffers)
    options.set_write_buffer_size(memory.write_buffer_bytes)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    # Most keys asked for are either not there yet or in a file: a filter spares the search among the newest.
    options.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_RATIO)
    options.set_memtable_whole_key_filtering(True)
    table = BlockBasedOptions()
    table.set_block_cache(memory.cache)
    table.set_bloom_filter(10, False)
    options.set_block_based_table_factory(table)
    return options
