"""`sliceflow audit` as people see it; with roles it is tested in `test_with_roles`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from stream_app.audit.findings import NUM_NAMED, Check, key_text
from stream_app.broker import EmbeddedBroker
from stream_app.cli import main
from stream_app.cli.audit import lines_of
from stream_app.tables import PARTITION_KEY


def test_a_check_passes_only_where_all_of_it_was_checked() -> None:
    check = Check("stores", "a promise")
    seen: list[str] = [check.status]
    check.leave_out("one store", "it is gone")
    seen.append(check.status)
    check.num_checked += 1
    seen.append(check.status)
    check.breach("this", "that")
    seen.append(check.status)
    assert seen == ["pass", "not checked", "partly checked", "breach"]


def test_ten_breaches_are_named_and_all_are_counted() -> None:
    check = Check("lists", "a promise")
    for number in range(NUM_NAMED + 3):
        check.breach("this", "that", topic="lists", partition=1, offset=number, key=b"ann")
    lines = lines_of([check])
    assert len(lines) == NUM_NAMED + 1
    assert lines[2] == "breach of lists: lists[1] offset 2 key 'ann': seen this; expected that"
    assert lines[-1] == "breach of lists: and 3 more"
    assert check.plain()["num_breaches"] == NUM_NAMED + 3


def test_what_was_not_checked_and_what_to_know_is_told() -> None:
    check = Check("input", "a promise")
    check.leave_out("a part", "a reason")
    check.note("this too")
    assert lines_of([check]) == ["not checked by input: a part: a reason", "note on input: this too"]


def test_keys_are_shown_whatever_they_hold() -> None:
    assert key_text(PARTITION_KEY) == "(the partition's totals)"
    assert key_text(b"a\xff\n") == r"'a\\xff\n'"


@pytest.mark.parametrize("args", [["--bound-s", "-1"], ["--bound-s", "soon"], ["--nothing"], ["more"]])
def test_usage_errors_are_2(args: list[str]) -> None:
    result = CliRunner().invoke(main, ["audit", *args])
    assert (result.exit_code, result.stdout) == (2, "")


def environ_of(broker: EmbeddedBroker, prefix: str, home: Path) -> dict[str, str | None]:
    """The environment of one call."""
    servers = broker.bootstrap_servers
    return {"KAFKA_BOOTSTRAP_SERVERS": servers, "SLICEFLOW_PREFIX": prefix, "SLICEFLOW_HOME": str(home)}


@pytest.mark.kafka
def test_missing_topics_are_told_and_empty_ones_pass(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    environ = environ_of(broker, topic_prefix, tmp_path)
    missing = CliRunner().invoke(main, ["audit"], env=environ)
    assert (missing.exit_code, "topics --create" in missing.stderr) == (1, True)
    assert CliRunner().invoke(main, ["topics", "--create"], env=environ).exit_code == 0
    empty = CliRunner().invoke(main, ["audit", "--json"], env=environ)
    checks = {check["check"]: check for check in map(json.loads, empty.stdout.splitlines())}
    assert empty.exit_code == 0
    assert checks.pop("stores")["status"] == "not checked"
    assert {check["status"] for check in checks.values()} == {"pass"}
    table = CliRunner().invoke(main, ["audit"], env={**environ, "COLUMNS": "200"})
    assert (table.exit_code, "not checked by stores" in table.stdout) == (0, True)
    assert "0 events = 0 applied + 0 dead letters + 0 dropped; missing 0" in table.stdout
