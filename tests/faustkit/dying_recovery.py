"""A recovery in a process of its own that kills itself after so many runs of a changelog.

    python -m tests.faustkit.dying_recovery SERVERS CHANGELOG STORE NUM_RUNS

Runs are short and the write buffers small, so that files are written in the midst of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from stream_app.faustkit import changelog, recovery
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import PartitionStore, StoreMemory

BUFFER_BYTES = 256 * 1024
RUN_BYTES = 16 * 1024
BULK_RECORDS = 100


def main(servers: str, topic: str, folder: str, num_runs: int) -> None:
    """Recover partition 0, and die on the way."""
    changelog.BULK_RECORDS = BULK_RECORDS
    apply = changelog.ChangelogFold.apply
    num_applied = 0

    def dying_apply(fold: changelog.ChangelogFold, run: Run) -> None:
        nonlocal num_applied
        apply(fold, run)
        num_applied += 1
        if num_applied == num_runs:
            os.kill(os.getpid(), signal.SIGKILL)

    changelog.ChangelogFold.apply = dying_apply  # type: ignore[method-assign, assignment]
    recovery.PARTITION_BYTES = RUN_BYTES
    stores = {0: PartitionStore(Path(folder), StoreMemory(BUFFER_BYTES))}
    asyncio.run(recovery.recover({"bootstrap_servers": [servers]}, topic, stores))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
