"""Getting a machine ready, with a shell script in Java's place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from stream_app.broker.errors import BrokerStartError
from stream_app.broker.install import cache_folder, install
from stream_app.broker.jars import Jar
from stream_app.broker.java import Java

JARS = (Jar("org.example", "one", "1.0", hashlib.sha256(b"1").hexdigest()),)

# Formats as Kafka's command does, from the properties file that is its last argument; anything else fails.
FORMATS = """
for last; do :; done
folder=$(sed -n 's/^log.dirs=//p' "$last")
case "$*" in *StorageTool*) ;; *) exit 5 ;; esac
mkdir -p "$folder"
echo levels > "$folder/bootstrap.checkpoint"
"""


def java(tmp_path: Path, body: str, major: int) -> Java:
    path = tmp_path / "java"
    path.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\n{body}")
    path.chmod(0o755)
    return Java(path, major, "a test")


def fetch(_jar: Jar, scratch: Path) -> Path:
    path = scratch / "download"
    path.write_bytes(b"1")
    return path


def num_runs(tmp_path: Path) -> int:
    return len((tmp_path / "runs").read_text().splitlines())


def test_the_cache_folder_is_the_users() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/sliceflow")
    assert cache_folder({}) == Path.home() / ".cache" / "sliceflow"


def test_an_older_java_gets_no_class_cache_and_nothing_is_done_twice(tmp_path: Path) -> None:
    old = java(tmp_path, FORMATS, 21)
    told: list[str] = []
    ready = install(JARS, old, tmp_path / "cache", fetch=fetch, on_progress=told.append)
    assert ready.bootstrap.read_text() == "levels\n"
    assert ready.aot_cache is None
    told.clear()
    assert install(JARS, old, tmp_path / "cache", fetch=fetch, on_progress=told.append) == ready
    assert told == []
    assert num_runs(tmp_path) == 1


def test_a_class_cache_that_cannot_be_made_is_told_and_not_tried_again(tmp_path: Path) -> None:
    new = java(tmp_path, FORMATS, 25)
    told: list[str] = []
    ready = install(JARS, new, tmp_path / "cache", fetch=fetch, on_progress=told.append)
    assert ready.aot_cache is None
    assert "starting without a class cache" in told[-1]
    assert "exit status 5" in told[-1]
    assert install(JARS, new, tmp_path / "cache", fetch=fetch, on_progress=told.append) == ready
    assert num_runs(tmp_path) == 2
    assert not list((tmp_path / "cache").rglob(".training-*"))


def test_a_failed_format_shows_what_it_printed(tmp_path: Path) -> None:
    broken = java(tmp_path, "echo 'Error occurred: no room' >&2; exit 4\n", 25)
    with pytest.raises(BrokerStartError, match="no room") as caught:
        install(JARS, broken, tmp_path / "cache", fetch=fetch, on_progress=lambda _: None)
    assert "exit status 4" in str(caught.value)
    assert not list((tmp_path / "cache").rglob("bootstrap.checkpoint"))
