"""What a worker's process is given, and how its end is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_app.role_process import (
    MAX_REASON_CHARS,
    Worker,
    is_ready_line,
    last_error,
    rotate,
    settings_environment,
    worker_command,
)
from stream_app.settings import KafkaSettings, Settings, load_settings


def test_a_child_reads_exactly_the_settings_of_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers="host:1", allow_plaintext_sasl=True, sasl_password="s {x"),
        prefix="a.",
        partitions=2,
        state_dir=str(tmp_path / "state"),
        event_types={"rating": 1.5},
        fields={"user_id": "visitor"},
        slice_gap_s=12.5,
        half_lives_s=[1.0, 2.5],
    )
    (tmp_path / "sliceflow.toml").write_text('prefix = "other"\n[kafka]\nsasl_username = "other"\n')
    monkeypatch.chdir(tmp_path)
    environ = {"SLICEFLOW_CONFIG": "no-such-file", "KAFKA_BOOTSTRAP_SERVERS": "other:2", "PATH": "/bin"}
    made = settings_environment(settings, environ)
    assert load_settings(environ=made) == settings
    assert made["PATH"] == "/bin"


def test_a_relative_state_folder_becomes_the_same_one_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = settings_environment(Settings(state_dir="state"), {})
    assert made["SLICEFLOW_STATE_DIR"] == str(tmp_path / "state")


def test_workers_have_names_and_numbers() -> None:
    assert [Worker("trend").label, Worker("trend", 2).label] == ["trend", "trend-2"]
    assert worker_command(Worker("trend", 2))[-5:] == ["worker", "trend", "--instance", "2", "--end-with-stdin"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"ready":"trend","instance":0,"pid":1}\n', True),
        (b"ready\n", False),
        (b"[1]\n", False),
        (b'"ready"', False),
    ],
)
def test_only_its_own_word_makes_a_worker_ready(line: bytes, expected: bool) -> None:
    assert is_ready_line(line) is expected


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        ("t ERROR x first\nt INFO x last\n", "t ERROR x first"),
        ("t CRITICAL x no\nError: There is no model. To mend it: train\nt INFO x last\n",
         "There is no model. To mend it: train"),
        ("sliceflow: the store is damaged\n", "the store is damaged"),
        ("x" * 5000, "x" * MAX_REASON_CHARS),
    ],
)  # fmt: skip
def test_the_last_error_of_a_log(tmp_path: Path, log: str, expected: str) -> None:
    path = tmp_path / "trend.log"
    path.write_text(log)
    assert last_error(path, 0) == expected


def test_errors_of_an_earlier_life_are_not_why_this_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "trend.log"
    path.write_text("Error: long ago\n")
    start = rotate(path, 1000)
    assert last_error(path, start) == ""
    assert last_error(tmp_path / "none.log", 0) == ""


def test_a_long_log_is_put_aside_once(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "trend.log"
    assert rotate(path, 10) == 0
    path.write_text("0123456789")
    assert rotate(path, 10) == 10
    path.write_text("0123456789x")
    assert rotate(path, 10) == 0
    assert not path.exists()
    assert path.with_name("trend.log.1").read_text() == "0123456789x"
