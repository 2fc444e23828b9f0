"""`sliceflow rebuild` without roles: what it prints and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stream_app.cli.rebuild import _summary
from tests.cli.conftest import Cli


def facts(**changes: Any) -> dict[str, Any]:
    """The facts of some rebuild."""
    made = {"role": "trend", "records": 1200, "keys": 30, "added": 0, "changed": 0, "removed": 0, "seconds": 2.5}
    return made | changes


def test_a_line_for_people() -> None:
    assert _summary(facts()) == "trend: 30 keys from 1,200 records in 2.5 s; nothing differed"
    assert _summary(facts(added=2, removed=1)).endswith("; 2 added, 1 removed")
    assert _summary(facts(damage="It is gone.")).endswith("since it could not be read: It is gone.")


def test_a_role_that_is_none_is_told(lonely: Cli) -> None:
    result = lonely("rebuild", "everything")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "sequence" in result.stderr


def test_without_a_broker_it_says_what_to_run(lonely: Cli) -> None:
    result = lonely("rebuild", "trend")
    assert (result.exit_code, "sliceflow up" in result.stderr) == (1, True)


@pytest.mark.kafka
def test_before_anything_was_read_there_is_nothing_to_do(cli: Cli) -> None:
    cli.ok("topics", "--create")
    result = cli("rebuild", "sequence")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found.pop("seconds") > 0
    assert found == {"role": "sequence", "records": 0, "keys": 0, "added": 0, "changed": 0, "removed": 0}
    assert "nothing differed" in result.stderr
    cli.environ["SLICEFLOW_PARTITIONS"] = "3"
    wrong = cli("rebuild", "sequence", "--json")
    assert (wrong.exit_code, "2 partitions, but the settings say 3" in wrong.stderr) == (1, True)


@pytest.mark.kafka
def test_a_role_that_needs_a_model_says_so(cli: Cli) -> None:
    cli.ok("topics", "--create")
    for role in ("encode", "recommend"):
        result = cli("rebuild", role, "--json")
        assert (result.exit_code, "sliceflow train" in result.stderr) == (1, True)
