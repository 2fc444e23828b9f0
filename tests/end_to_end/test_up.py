"""`sliceflow up` with the real roles: a replay that adds up although a role is killed, and no orphans."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from stream_app.demo import EVENTS_FILE, ITEMS_FILE
from tests.end_to_end.conftest import NUM_EVENTS, Commands, last_json
from tests.support import DEADLINE_S

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def read_until(process: subprocess.Popen[str], name: str) -> list[dict[str, Any]]:
    """The events of `up` up to and including the next one called `name`."""
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == name:
            return events
    raise AssertionError(f"up ended before {name}: {events}")


def test_a_replay_adds_up_although_a_role_is_killed(commands: Commands, small_example: Path) -> None:
    up = commands.start("up", "--json", "--workers", "sequence=2")
    events = read_until(up, "all-ready")
    with urllib.request.urlopen(events[-1]["page"] + "healthz", timeout=DEADLINE_S) as answer:
        assert json.load(answer) == {"status": "ok"}
    started = [event for event in events if event["event"] == "started"]
    assert [(event["role"], event["instance"]) for event in started] == [
        ("sequence", 0),
        ("sequence", 1),
        ("trend", 0),
        ("encode", 0),
        ("choose", 0),
        ("score", 0),
        ("recommend", 0),
        ("serve", 0),
    ]
    replay = commands.start("replay", str(small_example / EVENTS_FILE), "--items", str(small_example / ITEMS_FILE))
    os.kill(started[2]["pid"], signal.SIGKILL)
    died = read_until(up, "restarting")[0]
    assert (died["event"], died["role"], died["reason"]) == ("died", "trend", "signal SIGKILL")
    output, _ = replay.communicate(timeout=200)
    outcome = last_json(output)
    assert replay.returncode == 0
    assert output.count("\n") == 1
    assert (outcome["events_in"], outcome["applied"]) == (NUM_EVENTS, NUM_EVENTS)
    assert outcome["balanced"] is True
    assert outcome["users"] == outcome["recommendations"] > 0
    assert commands.stop(up) == 0
    commands.wait_all_gone()
    assert not (commands.home / "broker" / "address").exists()
    assert not (commands.home / "serve" / "address").exists()


def test_nothing_outlives_a_supervisor_that_is_killed(commands: Commands) -> None:
    up = commands.start("up", "--json")
    read_until(up, "all-ready")
    refused = commands.run("up")
    assert refused.returncode == 2
    assert f"process {up.pid}" in refused.stderr
    assert commands.stop(up, signal.SIGKILL) == -signal.SIGKILL
    commands.wait_all_gone()


def test_up_without_a_model_says_what_to_do(commands: Commands) -> None:
    del commands.environ["SLICEFLOW_MODEL"]
    done = commands.run("up")
    assert (done.returncode, done.stdout) == (1, "")
    assert "sliceflow train" in done.stderr
    assert commands.processes() == []
