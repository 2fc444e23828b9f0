"""`sliceflow train` on a small log: what it writes and tells, where it goes on, what it refuses."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from encoders.checkpoint import load_model
from encoders.item_features import ItemContent
from encoders.item_models import load_item_models, new_item_vectors
from encoders.runtime import SliceEncoderRuntime
from encoders.spec import load_spec
from stream_app.cli import main
from stream_app.models import trained_at_ms
from tests.cli.conftest import Cli
from tests.encoders.pretrained_cases import WORDS, bert_folder, gpt2_folder

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
        *("--backbone", "--backbone-config", "--backbone-tuning"),
        *("--item-text", "--tune-text", "--item-images", "--download"),
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
    assert trained_at_ms(home / "model") == pytest.approx(time.time_ns() / 1e6, abs=3_600_000)


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


GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 40}


@pytest.mark.parametrize(
    ("options", "seen", "mend"),
    [
        (("--backbone", "x", "--backbone-config", "log.ndjson"), "--backbone and --backbone-config", "one of them"),
        (("--backbone-tuning", "full"), "--backbone-tuning without a backbone", "--backbone MODEL"),
        (
            ("--backbone-config", "log.ndjson", "--backbone-tuning", "lora"),
            "lora without pretrained",
            "--backbone MODEL",
        ),
        (("--item-text", "x"), "without items", "--items FILE"),
        (("--item-images", "x"), "without items", "--items FILE"),
        (("--items", "log.ndjson", "--tune-text"), "--tune-text without a text model", "--item-text"),
        (("--backbone-config", "log.ndjson"), "is not JSON", "a configuration of transformers"),
        (("--backbone-config", "empty.json"), "names no model_type", '"model_type": "gpt2"'),
    ],
)
def test_options_that_make_no_sense(lonely: Cli, home: Path, options: tuple[str, ...], seen: str, mend: str) -> None:
    log = write(home / "log.ndjson", rows(10))
    (home / "empty.json").write_text("{}")
    result = lonely("train", log, "--out", "model", *options)
    assert result.exit_code == 2 and seen in result.stderr and mend in result.stderr
    assert not (home / "model").exists()


@pytest.mark.slow  # transformers takes seconds to load
@pytest.mark.parametrize("option", ["--backbone", "--item-text", "--item-images"])
def test_a_model_that_is_not_there_is_told_before_the_log_is_read(lonely: Cli, home: Path, option: str) -> None:
    items = write(home / "items.ndjson", [{"item_id": "i1", "title": "iron"}])
    (home / "log.ndjson").write_text("no log at all")
    result = lonely("train", "log.ndjson", "--out", "model", "--items", items, option, "nobody/no-such-model")
    assert result.exit_code == 1 and "'nobody/no-such-model': is no readable model" in result.stderr


@pytest.mark.slow
def test_a_backbone_from_a_configuration(lonely: Cli, home: Path) -> None:
    log = write(home / "log.ndjson", rows(700))
    (home / "gpt2.json").write_text(json.dumps(GPT2))

    report = trained(lonely, log, "--out", "model", "--backbone-config", "gpt2.json")

    loaded = load_model(home / "model")
    assert loaded.spec.release == report["release"]
    assert loaded.spec.dims.backbone is not None and loaded.spec.dims.backbone["n_layer"] == 1
    assert not any(name.startswith("blocks.") for name in loaded.model.state_dict())


@pytest.mark.slow
def test_adapters_on_a_backbone_and_a_text_model(lonely: Cli, home: Path) -> None:
    """The folder alone, with both sources gone, encodes slices and new items."""
    gpt2_folder(home / "gpt2")
    bert_folder(home / "bert")
    log = write(home / "log.ndjson", rows(700))
    items = sorted({str(row["item_id"]) for row in rows(700)})
    titled = [{"item_id": item, "title": WORDS[place % len(WORDS)]} for place, item in enumerate(items)]
    catalogue = write(home / "items.ndjson", titled)

    backbone = ("--backbone", "gpt2", "--backbone-tuning", "lora")
    text = ("--items", catalogue, "--item-text", "bert", "--tune-text")
    result = lonely("train", log, "--out", "model", *backbone, *text, *SMALL)

    assert result.exit_code == 0, result.output
    assert "text model fine-tuned on" in result.stderr
    assert (home / "state" / "item-vectors.sqlite").exists()
    for source in ("gpt2", "bert"):
        (home / source).rename(home / f"former-{source}")
    spec = load_spec(home / "model")
    assert spec.training["config"]["backbone"]["tuning"] == "lora"
    assert spec.item_sources == {} and spec.dims.items.text_dim == 32
    encoder = SliceEncoderRuntime.load(home / "model", "cpu")
    vectors, _ = new_item_vectors(encoder, load_item_models(home / "model"), [ItemContent(title="iron man")])
    assert vectors.shape == (1, 8) and vectors.any()


@pytest.mark.slow
def test_too_few_pairs_to_tune_a_text_model_on(lonely: Cli, home: Path) -> None:
    bert_folder(home / "bert")
    log = write(home / "log.ndjson", rows(700))
    catalogue = write(home / "items.ndjson", [{"item_id": "i1", "title": "iron"}])
    result = lonely("train", log, "--out", "model", "--items", catalogue, "--item-text", "bert", "--tune-text", *SMALL)
    assert result.exit_code == 1
    assert "0 pairs of items with different texts" in result.stderr and "leave --tune-text out" in result.stderr
