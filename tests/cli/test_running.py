"""The commands that run things, as far as they can be told without running: options and refusals."""

from __future__ import annotations

import pytest

from stream_app.cli._context import pairs
from stream_app.cli.replay import parse_speed
from stream_app.cli.up import parse_counts
from stream_app.errors import UsageError
from tests.cli.conftest import Cli


@pytest.mark.parametrize("name", ["worker", "up", "replay", "demo"])
def test_each_command_explains_itself(lonely: Cli, name: str) -> None:
    assert f"Usage: sliceflow {name}" in lonely.ok(name, "--help")


def test_a_worker_without_a_broker_says_what_to_start(lonely: Cli) -> None:
    result = lonely("worker", "trend")
    assert result.exit_code == 1
    assert "sliceflow up" in result.stderr


def test_an_unknown_role_is_refused(lonely: Cli) -> None:
    assert lonely("worker", "rank").exit_code == 2
    assert lonely("up", "--workers", "rank=1").exit_code == 2


@pytest.mark.parametrize("text", ["sequence", "sequence=", "sequence=-1", "sequence=two", "sequence=²"])
def test_counts_must_be_counts(text: str) -> None:
    with pytest.raises(UsageError, match="ROLE=N"):
        parse_counts([text])
    assert parse_counts(["sequence=2", "trend=1"]) == {"sequence": 2, "trend": 1}


@pytest.mark.parametrize(("text", "expected"), [("max", None), ("1", 1.0), ("0.5", 0.5), ("3600", 3600.0)])
def test_speeds(text: str, expected: float | None) -> None:
    assert parse_speed(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "fast", ""])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--speed"):
        parse_speed(text)


@pytest.mark.parametrize("texts", [["VIEW"], ["=browse"], ["VIEW="], ["VIEW=a", "VIEW=b"]])
def test_what_is_no_pair_is_refused(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="--type-map"):
        pairs(texts, "--type-map")
    assert pairs(["a=b=c", "d=e"], "--type-map") == {"a": "b=c", "d": "e"}


def test_a_log_that_is_not_there_is_told_before_any_broker_is_asked(lonely: Cli) -> None:
    result = lonely("replay", "no-such-file")
    assert result.exit_code == 2
    assert "no-such-file" in result.stderr
