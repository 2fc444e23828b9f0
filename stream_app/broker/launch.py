"""Starts a Kafka process on a data folder and waits until it answers.

Layout of a data folder::

    broker.lock         who runs a broker here (see lock)
    kafka/              Kafka's own data, formatted once
    server.properties   written at each start
    log4j2.properties   written at each start
    logs/broker.log     Kafka's log, 3 x 8 MB at most
    logs/output.log     what the Java process itself prints
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream_app.broker.config import NODE_ID, format_properties, logging_properties, server_properties
from stream_app.broker.errors import BrokerStartError
from stream_app.broker.java import Java
from stream_app.broker.probe import is_ready
from stream_app.broker.process import KafkaProcess

MAIN_CLASS: Final = "kafka.Kafka"
POLL_S: Final = 0.05
"""Pause between two questions to a starting broker; a start takes 0.7 s at best."""

SILENCE_S: Final = 0.5
"""How long one question waits: a broker that isn't ready keeps silent, and may have died meanwhile."""

NUM_LOG_LINES: Final = 12
_PORT_TAKEN: Final = ("Address already in use", "BindException")
_TELLING = re.compile(r"\b(ERROR|FATAL)\b|Exception|Caused by|Error occurred|Unrecognized")


@dataclass(frozen=True)
class Installation:
    """What it takes to run Kafka on this machine.

    Attributes:
        java: The runtime.
        jars: Kafka's jars, verified.
        bootstrap: Kafka's own record of the feature levels of a new cluster, put into each new data folder.
        aot_cache: Java's cache of loaded and linked classes, or None; takes a second off a start.
    """

    java: Java
    jars: tuple[Path, ...]
    bootstrap: Path
    aot_cache: Path | None


@dataclass(frozen=True)
class DataFolder:
    """The paths of a data folder."""

    path: Path

    @property
    def lock_file(self) -> Path:
        """The lock file."""
        return self.path / "broker.lock"

    @property
    def kafka(self) -> Path:
        """Kafka's own data."""
        return self.path / "kafka"

    @property
    def properties_file(self) -> Path:
        """Kafka's properties."""
        return self.path / "server.properties"

    @property
    def logging_file(self) -> Path:
        """The configuration of Kafka's log."""
        return self.path / "log4j2.properties"

    @property
    def log_file(self) -> Path:
        """Kafka's log."""
        return self.path / "logs" / "broker.log"

    @property
    def output_file(self) -> Path:
        """What the Java process prints."""
        return self.path / "logs" / "output.log"


class PortRaceError(BrokerStartError):
    """Another process took a port before Kafka bound it; trying again with other ports helps."""


def new_kafka_uuid() -> str:
    """Return a random UUID in Kafka's form: 22 characters of URL-safe base 64, no leading dash.

    A leading dash would look like an option to Kafka's tools.
    """
    while True:
        text = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text


def format_folder(folder: DataFolder, bootstrap: Path) -> None:
    """Make an empty Kafka data folder; does nothing if it is one already.

    Does what Kafka's own format command does (a cluster id, a folder id, the feature levels), without
    starting a Java for it. `meta.properties` comes last and by a rename: a folder has it only when it is
    complete.
    """
    meta = folder.kafka / "meta.properties"
    if meta.exists():
        return
    folder.kafka.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bootstrap, folder.kafka / "bootstrap.checkpoint")
    ids = {
        "version": "1",
        "cluster.id": new_kafka_uuid(),
        "directory.id": new_kafka_uuid(),
        "node.id": str(NODE_ID),
    }
    draft = meta.with_suffix(".draft")
    draft.write_text(format_properties(ids), "ascii")
    os.replace(draft, meta)


def write_configuration(folder: DataFolder, ports: tuple[int, int], extra: Mapping[str, str]) -> None:
    """Write Kafka's properties and logging files for the ports `(client, controller)`."""
    folder.log_file.parent.mkdir(parents=True, exist_ok=True)
    text = server_properties(log_dir=folder.kafka, client_port=ports[0], controller_port=ports[1], extra=extra)
    folder.properties_file.write_text(text, "ascii")
    folder.logging_file.write_text(logging_properties(), "ascii")


def java_command(
    java: Java,
    jars: Sequence[Path],
    folder: DataFolder,
    *,
    heap_mb: int,
    flags: Sequence[str],
    main: Sequence[str],
) -> list[str]:
    """Return the command line of a Java that runs one of Kafka's classes on a data folder."""
    return [
        str(java.executable),
        f"-Xmx{heap_mb}m",
        # The quick compiler alone: a broker mostly moves bytes; 0.3 s less at a start, 30 MB less memory.
        "-XX:TieredStopAtLevel=1",
        "-XX:+IgnoreUnrecognizedVMOptions",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        f"-XX:ErrorFile={folder.log_file.parent / 'java-crash.log'}",
        "-Djava.awt.headless=true",
        f"-Dsliceflow.log={folder.log_file}",
        f"-Dlog4j2.configurationFile={folder.logging_file}",
        *flags,
        "-cp",
        os.pathsep.join(map(str, jars)),
        *main,
    ]


def aot_flags(installation: Installation) -> list[str]:
    """Return the flags that make Java use its class cache, if there is one."""
    if installation.aot_cache is None:
        return []
    # A cache of another Java or other jars is passed over, quietly.
    return [f"-XX:AOTCache={installation.aot_cache}", "-Xlog:aot=off", "-Xlog:cds=off"]


def wait_ready(process: KafkaProcess, folder: DataFolder, *, port: int, log_start: int, deadline_s: float) -> None:
    """Wait until the broker answers.

    Args:
        process: Kafka.
        folder: Its data folder, for its logs.
        port: Its client port.
        log_start: Length of the log before the start, in bytes; earlier lines tell of earlier runs.
        deadline_s: When to give up, by `time.monotonic()`.

    Raises:
        PortRaceError: Kafka ended since a port was taken.
        BrokerStartError: Kafka ended for another reason, or did not answer in time.
    """
    while not is_ready(port, timeout_s=SILENCE_S):
        if (status := process.poll()) is not None:
            raise start_error(f"Kafka ended with exit status {status} while it started", folder, log_start)
        if time.monotonic() >= deadline_s:
            raise start_error("Kafka did not answer within the time given", folder, log_start)
        time.sleep(POLL_S)
    if (status := process.poll()) is not None:
        # What answered on the port is another server.
        raise start_error(f"Kafka ended with exit status {status} while it started", folder, log_start)


def start_error(seen: str, folder: DataFolder, log_start: int) -> BrokerStartError:
    """Make the error for a failed start, with the lines of the logs that tell why."""
    text = _tail(folder.output_file, 0) + _tail(folder.log_file, log_start)
    lines = "".join(f"\n    {line}" for line in telling_lines(text))
    kind = PortRaceError if any(sign in text for sign in _PORT_TAKEN) else BrokerStartError
    return kind(
        f"{seen}. Its log is {folder.log_file}; it ends with:{lines}\n",
        mend="read the log; a data folder that is beyond repair can be deleted, or another one chosen.",
    )


def telling_lines(text: str) -> list[str]:
    """Return the last lines of a log that name an error, or simply the last lines where none does."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return [line[:300] for line in (telling or lines)[-NUM_LOG_LINES:]] or ["(nothing was written)"]


def file_size(path: Path) -> int:
    """Return the size of a file in bytes, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def _tail(path: Path, start: int) -> str:
    if not path.exists():
        return ""
    raw = path.read_bytes()
    # A log that rolled over meanwhile is shorter than it was: then all of it is new.
    return raw[start if start <= len(raw) else 0 :].decode("utf-8", "replace") + "\n"
