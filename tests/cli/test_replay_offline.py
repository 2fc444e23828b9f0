"""`sliceflow replay` without a broker: what it prints, records and checks, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stream_app.demo import CONFIG_FILE, MODEL_FOLDER
from tests.cli.conftest import Cli
from tests.replay_cases import SAMPLE, sample_rows

NUM_EVENTS = 60


@pytest.fixture
def log(home: Path) -> str:
    """The first events of the sample, and a line that is none."""
    path = home / "events.ndjson"
    lines = [json.dumps(row) for row in sample_rows(NUM_EVENTS)]
    path.write_text("\n".join([*lines, "{"]), encoding="utf-8")
    return str(path)


@pytest.fixture
def offline(lonely: Cli) -> Cli:
    """The command line with the demo's model and no broker."""
    lonely.environ |= {
        "SLICEFLOW_CONFIG": str(SAMPLE / CONFIG_FILE),
        "SLICEFLOW_MODEL": str(SAMPLE / MODEL_FOLDER),
    }
    return lonely


def facts_of(stdout: str) -> dict[str, Any]:
    """The line of JSON, which must be all there is."""
    assert stdout.count("\n") == 1
    facts: dict[str, Any] = json.loads(stdout)
    return facts


def test_it_says_what_became_of_the_events(offline: Cli, log: str) -> None:
    result = offline("replay", log, "--offline")
    facts = facts_of(result.stdout)
    num_users = len({row["user_id"] for row in sample_rows(NUM_EVENTS)})
    assert result.exit_code == 0
    assert facts.pop("seconds") > 0
    assert facts == {
        "events_in": NUM_EVENTS + 1,
        "applied": NUM_EVENTS,
        "dead_lettered": 1,
        "dead_letter_reasons": {"not_json": 1},
        "dropped": {},
        "users": num_users,
        "recommendations": num_users,
        "balanced": True,
    }
    assert "1 dead letters (1 not_json), 0 dropped" in result.stderr
    assert f"{num_users} of {num_users} users have a list" in result.stderr


def test_a_recording_is_checked_to_the_letter(offline: Cli, log: str, home: Path) -> None:
    offline.ok("replay", log, "--offline", "--record", "first")
    result = offline("replay", log, "--offline", "--record", "second", "--check", "first", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    facts = facts_of(result.stdout)
    assert (facts["same"], facts["differing"]) == (True, 0)
    first = (home / "first").read_bytes()
    assert first == (home / "second").read_bytes()

    row = json.loads(first.splitlines()[4])
    row["items"][2]["score"] += 1
    lines = first.splitlines()
    lines[4] = json.dumps(row, separators=(",", ":")).encode()
    (home / "first").write_bytes(b"\n".join(lines))
    result = offline("replay", log, "--offline", "--check", "first")
    assert result.exit_code == 1
    facts = facts_of(result.stdout)
    assert (facts["same"], facts["differing"], facts["first_difference"]["line"]) == (False, 1, 5)
    (field,) = facts["first_difference"]["fields"]
    assert (field["field"], round(field["expected"] - field["found"], 6)) == ("items[2].score", 1.0)
    assert f'The list of user "{row["user_id"]}" (line 5) differs:\n  items[2].score: expected ' in result.stderr
    assert "differ from first" in result.stderr
    assert offline("replay", log, "--offline", "--check", "first", "--score-tolerance", "1.1").exit_code == 0


def test_another_log_differs_in_what_is_not_there(offline: Cli, log: str) -> None:
    offline.ok("replay", log, "--offline", "--record", "all")
    result = offline("replay", log, "--offline", "--limit", "5", "--check", "all", "--json")
    first = facts_of(result.stdout)["first_difference"]
    assert (result.exit_code, first["line"]) == (1, 1)
    assert {"field": "events_in", "expected": NUM_EVENTS + 1, "found": 5} in first["fields"]
    assert {"field": "dead_letters.not_json", "expected": 1} in first["fields"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--offline", "--speed", "1"], "--speed"),
        (["--offline", "--no-wait"], "--no-wait"),
        (["--no-wait", "--record", "out"], "--no-wait"),
        (["--no-wait", "--check", "out"], "--no-wait"),
        (["--offline", "--check", "none"], "none cannot be read"),
        (["--offline", "--check", "events.ndjson"], "Line 1 of events.ndjson"),
        (["--offline", "--record", "none/out"], "no such folder"),
        (["--offline", "--score-tolerance", "0.1"], "--check"),
        (["--offline", "--items", "none"], "item file none"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_replayed(
    offline: Cli, log: str, options: list[str], told: str
) -> None:
    result = offline("replay", log, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert "events taken" not in result.stderr


def test_without_a_model_it_says_how_to_get_one(offline: Cli, log: str) -> None:
    del offline.environ["SLICEFLOW_MODEL"]
    result = offline("replay", log, "--offline")
    assert (result.exit_code, "sliceflow train" in result.stderr) == (1, True)
