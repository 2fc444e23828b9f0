"""`sliceflow train` on a small log: what it writes and tells, where it goes on, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from stream_app.cli import main
from tests.cli.conftest import Cli

START_MS = 1_700_000_000_000
SMALL = ("--max-epochs", "2", "--patience", "2", "--dim", "8", "--threads", "1", "--json")


def rows(num_events: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Users who walk round 40 items with jumps, an event every half minute."""
    generator = np.random.default_rng(seed)
    places = generator.integers(0, 40, 12)
    found = []
    for number in range(num_events):
        user = int(generator.integers(12))
        places[user] = (places[user] + generator.integers(1, 3)) % 40
        ts = START_MS + 30_000 * number
        found.append({"user_id": f"u{user}", "item_id": f"i{places[user]}", "type": "click", "ts": ts})
    return found


def write(path: Path, log: list[dict[str, Any]]) -> str:
    """A log as a file; its name."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in log))
    return str(path)


def trained(cli: Cli, *args: str) -> dict[str, Any]:
    """The final report of a training."""
    report: dict[str, Any] = json.loads(cli.ok("train", *args, *SMALL).splitlines()[-1])
    return report


def test_the_dials() -> None:
    command = main.get_command(click.Context(main), "train")
    assert command is not None
    assert {option for param in command.params if isinstance(param, click.Option) for option in param.opts} == {
        *("--topic", "--out", "--field", "--ts-unit", "--limit", "--share", "--validation-share", "--seed"),
        *("--max-epochs", "--patience", "--time-budget-s", "--dim", "--threads", "--precision"),
        *("--checkpoint", "--resume", "--items", "--half", "--json"),
    }


@pytest.mark.slow
def test_the_report_and_the_progress(lonely: Cli, home: Path) -> None:
    result = lonely("train", write(home / "log.ndjson", rows(700)), "--out", "model", *SMALL)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["epochs"] == len(report["curve"]) == 2
    best = report["curve"][report["best_epoch"] - 1]
    assert report["validation_ndcg10"] == best["validation_ndcg10"] > 0
    assert all(point["events_per_s"] > 0 for point in report["curve"])
    lines = [line for line in result.stderr.splitlines() if line.startswith("epoch 2")]
    assert "validation NDCG@10" in lines[-1] and "events/s" in lines[-1] and "at most 0 s left" in lines[-1]
    assert (home / "model" / "spec.json").exists()


@pytest.mark.slow
def test_it_goes_on_to_the_same_release(lonely: Cli, home: Path) -> None:
    log = write(home / "log.ndjson", rows(700))
    whole = trained(lonely, log, "--out", "whole")
    kept = trained(lonely, log, "--out", "kept", "--checkpoint", "kept-state")
    (newest,) = (home / "kept-state").glob("epoch-000002")
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    resumed = trained(lonely, log, "--out", "resumed", "--checkpoint", "kept-state", "--resume")
    assert whole["release"] == kept["release"] == resumed["release"]
    again = lonely("train", log, "--out", "again", "--checkpoint", "kept-state", *SMALL)
    assert again.exit_code == 1 and "kept-state holds checkpoints (epoch-000002), expected none" in again.stderr


@pytest.mark.slow
def test_events_beyond_the_share_are_never_read(lonely: Cli, home: Path) -> None:
    """The last quarter, kept for a test, is another one: the same release and the same scorer."""
    log = rows(900)
    other = [*log[:675], *({**row, "item_id": "i1", "user_id": "u1"} for row in log[675:])]
    reports = [
        trained(lonely, write(home / f"{name}.ndjson", part), "--out", name, "--share", "0.75")
        for name, part in (("one", log), ("other", other))
    ]
    assert reports[0]["release"] == reports[1]["release"]
    assert reports[0]["scorer"] == reports[1]["scorer"]


def test_thin_data_is_refused_with_numbers(lonely: Cli, home: Path) -> None:
    result = lonely("train", write(home / "log.ndjson", rows(100)), "--out", "model", *SMALL)
    assert result.exit_code == 1
    assert "expected at least 200 over 20; bring more events" in result.stderr


def test_resuming_needs_a_folder(lonely: Cli, home: Path) -> None:
    result = lonely("train", write(home / "log.ndjson", rows(10)), "--out", "model", "--resume")
    assert result.exit_code == 2 and "--checkpoint DIR" in result.stderr


@pytest.mark.slow
def test_a_catalogue_goes_into_the_model(lonely: Cli, home: Path) -> None:
    log = write(home / "log.ndjson", rows(700))
    items = sorted({str(row["item_id"]) for row in rows(700)})
    write(home / "items.ndjson", [{"item_id": item, "title": f"title {item}", "tags": ["x"]} for item in items])

    result = lonely("train", log, "--out", "model", "--items", "items.ndjson", *SMALL)

    assert result.exit_code == 0, result.output
    assert f"{len(items)} items of the catalogue; 0 records were no items" in result.stderr
    features = json.loads((home / "model" / "spec.json").read_text())["dims"]["items"]
    assert features["word_buckets"] > 0 and features["categories_per_item"] == 1
