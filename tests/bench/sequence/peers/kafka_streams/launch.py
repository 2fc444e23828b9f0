"""What it takes to start the Kafka Streams peer, and what the harness must know of it.

Its jars come as the embedded broker's do, checked against `jars.lock`. `SequenceJob.java` is compiled by the `javac`
on PATH, once, into the user's cache folder, and runs on the Java that the broker runs on.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from stream_app.broker.install import cache_folder
from stream_app.broker.jars import Jar, ensure_jars, lock_digest, parse_lock
from stream_app.broker.java import MIN_JAVA_MAJOR, Java, find_java
from stream_app.broker.maven import fetch_jar
from stream_app.errors import SliceflowError
from tests.bench.sequence.job import Task

Guarantee = Literal["at_least_once", "exactly_once_v2"]

SOURCE: Final = Path(__file__).with_name("SequenceJob.java")
LOCK: Final = Path(__file__).with_name("jars.lock")
MAIN_CLASS: Final = "SequenceJob"
STORE: Final = "histories"
COUNT_BYTES: Final = 4

PROBE_TIMEOUT_S: Final = 20
"""Bound for `javac -version`; it takes 0.3 s."""

COMPILE_TIMEOUT_S: Final = 120
"""Bound for `javac`; it takes 2 s."""

NATIVE_ACCESS_JAVA_MAJOR: Final = 22
"""The first Java that warns of native libraries (RocksDB's) where they are not allowed."""

JVM_FLAGS: Final = (
    # One thread makes nearly all the garbage: the serial collector takes the fewest core seconds (at best 9.1 of
    # them for 1,000,000 events; parallel 9.8, G1 10.0).
    "-XX:+UseSerialGC",
    # The store's cache of 256 MiB, the producer's 128 MiB, and as much again.
    "-Xms1g",
    "-Xmx1g",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


class NoJdkError(SliceflowError):
    """There is no Java compiler that can compile the job."""


def state_topic(task: Task) -> str:
    """The topic that Kafka Streams makes for the state of a task, whatever `task.state_topic` says."""
    return f"{task.group}-{STORE}-changelog"


def decode_state(value: bytes) -> tuple[int, list[str]]:
    """Number of events and last items of a user, oldest first, from a record of the state topic."""
    return int.from_bytes(value[:COUNT_BYTES], "big"), value[COUNT_BYTES:].decode().split("\n")[:-1]


def read_lock() -> tuple[Jar, ...]:
    """The jars of Kafka Streams."""
    return parse_lock(LOCK.read_text("utf-8"))


def version() -> str:
    """The version of Kafka Streams."""
    return next(jar.version for jar in read_lock() if jar.artifact == "kafka-streams")


def why_not() -> str | None:
    """Why this peer cannot run here, or None if it can."""
    try:
        done = subprocess.run(
            ["javac", "-version"], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "no JDK: there is no javac on PATH that runs"
    found = re.match(r"javac (\d+)", done.stdout)
    if done.returncode != 0 or found is None:
        return "no JDK: the javac on PATH does not run"
    if int(found.group(1)) < MIN_JAVA_MAJOR:
        return f"the JDK on PATH is {found.group().removeprefix('javac ')}; {MIN_JAVA_MAJOR} or newer is needed"
    return None


def command(task: Task, guarantee: Guarantee, environ: Mapping[str, str]) -> list[str]:
    """The command line of the job; fetches the jars and compiles the source if that was not done yet.

    Raises:
        NoJdkError: There is no suitable `javac`, or it refused the source.
        JarDownloadError, JarDamagedError: A jar could not be had.
    """
    jars = read_lock()
    cache = cache_folder(environ) / f"kafka-streams-{lock_digest(jars)}"
    paths = ensure_jars(jars, cache / "jars", fetch=fetch_jar, on_progress=_say)
    classes = _classes(cache, paths)
    java = find_java(environ)
    return [
        str(java.executable),
        *JVM_FLAGS,
        *_native_flags(java),
        # Native libraries are unpacked there, and go with the folder if the process is killed.
        f"-Djava.io.tmpdir={task.folder}",
        "-cp",
        os.pathsep.join(map(str, [*paths, classes])),
        MAIN_CLASS,
        msgspec.json.encode(task).decode(),
        guarantee,
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _native_flags(java: Java) -> list[str]:
    return ["--enable-native-access=ALL-UNNAMED"] if java.major >= NATIVE_ACCESS_JAVA_MAJOR else []


def _classes(cache: Path, jars: Sequence[Path]) -> Path:
    """The folder of the compiled job, made now if it is not there."""
    target = cache / f"classes-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    if target.exists():
        return target
    if reason := why_not():
        raise NoJdkError(f"Kafka Streams cannot run: {reason}.", mend="install a JDK (17 or newer).")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".compiling-") as scratch:
        made = Path(scratch) / "classes"
        _compile(jars, made)
        try:
            made.rename(target)
        except OSError:
            # Another process has just put the same classes there.
            if not target.exists():
                raise
    return target


def _compile(jars: Sequence[Path], made: Path) -> None:
    told = ["javac", "--release", str(MIN_JAVA_MAJOR), "-Xlint:all", "-Werror", "-proc:none"]
    done = subprocess.run(
        [*told, "-cp", os.pathsep.join(map(str, jars)), "-d", str(made), str(SOURCE)],
        capture_output=True,
        text=True,
        timeout=COMPILE_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise NoJdkError(f"javac refused {SOURCE.name}:\n{done.stdout}{done.stderr}", mend="try another JDK.")
