"""A table of the audit's own, on disk: what the log folds to must not have to fit in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory, seal_all

MEMORY_BYTES: Final = 64 * 1024 * 1024
"""Budget of the table's cache and write buffers."""

MAX_PENDING_KEYS: Final = 20_000
"""Values that wait in memory to be written together: at some KB each a few tens of MB."""


class ScratchTable:
    """Values by key; those written last wait in memory."""

    def __init__(self, store: PartitionStore) -> None:
        self._store = store
        self._pending: dict[bytes, Stored | None] = {}

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """The values of `keys`, in their order; None where there is none."""
        found = [self._pending.get(key) for key in keys]
        missing = [place for place, key in enumerate(keys) if key not in self._pending]
        for place, stored in zip(missing, self._store.get_many([keys[place] for place in missing]), strict=True):
            found[place] = stored
        return found

    def put(self, values: Mapping[bytes, Stored | None]) -> None:
        """Set values; None removes one."""
        self._pending.update(values)
        if len(self._pending) > MAX_PENDING_KEYS:
            # It is thrown away after a crash, so no write-ahead log, and no changelog that it could stand at.
            self._store.load(seal_all(self._pending), 0, use_log=False)
            self._pending.clear()


@contextmanager
def scratch_table() -> Iterator[ScratchTable]:
    """An empty table; its files are removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="sliceflow-audit-") as folder:
        store = PartitionStore(Path(folder) / "table", StoreMemory(MEMORY_BYTES))
        try:
            yield ScratchTable(store)
        finally:
            store.close()
