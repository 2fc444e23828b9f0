"""`sliceflow train`: a model from an event log or from the events topic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stream_app.cli._context import echo_json, pairs, plain_settings, reachable_settings
from stream_app.errors import UsageError


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
    help="Stop after this many seconds; makes the result depend on the machine.",
)
@click.option("--dim", type=click.IntRange(min=8), default=64, show_default=True, help="Length of all vectors.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads for the arithmetic.")
@click.option("--half", is_flag=True, help="Store the weights in half the size.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
@click.pass_context
def command(ctx: click.Context, /, file: Path | None, topic: bool, out: Path, as_json: bool, **options: Any) -> None:
    """Train the slice transformer and the scorer on FILE (Parquet, NDJSON or CSV), and write a model folder.

    The log is cut into slices by the very rule the stream uses, so train with the settings you run with. The last
    part by time is never learned from: it decides when to stop.
    """
    if (file is None) == (not topic):
        raise UsageError("Either FILE or --topic is needed, not both.", mend="see `sliceflow train --help`")
    settings = reachable_settings(ctx) if topic else plain_settings(ctx)
    # torch takes seconds to import: only once the command is known to make sense.
    from encoders.train import TrainConfig, use_threads
    from stream_app.event_log import read_events, read_topic
    from stream_app.training import train

    use_threads(options["threads"])
    if file is None:
        log = read_topic(settings)
    else:
        fields = pairs(options["fields"], "--field")
        log = read_events(file, settings, fields=fields, ts_unit=options["ts_unit"], limit=options["limit"])
    events = log.events[: max(1, int(len(log.events) * options["share"]))]
    click.echo(f"{len(events)} events; {log.num_refused} rows were no events of the types in the settings", err=True)
    config = TrainConfig(
        dim=options["dim"],
        slice_events=settings.slice_events,
        max_epochs=options["max_epochs"],
        patience_epochs=options["patience"],
        time_budget_s=options["time_budget_s"],
        seed=options["seed"],
    )
    outcome = train(
        events,
        settings,
        out,
        config=config,
        validation_share=options["validation_share"],
        half=options["half"],
        report=lambda line: click.echo(line, err=True),
    )
    if as_json:
        echo_json(
            {
                "release": outcome.release,
                "folder": str(outcome.folder),
                "validation_ndcg10": outcome.validation_ndcg10,
                "choices": outcome.num_choices,
                "epochs": len(outcome.curve),
                "scorer": outcome.scorer.weights,
            }
        )
    else:
        click.echo(f"{outcome.release} written to {outcome.folder}")
