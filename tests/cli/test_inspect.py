"""`sliceflow inspect` on a log file, as people and programs see it; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream_app.demo import CONFIG_FILE, ITEMS_FILE, MODEL_FOLDER
from tests.cli.conftest import Cli
from tests.replay_cases import SAMPLE, sample_rows

pytestmark = pytest.mark.slow

NUM_EVENTS = 400
USER = "3602"
MAX_WIDTH = 140


@pytest.fixture
def demo(lonely: Cli, home: Path) -> Cli:
    """The command line with the demo's model, in a folder with a part of its log."""
    (home / "log.ndjson").write_bytes(b"\n".join(map(orjson.dumps, sample_rows(NUM_EVENTS))))
    lonely.environ["SLICEFLOW_CONFIG"] = str(SAMPLE / CONFIG_FILE)
    lonely.environ["SLICEFLOW_MODEL"] = str(SAMPLE / MODEL_FOLDER)
    return lonely


def inspected(cli: Cli, *args: str) -> Any:
    return json.loads(cli.ok("inspect", USER, "--from-file", "log.ndjson", "--json", *args))


def test_the_json_is_complete(demo: Cli) -> None:
    (offset,) = {event["offset"] for event in inspected(demo)["snapshot"]["events"]}
    shown = inspected(demo, "--at", "2014-01-01", "--without", str(offset))
    assert shown.keys() == {
        "user_id",
        "source",
        "partition",
        "at_ms",
        "release",
        "half_lives_ms",
        "weights",
        "snapshot",
        "without",
        "notes",
    }
    snapshot = shown["snapshot"]
    assert snapshot.keys() == {"events", "slices", "vector", "list", "candidates", "removed"}
    assert snapshot["list"]["origin"] == "recomputed"
    listed = [one["item_id"] for one in snapshot["candidates"] if one["is_listed"]]
    assert [item["item_id"] for item in snapshot["list"]["recommendation"]["items"]] == listed
    assert shown["weights"].keys() == snapshot["candidates"][0]["features"].keys()
    assert shown["without"]["snapshot"]["list"] is None
    assert shown["without"]["changes"]["items_out"] == listed
    assert inspected(demo, "--at", "2014-01-01", "--without", str(offset)) == shown


def test_people_get_tables_of_bounded_width(demo: Cli) -> None:
    text = demo.ok("inspect", USER, "--from-file", "log.ndjson", "--items", str(SAMPLE / ITEMS_FILE), "--without", "1")
    for part in ("events: 1", "slices: 1", "candidates:", "Riddick (2013)", "kept out as seen: 1", "without offset 1"):
        assert part in text
    assert max(map(len, text.splitlines())) <= MAX_WIDTH
    demo.environ["COLUMNS"] = "80"
    narrow = demo.ok("inspect", USER, "--from-file", "log.ndjson")
    assert max(map(len, narrow.splitlines())) <= 80


def test_ids_cannot_steer_the_terminal(demo: Cli, home: Path) -> None:
    rows = [{"user_id": "a\x1b[31m", "item_id": "\x1b[2J[b]", "type": "rating", "ts": 1_380_000_000_000}]
    (home / "log.ndjson").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    text = demo.ok("inspect", "a\x1b[31m", "--from-file", "log.ndjson", "--without", "1")
    assert "\x1b" not in text
    assert "[b]" in text


@pytest.mark.parametrize(
    ("args", "exit_code", "said"),
    [
        (["nobody", "--from-file", "log.ndjson"], 1, "no event of the user 'nobody'"),
        ([USER, "--from-file", "log.ndjson", "--at", "2013-01-01"], 1, "from 2013-09-15T19:52:27Z on"),
        ([USER, "--from-file", "log.ndjson", "--at", "noon"], 2, "--at noon is no time"),
        ([USER, "--from-file", "log.ndjson", "--without", "x"], 2, "--without x"),
        ([USER, "--from-file", "none.ndjson"], 2, "none.ndjson"),
        ([USER, "--items", "items.ndjson", "--ts-unit", "s"], 2, "--items, --ts-unit"),
        ([USER], 1, "sliceflow up"),
        ([], 2, "Usage: sliceflow inspect"),
    ],
)
def test_what_is_refused_is_said_with_what_mends_it(demo: Cli, args: list[str], exit_code: int, said: str) -> None:
    result = demo("inspect", *args)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert said in result.stderr


def test_without_a_model_it_says_how_to_get_one(demo: Cli) -> None:
    del demo.environ["SLICEFLOW_MODEL"]
    result = demo("inspect", USER, "--from-file", "log.ndjson")
    assert result.exit_code == 1
    assert "sliceflow train" in result.stderr
