"""Writes the list of the jars of Kafka Streams and their hashes anew.

python -m tests.bench.sequence.peers.kafka_streams.relock
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from stream_app.broker.jars import Jar, sha256_of
from stream_app.broker.maven import fetch_jar
from tests.bench.sequence.peers.kafka_streams.launch import LOCK

COORDINATES: Final = (
    # What the POM of kafka-streams 4.3.1 asks for, in its versions.
    "at.yawk.lz4:lz4-java:1.10.2",
    "com.fasterxml.jackson.core:jackson-annotations:2.21",
    "com.fasterxml.jackson.core:jackson-core:2.21.2",
    "com.fasterxml.jackson.core:jackson-databind:2.21.2",
    "com.github.luben:zstd-jni:1.5.6-10",
    "org.apache.kafka:kafka-clients:4.3.1",
    "org.apache.kafka:kafka-streams:4.3.1",
    "org.rocksdb:rocksdbjni:10.1.3",
    "org.slf4j:slf4j-api:1.7.36",
    # Brings warnings and errors to standard error.
    "org.slf4j:slf4j-simple:1.7.36",
    "org.xerial.snappy:snappy-java:1.1.10.7",
)


def main() -> None:
    """Fetch each jar and write its coordinates and SHA-256.

    Raises:
        JarDownloadError: A jar could not be fetched.
    """
    lines = ["# Jars of the Kafka Streams peer; written by relock.py."]
    with tempfile.TemporaryDirectory() as scratch:
        for coordinates in sorted(COORDINATES):
            group, artifact, version = coordinates.split(":")
            # No jar has an empty hash, so none is taken from the user's own Maven folder.
            fetched = fetch_jar(Jar(group, artifact, version, sha256=""), Path(scratch))
            lines.append(f"{coordinates} {sha256_of(fetched)}")
    LOCK.write_text("\n".join([*lines, ""]), "utf-8")


if __name__ == "__main__":
    main()
