"""The demo as a person runs it: one click changes a list, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.conftest import Commands, last_json

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_a_click_changes_the_list_and_nothing_is_left(commands: Commands, small_example: Path) -> None:
    commands.environ["DEMO_EXIT"] = "1"
    done = commands.run("demo", "--example", str(small_example))
    assert done.returncode == 0, done.stderr
    shown = last_json(done.stdout)
    assert list(shown) == ["before", "event", "after", "changed", "latency_ms"]
    before, after = ([item["item_id"] for item in shown[name]] for name in ("before", "after"))
    assert shown["changed"] is True and before != after
    # What was clicked on is not recommended again, and whatever else is in both lists may have moved.
    assert shown["event"]["item_id"] == before[2]
    assert before[2] not in after
    assert shown["event"]["type"] == "click"
    assert all(set(item) == {"item_id", "title", "score", "sources"} for item in shown["after"])
    assert all(item["title"] and item["sources"] for item in shown["before"])
    assert 0 < shown["latency_ms"] < 30_000
    commands.wait_all_gone()
    assert not (commands.home / "demo" / "broker" / "address").exists()


def test_a_demo_without_data_or_model_says_so(commands: Commands, small_example: Path, tmp_path: Path) -> None:
    done = commands.run("demo", "--example", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "--example" in done.stderr
    done = commands.run("demo", "--example", str(small_example), "--model", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "make demo-model" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_model_ends_the_demo_with_one_error(commands: Commands, small_example: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in (small_example / "model").iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    weights = damaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    done = commands.run("demo", "--example", str(small_example), "--model", str(damaged))
    assert done.returncode == 1
    assert done.stderr.count("Error: ") == 1
    assert "weights.safetensors" in done.stderr
    commands.wait_all_gone()
