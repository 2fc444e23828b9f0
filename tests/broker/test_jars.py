"""The jar list and what is done with it; nothing here uses a network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker.errors import JarDamagedError, JarLockError
from stream_app.broker.jars import (
    Jar,
    ensure_jars,
    format_lock,
    load_lock,
    lock_digest,
    parse_lock,
    sha256_of,
    verify_jar,
)

NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)
JARS = st.builds(Jar, NAMES, NAMES, NAMES, st.from_regex(r"[0-9a-f]{64}", fullmatch=True))
HEX = "0" * 64


def make_jar(name: str, content: bytes) -> Jar:
    return Jar("org.example", name, "1.0", hashlib.sha256(content).hexdigest())


class Shelf:
    """A repository in memory; counts what is asked of it."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.asked: list[str] = []

    def fetch(self, jar: Jar, scratch: Path) -> Path:
        self.asked.append(jar.artifact)
        path = scratch / f"download-{jar.artifact}"
        path.write_bytes(self.contents[jar.artifact])
        return path


@pytest.mark.slow
@given(st.lists(JARS, min_size=1, unique_by=lambda jar: jar.filename))
def test_a_list_is_read_back_as_it_was_written(jars: list[Jar]) -> None:
    assert list(parse_lock(format_lock(jars))) == sorted(jars)


@pytest.mark.parametrize(
    "line",
    [
        f"org.example:name {HEX}",
        f"org.example:name:1:2 {HEX}",
        "org.example:name:1",
        f"org.example:name:1 {HEX[1:]}",
        f"org.example:name:1 {HEX.replace('0', 'G')}",
        f"org.example:na/me:1 {HEX}",
        f"org.example:name:1  {HEX}",
    ],
)
def test_a_line_of_another_form_is_named(line: str) -> None:
    with pytest.raises(JarLockError, match="Line 2") as caught:
        parse_lock(f"# a comment\n{line}\n")
    assert line in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", f"b:b:1 {HEX}\na:a:1 {HEX}\n", f"a:same:1 {HEX}\nb:same:1 {HEX}\n"],
    ids=["empty", "only a comment", "out of order", "one file name twice"],
)
def test_a_list_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(JarLockError, match="lock-jars"):
        parse_lock(text)


def test_the_list_of_the_package_has_kafka_and_its_logging() -> None:
    found = {jar.artifact: jar.version for jar in load_lock()}
    assert found["kafka_2.13"] == found["kafka-clients"] == "4.3.1"
    assert found["log4j-slf4j-impl"] == found["log4j-core"]
    assert not any("reflect" in artifact for artifact in found)


def test_the_digest_follows_every_hash() -> None:
    one, other = Jar("a", "b", "1", HEX), Jar("a", "b", "1", "1" * 64)
    assert lock_digest([one]) != lock_digest([other])
    assert lock_digest([one]) == lock_digest([one])


def test_the_hash_is_the_one_of_the_standard(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_missing_jars_are_fetched_once_and_told(tmp_path: Path) -> None:
    shelf = Shelf({"one": b"1", "two": b"22"})
    jars = [make_jar(name, content) for name, content in shelf.contents.items()]
    told: list[str] = []
    paths = ensure_jars(jars, tmp_path / "jars", fetch=shelf.fetch, on_progress=told.append)
    assert [path.read_bytes() for path in paths] == [b"1", b"22"]
    assert sorted(shelf.asked) == ["one", "two"]
    assert "2/2" in told[-1]

    told.clear()
    assert ensure_jars(jars, tmp_path / "jars", fetch=shelf.fetch, on_progress=told.append) == paths
    assert len(shelf.asked) == 2
    assert told == []


def test_a_damaged_jar_on_disk_is_refused_by_name(tmp_path: Path) -> None:
    jar = make_jar("one", b"1")
    damaged = tmp_path / jar.filename
    damaged.write_bytes(b"2")
    shelf = Shelf({"one": b"1"})
    with pytest.raises(JarDamagedError, match=r"one-1\.0\.jar") as caught:
        ensure_jars([jar], tmp_path, fetch=shelf.fetch, on_progress=lambda _: None)
    assert f"delete {damaged}" in caught.value.mend
    assert shelf.asked == []


def test_a_damaged_download_never_reaches_the_folder(tmp_path: Path) -> None:
    shelf = Shelf({"one": b"something else"})
    with pytest.raises(JarDamagedError, match=r"org\.example:one"):
        ensure_jars([make_jar("one", b"1")], tmp_path, fetch=shelf.fetch, on_progress=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_users_is_copied_not_moved(tmp_path: Path) -> None:
    own = tmp_path / "maven" / "one.jar"
    own.parent.mkdir()
    own.write_bytes(b"1")
    folder = tmp_path / "jars"
    ensure_jars([make_jar("one", b"1")], folder, fetch=lambda _jar, _scratch: own, on_progress=lambda _: None)
    assert own.read_bytes() == (folder / "one-1.0.jar").read_bytes()


def test_verify_accepts_the_right_file(tmp_path: Path) -> None:
    jar = make_jar("one", b"1")
    path = tmp_path / jar.filename
    path.write_bytes(b"1")
    verify_jar(jar, path)
