"""The local store: one RocksDB database for each partition of a table.

A value is kept in an envelope: the source position it reflects (8 bytes, big-endian), then its payload. The
same envelope is what stands in the changelog, so store and changelog can be compared byte for byte.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rocksdict import AccessType, BlockBasedOptions, Cache, Options, Rdict, WriteBatch, WriteBufferManager

log = logging.getLogger("sliceflow.faustkit")

_VALUE = b"v"
"""Prefix of the keys of values; everything else in the database is our own."""

_CHANGELOG_OFFSET = b"m:changelog-offset"

_POSITION_BYTES = 8


class Stored(NamedTuple):
    """A value and the source position (offset of the newest input record) it reflects."""

    position: int
    payload: bytes


def seal(position: int, payload: bytes) -> bytes:
    """The envelope of a value."""
    return position.to_bytes(_POSITION_BYTES, "big") + payload


def unseal(envelope: bytes) -> Stored:
    """What is in an envelope.

    Raises:
        ValueError: It is too short to hold a position.
    """
    if len(envelope) < _POSITION_BYTES:
        raise ValueError(f"An envelope has {len(envelope)} bytes; at least {_POSITION_BYTES} were expected.")
    return Stored(int.from_bytes(envelope[:_POSITION_BYTES], "big"), envelope[_POSITION_BYTES:])


class StoreMemory:
    """One block cache and one write buffer budget shared by all stores of a process."""

    def __init__(self, limit_bytes: int) -> None:
        self.cache = Cache(limit_bytes)
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
        envelopes = self._db.get([_VALUE + key for key in keys])
        return [None if envelope is None else unseal(envelope) for envelope in envelopes or []]

    def get(self, key: bytes) -> Stored | None:
        """The value of one key."""
        return self.get_many([key])[0]

    def write(self, envelopes: Mapping[bytes, bytes], changelog_offset: int) -> None:
        """Put values and the changelog offset they stand at, all or nothing."""
        batch = WriteBatch(raw_mode=True)
        for key, envelope in envelopes.items():
            batch.put(_VALUE + key, envelope)
        batch.put(_CHANGELOG_OFFSET, str(changelog_offset).encode())
        self._db.write(batch)

    def delete(self, keys: Iterable[bytes]) -> None:
        """Remove keys (used when a changelog holds a deletion)."""
        batch = WriteBatch(raw_mode=True)
        for key in keys:
            batch.delete(_VALUE + key)
        self._db.write(batch)

    @property
    def changelog_offset(self) -> int | None:
        """Offset of the last changelog record the store reflects; None for an empty store."""
        raw = self._db.get(_CHANGELOG_OFFSET)
        return None if raw is None else int(raw)

    def items(self) -> Iterator[tuple[bytes, Stored]]:
        """All keys and values in key order. Read it to its end: an unfinished one keeps the database open."""
        raw: Iterator[tuple[bytes, bytes]] = self._db.items(from_key=_VALUE)  # type: ignore[assignment]
        for key, envelope in raw:
            if not key.startswith(_VALUE):
                return
            yield key[len(_VALUE) :], unseal(envelope)

    def close(self) -> None:
        """Close the database and free its lock."""
        self._db.close()


def open_or_quarantine(path: Path, memory: StoreMemory) -> PartitionStore:
    """Open a store; a damaged one is put aside and an empty one opened, to be filled from its changelog.

    Raises:
        Exception: What RocksDB says, where it is not damage (the folder is locked, the disk is full).
    """
    try:
        return PartitionStore(path, memory)
    except Exception as error:  # rocksdict has no finer class
        if "Corruption" not in str(error):
            raise
        aside = quarantine(path)
        log.error("The store %s is damaged (%s); it was put aside as %s and is rebuilt.", path, error, aside.name)
        return PartitionStore(path, memory)


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
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    table = BlockBasedOptions()
    table.set_block_cache(memory.cache)
    table.set_bloom_filter(10, False)
    options.set_block_based_table_factory(table)
    return options
