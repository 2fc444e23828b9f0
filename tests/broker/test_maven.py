"""How Maven's own settings are read, and which file of two is taken; nothing here uses a network."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stream_app.broker import maven
from stream_app.broker.errors import JarDownloadError
from stream_app.broker.jars import Jar

MIRROR = "https://mirror.example/maven"


def settings_with(*mirrors: tuple[str, str], namespace: str = "") -> str:
    inner = "".join(f"<mirror><id>m</id><mirrorOf>{of}</mirrorOf><url>{url}</url></mirror>" for of, url in mirrors)
    return f"<settings{namespace}><mirrors>{inner}</mirrors></settings>"


@pytest.mark.parametrize("pattern", ["central", "*", "external:*", "other, central", "*,!internal"])
def test_a_mirror_of_central_is_found(pattern: str) -> None:
    assert maven.find_mirror(settings_with((pattern, MIRROR))) == MIRROR


@pytest.mark.parametrize("pattern", ["", "other", "*,!central", "external:http:*"])
def test_a_mirror_of_something_else_is_not(pattern: str) -> None:
    assert maven.find_mirror(settings_with((pattern, MIRROR))) is None


def test_the_first_mirror_that_matches_wins_with_a_namespace_too() -> None:
    namespace = ' xmlns="urn:example:settings"'
    text = settings_with(("other", "https://a"), ("*", MIRROR), ("*", "https://b"), namespace=namespace)
    assert maven.find_mirror(text) == MIRROR


def test_no_mirrors_at_all() -> None:
    assert maven.find_mirror("<settings/>") is None


@pytest.fixture
def jar() -> Jar:
    return Jar("org.example", "one", "1.0", hashlib.sha256(b"right").hexdigest())


def stub_repositories(monkeypatch: pytest.MonkeyPatch, *, local: Path, remote: Path | None) -> None:
    def open_stub(_scratch: Path, *, with_local: bool) -> Any:
        return SimpleNamespace(with_local=with_local)

    def artifact_stub(_jar: Jar, context: Any) -> Path:
        if context.with_local:
            return local
        if remote is None:
            raise RuntimeError("not found in remote repositories")
        return remote

    monkeypatch.setattr(maven, "_open", open_stub)
    monkeypatch.setattr(maven, "_artifact", artifact_stub)


@pytest.mark.parametrize(("content", "taken"), [(b"right", "local"), (b"wrong", "remote")])
def test_the_users_own_jar_is_taken_only_if_it_is_the_right_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jar: Jar, content: bytes, taken: str
) -> None:
    paths = {"local": tmp_path / "local", "remote": tmp_path / "remote"}
    paths["local"].write_bytes(content)
    stub_repositories(monkeypatch, local=paths["local"], remote=paths["remote"])
    assert maven.fetch_jar(jar, tmp_path) == paths[taken]


def test_a_failed_download_names_the_jar_and_what_mends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jar: Jar
) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"wrong")
    stub_repositories(monkeypatch, local=local, remote=None)
    with pytest.raises(JarDownloadError, match=r"org\.example:one:1\.0") as caught:
        maven.fetch_jar(jar, tmp_path)
    assert "mirror" in caught.value.mend
