"""A Faust table whose data are one RocksDB database for each partition, written a run at a time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NoReturn, cast

import faust
from faust.stores.base import Store
from faust.types import TP

from stream_app.faustkit.store import PartitionStore, StoreMemory, open_or_quarantine


def partitions_on_disk(folder: Path) -> list[int]:
    """The partitions of a table that have a store in `folder`, the table's folder; it need not exist."""
    if not folder.is_dir():
        return []
    return sorted(int(store.name) for store in folder.iterdir() if store.name.isdecimal())


class PartitionedStore(Store[bytes, bytes]):
    """The open stores of partitions, those this worker owns and copies of others, behind Faust's store interface.

    Reading and writing single keys through Faust is not offered: it could neither be batched nor acknowledged
    together with the outputs of a run.
    """

    def __init__(self, url: Any, app: Any, table: Any, **kwargs: Any) -> None:
        super().__init__(url, app, table, **kwargs)
        self._open: dict[int, PartitionStore] = {}
        self._memory: StoreMemory = app.store_memory
        self._folder: Path = app.store_folder / table.name

    def open(self, partition: int) -> PartitionStore:
        """Open the store of a partition that was assigned, to work on it or to keep a copy."""
        if partition not in self._open:
            self._open[partition] = open_or_quarantine(self.path(partition), self._memory)
        return self._open[partition]

    def path(self, partition: int) -> Path:
        """Where the database of a partition lives."""
        return self._folder / str(partition)

    def reset(self, partition: int) -> None:
        """Throw away what is kept of one partition; the next `open` begins empty, to be filled from the changelog."""
        store = self._open.pop(partition, None)
        if store is not None:
            store.close()
        shutil.rmtree(self.path(partition), ignore_errors=True)

    def close_all(self) -> None:
        """Close every store and free the locks."""
        while self._open:
            self._open.popitem()[1].close()

    async def on_stop(self) -> None:
        """Close the databases when Faust stops the table."""
        self.close_all()

    def persisted_offset(self, tp: TP) -> int | None:
        """Offset of the last changelog record the store of this partition reflects."""
        store = self._open.get(tp.partition)
        return None if store is None else store.changelog_offset

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Nothing to do: the offset is written together with the values."""

    async def need_active_standby_for(self, tp: TP) -> bool:
        """Faust's standbys are not used; `standby` follows changelogs by itself."""
        return False

    def apply_changelog_batch(self, *_: Any, **__: Any) -> None:
        """Refused: the changelog is applied by our own recovery."""
        raise NotImplementedError("Changelogs are applied by stream_app.faustkit.recovery.")

    def reset_state(self) -> None:
        """Refused: it would throw away all partitions of all tables at once."""
        raise NotImplementedError("Use `reset` for one partition; it is rebuilt from its changelog.")

    async def backup_partition(self, *_: Any, **__: Any) -> None:
        """Refused: the changelog is the backup."""
        raise NotImplementedError("The changelog is the backup of a table.")

    def restore_backup(self, *_: Any, **__: Any) -> None:
        """Refused: the changelog is the backup."""
        raise NotImplementedError("The changelog is the backup of a table.")


class StateTable(faust.Table[bytes, bytes]):
    """A table of bytes to bytes, kept by a `PartitionedStore`."""

    def _new_store(self) -> PartitionedStore:
        return PartitionedStore("rocksdb://", self.app, self, table_name=self.name, loop=self.loop)

    def using_window(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: windows expire by the wall clock, so what is replayed is gone at once.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("Windowed tables expire by the wall clock. Keep event time in the values instead.")

    @property
    def stores(self) -> PartitionedStore:
        """The stores of this table's partitions."""
        return cast(PartitionedStore, self.data)
