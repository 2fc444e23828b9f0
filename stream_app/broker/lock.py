"""One broker per data folder: a file lock that lives as long as the broker does.

The lock (flock) belongs to the open file, and Kafka's process inherits that file. So the folder stays locked
while Kafka runs, even if the process that started it is gone, and it is free the moment that Kafka is gone,
however it ended. The file's text says who holds it; it stays behind, to start the next time on the same
ports.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

import msgspec

from stream_app.broker.errors import FolderInUseError


class Holder(msgspec.Struct, frozen=True):
    """Who holds a data folder: the starting process, Kafka's, its ports, and since when (RFC 3339)."""

    pid: int
    since: str
    kafka_pid: int | None = None
    port: int | None = None
    controller_port: int | None = None


def read_holder(path: Path) -> Holder | None:
    """Return what the lock file says, or None if there is none or it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, msgspec.DecodeError):
        return None


class FolderLock:
    """The held lock of a data folder; `acquire` makes one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Take the lock, or refuse.

        Raises:
            FolderInUseError: Another process holds it; the message says which.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise _in_use(path) from error
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor)

    @property
    def descriptor(self) -> int:
        """The open file, for Kafka's process to inherit."""
        return self._descriptor

    def record(self, holder: Holder) -> None:
        """Write who holds the lock into the file."""
        text = msgspec.json.encode(holder)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def release(self) -> None:
        """Give the lock back. The file stays: if it went, two processes could lock two files of one name."""
        # Unlocks the open file itself, so that a forked child which still has it open doesn't keep the lock.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


def _in_use(path: Path) -> FolderInUseError:
    holder = read_holder(path)
    if holder is None:
        who, stop = "another process that is just starting", "wait for it, or stop it"
    else:
        where = f" on port {holder.port}" if holder.port else ""
        kafka = f" (Kafka's own process: {holder.kafka_pid})" if holder.kafka_pid else ""
        who = f"process {holder.pid}{kafka}{where}, since {holder.since}"
        stop = f"stop process {holder.pid}"
    return FolderInUseError(
        f"The data folder {path.parent} is in use by {who}.",
        mend=f"{stop}, use that broker, or choose another data folder.",
    )
