"""`sliceflow train`: a model from an event log or from the events topic."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream_app.cli._context import echo_json, pairs, plain_settings, reachable_settings
from stream_app.cli._train_models import backbone_of, check_together, item_models, model_options
from stream_app.errors import UsageError
from stream_app.settings import Settings

if TYPE_CHECKING:  # torch takes seconds to import: only once the command is known to make sense
    from encoders.training_config import TrainConfig
    from stream_app.event_log import LogEvents
    from stream_app.training import TrainingItems, TrainingOutcome


@click.command("train", short_help="Train a model from an event log.")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--topic", is_flag=True, help="Train on what is on the events topic, instead of a file.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write the model to.",
)
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="OURS=THEIRS",
    help="Name of a column that differs; repeatable.",
)
@click.option("--ts-unit", type=click.Choice(["ms", "s", "us"]), help="Unit of integer times.")
@click.option("--limit", type=click.IntRange(min=1), help="Use the first N events of the file only.")
@click.option(
    "--share",
    type=click.FloatRange(0.1, 1.0),
    default=1.0,
    show_default=True,
    help="Use this first share of the events, by time.",
)
@click.option(
    "--validation-share",
    type=click.FloatRange(0.02, 0.5),
    default=0.1,
    show_default=True,
    help="Last share, by time, that decides when to stop and fits the scorer.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same data: same model (one thread).")
@click.option(
    "--max-epochs",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Passes over the data at most.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Stop after so many passes without a better validation.",
)
@click.option(
    "--time-budget-s",
    type=click.FloatRange(min=1),
    help="Come to an end after this many seconds; makes the result depend on the machine.",
)
@click.option("--dim", type=click.IntRange(min=8), default=64, show_default=True, help="Length of all vectors.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads for the arithmetic.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Of the arithmetic; bf16 is faster on processors made for it.",
)
@click.option(
    "--checkpoint",
    "checkpoint_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to keep the newest two passes in.",
)
@click.option("--resume", is_flag=True, help="Go on from the newest pass in the --checkpoint folder, if there is one.")
@click.option(
    "--items",
    "items_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Catalogue (NDJSON) whose titles, descriptions, categories, tags and prices to learn from.",
)
@model_options
@click.option("--half", is_flag=True, help="Store the weights in half the size.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
@click.pass_context
def command(ctx: click.Context, /, file: Path | None, topic: bool, out: Path, as_json: bool, **options: Any) -> None:
    """Train the slice transformer and the scorer on FILE (Parquet, NDJSON or CSV), and write a model folder.

    The log is cut into slices by the very rule the stream uses, so train with the settings you run with. The last
    part by time is never learned from: it decides when to stop.

    On several GPUs: `accelerate launch -m stream_app.cli train ...`
    """
    if (file is None) == (not topic):
        raise UsageError("Either FILE or --topic is needed, not both.", mend="see `sliceflow train --help`")
    if options["resume"] and options["checkpoint_folder"] is None:
        raise UsageError("--resume needs the folder to go on from.", mend="name it with --checkpoint DIR")
    check_together(options)
    settings = reachable_settings(ctx) if topic else plain_settings(ctx)
    from encoders.devices import is_main_process
    from encoders.train import use_threads
    from stream_app.models import note_trained
    from stream_app.training import split_time_ms, train, train_encoder

    use_threads(options["threads"])
    how: dict[str, Any] = {
        "config": _config(settings, options),
        "checkpoint_folder": options["checkpoint_folder"],
        "resume": options["resume"],
        "items": _items(settings, options),
    }
    log = _read_log(file, settings, options)
    events = log.events[: max(1, int(len(log.events) * options["share"]))]
    share = options["validation_share"]
    if not is_main_process():  # trains along; the main process alone reports and writes
        train_encoder(events, settings, split_ms=split_time_ms(events, share), report=lambda _: None, **how)
        return
    click.echo(f"{len(events)} events; {log.num_refused} rows were no events of the types in the settings", err=True)
    outcome = train(
        events,
        settings,
        out,
        validation_share=share,
        half=options["half"],
        report=lambda line: click.echo(line, err=True),
        **how,
    )
    note_trained(out, time.time_ns() // 1_000_000)
    if as_json:
        echo_json(_report(outcome))
    else:
        click.echo(f"{outcome.release} written to {outcome.folder}")


def _read_log(file: Path | None, settings: Settings, options: dict[str, Any]) -> LogEvents:
    from stream_app.event_log import read_events, read_topic

    if file is None:
        return read_topic(settings)
    fields = pairs(options["fields"], "--field")
    return read_events(file, settings, fields=fields, ts_unit=options["ts_unit"], limit=options["limit"])


def _items(settings: Settings, options: dict[str, Any]) -> TrainingItems | None:
    from stream_app.inspection.catalogue import file_records
    from stream_app.item_contents import item_contents
    from stream_app.training import TrainingItems

    if options["items_file"] is None:
        return None
    models = item_models(settings, options)
    contents, num_refused = item_contents(file_records(options["items_file"]))
    click.echo(f"{len(contents)} items of the catalogue; {num_refused} records were no items", err=True)
    return TrainingItems(contents, models, tunes_text=options["tune_text"]) if contents else None


def _config(settings: Settings, options: dict[str, Any]) -> TrainConfig:
    from encoders.training_config import TrainConfig

    return TrainConfig(
        dim=options["dim"],
        slice_events=settings.slice_events,
        max_epochs=options["max_epochs"],
        patience_epochs=options["patience"],
        time_budget_s=options["time_budget_s"],
        precision=options["precision"],
        seed=options["seed"],
        backbone=backbone_of(options),
    )


def _report(outcome: TrainingOutcome) -> dict[str, Any]:
    """What came of the training, as JSON."""
    curve = [
        {
            "epoch": point.epoch,
            "prediction_loss": point.prediction_loss,
            "validation_ndcg10": point.validation_ndcg10,
            "elapsed_s": round(point.elapsed_s, 1),
            "events_per_s": round(point.events_per_s),
        }
        for point in outcome.curve
    ]
    return {
        "release": outcome.release,
        "folder": str(outcome.folder),
        "validation_ndcg10": outcome.validation_ndcg10,
        "choices": outcome.num_choices,
        "epochs": len(outcome.curve),
        "best_epoch": outcome.best_epoch,
        "curve": curve,
        "scorer": outcome.scorer.weights,
    }
