"""The jars of Kafka: which they are, what each must hash to, and getting them onto this machine.

The list ships with the package as `kafka-jars.lock`: one line per jar, Maven coordinates and SHA-256, sorted.
It names no host: jars are asked for by coordinates, wherever the user's Maven settings say. Every jar is
hashed when it arrives and again at every start (45 MB: some 0.1 s), so a damaged file is named and never run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from stream_app.broker.errors import JarDamagedError, JarLockError

LOCK_NAME: Final = "kafka-jars.lock"
NUM_DOWNLOADS_AT_ONCE: Final = 4
"""Enough to hide the round trips; more is impolite to a public server."""

_COORDINATE = re.compile(r"[A-Za-z0-9_.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Fetch = Callable[["Jar", Path], Path]
"""Gets one jar: `(jar, scratch folder) -> path of the file`. The hash is checked by the caller."""


@dataclass(frozen=True, order=True)
class Jar:
    """One jar: its Maven coordinates and the SHA-256 it must have (64 hex digits)."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinates(self) -> str:
        """`group:artifact:version`."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def filename(self) -> str:
        """The name of the file in the jar folder; unique within a list, since artifacts are."""
        return f"{self.artifact}-{self.version}.jar"


def parse_lock(text: str) -> tuple[Jar, ...]:
    """Read a jar list.

    Raises:
        JarLockError: A line is not `group:artifact:version sha256`, is out of order, or there is none at all.
    """
    jars = [
        _parse_line(number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]
    names = [jar.filename for jar in jars]
    if not jars or jars != sorted(jars) or len(set(names)) != len(names):
        raise JarLockError(
            f"The jar list has {len(jars)} jars; expected at least one, sorted, each artifact once.",
            mend="regenerate it with `make lock-jars`.",
        )
    return tuple(jars)


def _parse_line(number: int, line: str) -> Jar:
    coordinates, _, sha256 = line.strip().partition(" ")
    parts = coordinates.split(":")
    if len(parts) != 3 or not all(map(_COORDINATE.fullmatch, parts)) or not _SHA256.fullmatch(sha256):
        raise JarLockError(
            f"Line {number} of the jar list is {line!r}; expected `group:artifact:version sha256`.",
            mend="regenerate it with `make lock-jars`.",
        )
    return Jar(parts[0], parts[1], parts[2], sha256)


def format_lock(jars: Iterable[Jar]) -> str:
    """Write a jar list; `parse_lock` reads it back unchanged, in sorted order."""
    lines = [f"{jar.coordinates} {jar.sha256}" for jar in sorted(jars)]
    return "\n".join(["# Jars of the embedded Kafka broker; written by `make lock-jars`.", *lines, ""])


def load_lock() -> tuple[Jar, ...]:
    """Return the jar list that ships with the package."""
    return parse_lock(resources.files("stream_app.broker").joinpath(LOCK_NAME).read_text("utf-8"))


def lock_digest(jars: Iterable[Jar]) -> str:
    """Return 12 hex digits that change whenever a jar does; names the cache folder of this set."""
    return hashlib.sha256(format_lock(jars).encode()).hexdigest()[:12]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits; O(size)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_jar(jar: Jar, path: Path) -> None:
    """Check one file against its hash.

    Raises:
        JarDamagedError: The hash differs.
    """
    seen = sha256_of(path)
    if seen != jar.sha256:
        raise JarDamagedError(
            f"{path.name} ({jar.coordinates}) at {path} is damaged: its SHA-256 is {seen}, expected {jar.sha256}.",
            mend=f"delete {path} and start again; it will be fetched anew.",
        )


def ensure_jars(
    jars: Sequence[Jar], folder: Path, *, fetch: Fetch, on_progress: Callable[[str], None]
) -> tuple[Path, ...]:
    """Make sure that every jar is in `folder` and has its hash; fetch those that are missing.

    A jar appears in the folder under its name only when it is complete and verified, so neither a broken
    connection nor two processes at once can leave half a file.

    Returns:
        The paths, in the order of `jars`.

    Raises:
        JarDamagedError: A jar on disk, or one just fetched, has another hash.
        JarDownloadError: A jar could not be fetched.
    """
    paths = tuple(folder / jar.filename for jar in jars)
    missing = [jar for jar, path in zip(jars, paths, strict=True) if not path.exists()]
    for jar, path in zip(jars, paths, strict=True):
        if jar not in missing:
            verify_jar(jar, path)
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        _fetch_all(missing, folder, fetch, on_progress)
    return paths


def _fetch_all(jars: Sequence[Jar], folder: Path, fetch: Fetch, on_progress: Callable[[str], None]) -> None:
    on_progress(f"fetching {len(jars)} Kafka jars into {folder} (once)")
    num_bytes = 0
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch,
        ThreadPoolExecutor(NUM_DOWNLOADS_AT_ONCE) as pool,
    ):
        waiting = {pool.submit(_fetch_one, jar, folder, Path(scratch), fetch): jar for jar in jars}
        try:
            for number, done in enumerate(as_completed(waiting), start=1):
                num_bytes += done.result()
                on_progress(f"{number}/{len(jars)} jars, {num_bytes / 1e6:.0f} MB: {waiting[done].filename}")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fetch_one(jar: Jar, folder: Path, scratch: Path, fetch: Fetch) -> int:
    """Fetch, verify, and move one jar into place; return its size in bytes."""
    found = fetch(jar, scratch)
    verify_jar(jar, found)
    target = folder / jar.filename
    whole = scratch / jar.filename
    if found != whole:
        # The file may belong to the user's own Maven folder: copy it, never move it.
        shutil.copyfile(found, whole)
    os.replace(whole, target)
    return target.stat().st_size
