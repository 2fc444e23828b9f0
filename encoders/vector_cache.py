"""Vectors that were computed before, by who computed them and of what: one SQLite file.

A key is the SHA-256 of the content, under the fingerprint of the model. So nothing is ever stale: another model or
another text is another key. Several processes may use one file.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from encoders.contract import EncoderError, Float32Array

# How long a process waits for another one that writes, in seconds; one write takes milliseconds.
LOCK_WAIT_S = 30.0
# SQLite refuses statements with more values than 32,766.
KEYS_AT_A_TIME = 10_000


class DamagedCacheError(EncoderError):
    """The file is no cache of vectors; the message names it."""


def content_key(content: bytes) -> bytes:
    """SHA-256 of a content."""
    return hashlib.sha256(content).digest()


class VectorCache:
    """Vectors by model and content.

    Args:
        path: of the file; made, with its folder, when something is first put in.

    Every call raises `DamagedCacheError` where the file is something else or broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, model: str, keys: Sequence[bytes], dim: int) -> dict[bytes, Float32Array]:
        """The (dim,) float32 vectors that are there, by key; one of another length or not finite counts as missing."""
        if not self.path.exists():
            return {}
        found: dict[bytes, Float32Array] = {}
        with self._open() as connection:
            for start in range(0, len(keys), KEYS_AT_A_TIME):
                some = keys[start : start + KEYS_AT_A_TIME]
                marks = ",".join("?" * len(some))
                query = f"SELECT content, vector FROM vectors WHERE model = ? AND content IN ({marks})"
                for key, data in connection.execute(query, (model, *some)):
                    if isinstance(data, bytes) and len(data) == 4 * dim:
                        found[key] = np.frombuffer(data, dtype="<f4").astype(np.float32)
        return {key: vector for key, vector in found.items() if np.isfinite(vector).all()}

    def put(self, model: str, vectors: Mapping[bytes, Float32Array]) -> None:
        """Keep vectors, in one transaction."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [(model, key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
        with self._open() as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCK_WAIT_S)) as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS vectors "
                    "(model TEXT, content BLOB, vector BLOB, PRIMARY KEY (model, content)) WITHOUT ROWID"
                )
                yield connection
        except sqlite3.DatabaseError as error:
            raise DamagedCacheError(
                f"{self.path}: is no usable cache of vectors ({error}); delete the file, it is computed anew"
            ) from error
