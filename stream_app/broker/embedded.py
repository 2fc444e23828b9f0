"""The embedded broker: a real Apache Kafka, started and stopped from Python.

A broker on a temporary folder, for as long as a block runs::

    with EmbeddedBroker(None) as broker:
        print(broker.bootstrap_servers)
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

from stream_app.broker.config import LOOPBACK, choose_ports
from stream_app.broker.errors import BrokerConfigError, BrokerError
from stream_app.broker.install import cache_folder, install
from stream_app.broker.jars import load_lock
from stream_app.broker.java import find_java
from stream_app.broker.launch import (
    MAIN_CLASS,
    DataFolder,
    Installation,
    PortRaceError,
    aot_flags,
    file_size,
    format_folder,
    java_command,
    wait_ready,
    write_configuration,
)
from stream_app.broker.lock import FolderLock, Holder, read_holder
from stream_app.broker.maven import fetch_jar
from stream_app.broker.process import KafkaProcess

STOP_BOUND_S: Final = 20.0
"""Time that Kafka gets to stop cleanly; it takes 0.2 s, and seconds with thousands of dirty partitions."""

NUM_PORT_TRIES: Final = 4
"""Each try loses its ports to another process with a chance far below 1 %."""

MIN_HEAP_MB: Final = 128
NO_EXTRA: Final[Mapping[str, str]] = MappingProxyType({})


def _say_nothing(text: str) -> None:
    """Drop a line of progress."""


class EmbeddedBroker:
    """One Kafka broker on the loopback interface, on a data folder that it keeps or on one that goes with it.

    Not for several threads at once. If this Python process ends in any way, Kafka ends too (see `process`).

    Args:
        data_dir: Folder of the data, made if it isn't there; None for a temporary one that `stop` removes.
        port: Port for clients; None for a free one, the same as in the last run on this folder if possible.
        heap_mb: Largest Java heap, in MiB.
        on_progress: Called with a line of text while something takes long (the first start on a machine).
        extra_config: Further Kafka properties, which win over the defaults of this package.

    Raises:
        BrokerConfigError: The heap is too small for Kafka.
    """

    def __init__(
        self,
        data_dir: Path | None,
        *,
        port: int | None = None,
        heap_mb: int = 512,
        on_progress: Callable[[str], None] = _say_nothing,
        extra_config: Mapping[str, str] = NO_EXTRA,
    ) -> None:
        if heap_mb < MIN_HEAP_MB:
            raise BrokerConfigError(
                f"A heap of {heap_mb} MiB is too small for Kafka.", mend=f"give it {MIN_HEAP_MB} MiB or more."
            )
        self._folder = None if data_dir is None else DataFolder(data_dir.expanduser().resolve())
        self._is_ephemeral = data_dir is None
        self._port = port
        self._heap_mb = heap_mb
        self._on_progress = on_progress
        self._extra_config = dict(extra_config)
        self._process: KafkaProcess | None = None
        self._lock: FolderLock | None = None
        self._ports: tuple[int, int] | None = None

    @property
    def data_dir(self) -> Path:
        """The data folder. Raises BrokerError for a temporary one before the first start."""
        return self._known_folder().path

    @property
    def log_file(self) -> Path:
        """Kafka's log. Raises BrokerError for a temporary data folder before the first start."""
        return self._known_folder().log_file

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect, as `host:port`. Raises BrokerError before the first start."""
        if self._ports is None:
            raise BrokerError("The broker was not started yet, so it has no address.", mend="call start().")
        return f"{LOOPBACK}:{self._ports[0]}"

    @property
    def pid(self) -> int:
        """Kafka's process id. Raises BrokerError where it doesn't run."""
        if self._process is None:
            raise BrokerError("The broker was not started, or was stopped.", mend="call start().")
        return self._process.pid

    def poll(self) -> int | None:
        """Return Kafka's exit status if it ended by itself, else None (it runs, or was never started)."""
        return None if self._process is None else self._process.poll()

    def start(self, timeout_s: float = 60.0) -> str:
        """Start Kafka and wait until it answers; the first start on a machine fetches and prepares it too.

        Takes 0.8 s (1.8 s with a Java before 25), and up to 4 s after a kill: Kafka waits for the session of
        the one that was killed.

        Args:
            timeout_s: Bound for Kafka to answer once its process runs, in seconds.

        Returns:
            Where clients connect, as `host:port`.

        Raises:
            FolderInUseError: Another broker runs on the data folder.
            PortTakenError: The port that was asked for is in use.
            JarDownloadError, JarDamagedError, JavaUnsuitableError: This machine cannot run Kafka as it is.
            BrokerStartError: Kafka ended, or did not answer in time.
        """
        if self._process is not None:
            if self._process.poll() is None:
                raise BrokerError(f"The broker runs already, on {self.bootstrap_servers}.", mend="stop it first.")
            self.kill()  # it ended by itself; what is left of it is put away
        folder = self._open_folder()
        previous = read_holder(folder.lock_file)
        self._lock = FolderLock.acquire(folder.lock_file)
        try:
            self._start_locked(folder, self._lock, previous, timeout_s)
        except BaseException:
            self._put_away(remove=self._is_ephemeral)
            raise
        return self.bootstrap_servers

    def stop(self) -> None:
        """Stop Kafka: ask it, wait up to 20 s, then kill it. Removes a temporary data folder. Idempotent."""
        if self._process is not None:
            self._process.stop(STOP_BOUND_S)
        self._put_away(remove=self._is_ephemeral)

    def kill(self) -> None:
        """End Kafka as a crash would (SIGKILL). The data stays, temporary or not: `start` works again."""
        if self._process is not None:
            self._process.kill()
        self._put_away(remove=False)

    def __enter__(self) -> Self:
        """Start the broker."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the broker."""
        self.stop()

    def _known_folder(self) -> DataFolder:
        if self._folder is None:
            raise BrokerError("A temporary data folder is made at the start.", mend="call start() first.")
        return self._folder

    def _open_folder(self) -> DataFolder:
        if self._folder is None:
            self._folder = DataFolder(Path(tempfile.mkdtemp(prefix="sliceflow-broker-")))
        try:
            self._folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BrokerConfigError(
                f"The data folder {self._folder.path} cannot be made: {error.strerror}.",
                mend="choose a folder that you may write to.",
            ) from error
        return self._folder

    def _start_locked(self, folder: DataFolder, lock: FolderLock, previous: Holder | None, timeout_s: float) -> None:
        holder = Holder(pid=os.getpid(), since=datetime.now(UTC).isoformat(timespec="seconds"))
        lock.record(holder)
        java = find_java(os.environ)
        cache = cache_folder(os.environ)
        ready = install(load_lock(), java, cache, fetch=fetch_jar, on_progress=self._on_progress)
        format_folder(folder, ready.bootstrap)
        ports = self._launch_on_free_ports(ready, folder, lock, self._ports or _ports_of(previous), timeout_s)
        lock.record(Holder(holder.pid, holder.since, self.pid, port=ports[0], controller_port=ports[1]))

    def _launch_on_free_ports(
        self,
        ready: Installation,
        folder: DataFolder,
        lock: FolderLock,
        preferred: tuple[int, int] | None,
        timeout_s: float,
    ) -> tuple[int, int]:
        for _ in range(NUM_PORT_TRIES - 1):
            try:
                return self._launch(ready, folder, lock, preferred, timeout_s)
            except PortRaceError:
                preferred = None
        return self._launch(ready, folder, lock, None, timeout_s)

    def _launch(
        self,
        ready: Installation,
        folder: DataFolder,
        lock: FolderLock,
        preferred: tuple[int, int] | None,
        timeout_s: float,
    ) -> tuple[int, int]:
        """Start the process on the chosen ports and wait until it answers; leave none behind otherwise."""
        ports = choose_ports(fixed=self._port, preferred=preferred)
        write_configuration(folder, ports, self._extra_config)
        command = java_command(
            ready.java,
            ready.jars,
            folder,
            heap_mb=self._heap_mb,
            flags=aot_flags(ready),
            main=[MAIN_CLASS, str(folder.properties_file)],
        )
        log_start = file_size(folder.log_file)
        process = KafkaProcess.launch(
            command,
            folder=folder.path,
            output=folder.output_file,
            inherit=lock.descriptor,
            remove=folder.path if self._is_ephemeral else None,
        )
        try:
            deadline_s = time.monotonic() + timeout_s
            wait_ready(process, folder, port=ports[0], log_start=log_start, deadline_s=deadline_s)
        except BaseException:
            process.kill()
            raise
        self._process, self._ports = process, ports
        return ports

    def _put_away(self, *, remove: bool) -> None:
        """Forget the process that has ended, unlock the folder, and remove it if it goes with the broker."""
        self._process = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if remove and self._folder is not None:
            shutil.rmtree(self._folder.path, ignore_errors=True)
            self._folder = None


def _ports_of(previous: Holder | None) -> tuple[int, int] | None:
    """Return the ports of the last run on a data folder, as far as they are known."""
    if previous is None or previous.port is None or previous.controller_port is None:
        return None
    return previous.port, previous.controller_port
