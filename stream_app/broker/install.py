"""Gets this machine ready to run Kafka: jars, the record of feature levels, and Java's class cache.

All of it is kept in the user's cache folder and made once for each set of jars; deleting the folder costs
nothing but the time to make it again. A second process that needs it at the same time waits.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stream_app.broker.config import choose_ports
from stream_app.broker.errors import BrokerError, BrokerStartError
from stream_app.broker.jars import Fetch, Jar, ensure_jars, lock_digest
from stream_app.broker.java import Java
from stream_app.broker.launch import (
    MAIN_CLASS,
    DataFolder,
    Installation,
    format_folder,
    java_command,
    new_kafka_uuid,
    start_error,
    telling_lines,
    wait_ready,
    write_configuration,
)
from stream_app.broker.process import KafkaProcess

AOT_JAVA_MAJOR: Final = 25
"""The first Java that writes its class cache in one run (JEP 514)."""

FORMAT_TIMEOUT_S: Final = 60
"""Bound for Kafka's format command; it takes 1 s."""

TRAINING_START_S: Final = 60
TRAINING_STOP_S: Final = 120
"""Bound for Java to write its class cache when it ends; it takes 5 s on two cores."""

TRAINING_HEAP_MB: Final = 512


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's cache folder for Sliceflow: `XDG_CACHE_HOME`, or `~/.cache` where it isn't set."""
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sliceflow"


def install(
    jars: tuple[Jar, ...], java: Java, cache: Path, *, fetch: Fetch, on_progress: Callable[[str], None]
) -> Installation:
    """Make sure that everything to run Kafka is on this machine, and verified.

    Takes 0.1 s when it is; the first time it fetches 40 MB and then works for some 8 s.

    Raises:
        JarDownloadError, JarDamagedError: See `ensure_jars`.
        BrokerStartError: Kafka's format command failed.
    """
    folder = cache / f"kafka-{lock_digest(jars)}"
    folder.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(folder / "install.lock"):
        paths = ensure_jars(jars, folder / "jars", fetch=fetch, on_progress=on_progress)
        bootstrap = folder / "bootstrap.checkpoint"
        if not bootstrap.exists():
            _make_bootstrap(java, paths, bootstrap)
        ready = Installation(java, paths, bootstrap, None)
        return Installation(java, paths, bootstrap, _aot_cache(ready, folder, on_progress))


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_bootstrap(java: Java, jars: tuple[Path, ...], target: Path) -> None:
    """Have Kafka's own format command write the feature levels of a new cluster of this version."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".format-") as scratch:
        folder = DataFolder(Path(scratch))
        write_configuration(folder, (1, 2), {})
        settings = str(folder.properties_file)
        main = ["kafka.tools.StorageTool", "format", "-t", new_kafka_uuid(), "-c", settings]
        command = java_command(java, jars, folder, heap_mb=256, flags=[], main=main)
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=FORMAT_TIMEOUT_S, check=False
        )
        made = folder.kafka / target.name
        if done.returncode != 0 or not made.exists():
            lines = "\n    ".join(telling_lines(done.stdout + done.stderr))
            raise BrokerStartError(
                f"Kafka's format command ended with exit status {done.returncode}:\n    {lines}\n",
                mend=f"delete {target.parent} and start again; what is in it will be made anew.",
            )
        os.replace(made, target)


def _aot_cache(ready: Installation, folder: Path, on_progress: Callable[[str], None]) -> Path | None:
    """Return Java's class cache, made now if it isn't there; None where this Java can't make one."""
    if ready.java.major < AOT_JAVA_MAJOR:
        return None
    key = hashlib.sha256(str(ready.java.executable.resolve()).encode()).hexdigest()[:8]
    target = folder / f"java-{ready.java.major}-{key}.aot"
    # An empty file says that making one failed here before: a start must not try it again each time.
    if not target.exists():
        on_progress("preparing Java's class cache, for quick starts (once)")
        try:
            _train(ready, target)
        except (BrokerError, OSError) as error:
            on_progress(f"starting without a class cache: {error}")
            target.touch()
    return target if target.stat().st_size else None


def _train(ready: Installation, target: Path) -> None:
    """Run a broker on an empty folder, once, with Java noting which classes it loads."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".training-") as scratch:
        folder = DataFolder(Path(scratch))
        made = folder.path / target.name
        ports = choose_ports(fixed=None)
        format_folder(folder, ready.bootstrap)
        write_configuration(folder, ports, {})
        main = [MAIN_CLASS, str(folder.properties_file)]
        flags = [f"-XX:AOTCacheOutput={made}"]
        command = java_command(ready.java, ready.jars, folder, heap_mb=TRAINING_HEAP_MB, flags=flags, main=main)
        with folder.lock_file.open("w") as keep:
            process = KafkaProcess.launch(command, folder=folder.path, output=folder.output_file, inherit=keep.fileno())
            try:
                deadline_s = time.monotonic() + TRAINING_START_S
                wait_ready(process, folder, port=ports[0], log_start=0, deadline_s=deadline_s)
                process.stop(TRAINING_STOP_S)
            finally:
                process.kill()
        if not made.exists():
            raise start_error("Java wrote no class cache", folder, 0)
        shutil.move(made, target)
