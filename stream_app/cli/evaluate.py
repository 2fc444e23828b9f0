"""`sliceflow evaluate`: how good the lists are on an event log, beside every honest baseline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream_app.cli._context import echo_json, pairs, plain_settings, reachable_settings
from stream_app.errors import UsageError

if TYPE_CHECKING:
    from stream_app.settings import Settings

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("evaluate")
@click.argument("file", type=FILE)
@click.option(
    "--protocol",
    type=click.Choice(["prequential", "temporal", "leave-one-out"]),
    default="prequential",
    show_default=True,
    help="Walk in time and learn on; one list for each user at the split; or each user's last item held out.",
)
@click.option(
    "--split",
    type=click.FloatRange(0.1, 0.99),
    default=0.8,
    show_default=True,
    help="Share of the events, by time, that models are trained on.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path, file_okay=False),
    help="Judge this model, which must know nothing after the split. [default: train one]",
)
@click.option(
    "--items",
    "items_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Catalogue (NDJSON) that the trained model learns from: words, categories, tags and prices.",
)
@click.option("--only-baselines", is_flag=True, help="Without a model of our own.")
@click.option(
    "--budget-s",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    help="Processor time for the training of each model, ours and SASRec, in seconds.",
)
@click.option("--field", "fields", multiple=True, metavar="OURS=THEIRS", help="Name of a column that differs.")
@click.option("--ts-unit", type=click.Choice(["ms", "s", "us"]), help="Unit of integer times.")
@click.option("--limit", type=click.IntRange(min=1), help="Use the first N events of the file only.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and resampling.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads for the arithmetic.")
@click.option("--parity", is_flag=True, help="Instead: compare the running stream's lists with the evaluation's.")
@click.option(
    "--users", type=click.IntRange(min=1), default=100, show_default=True, help="Users that --parity samples."
)
@click.option("--out", type=FILE, metavar="HTML", help="Write a report with plots, one file.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON in place of the tables.")
@click.pass_context
def command(ctx: click.Context, /, file: Path, **given: Any) -> None:
    """Judge the lists on FILE: every item known so far is ranked, except those the user has seen.

    FILE is an event log (Parquet, NDJSON or CSV); for leave-one-out it may be a text file with the items of one user on
    each line (.txt, .txt.gz). Without --model one is trained on the first part of the log. Beside it, always: decayed
    popularity, last-item transitions, item-kNN, session-kNN and SASRec, learned from the same events.

    With --parity, FILE is the log that was replayed into the running namespace. Exit code 1 where a list differs.
    """
    _check(given)
    if given["parity"]:
        _parity(ctx, reachable_settings(ctx), file, given)
        return
    _evaluate(plain_settings(ctx), file, given)


def _check(given: Mapping[str, Any]) -> None:
    """Refuse what makes no sense together.

    Raises:
        UsageError: Says what, and what mends it.
    """
    if given["model"] and given["only_baselines"]:
        raise UsageError("--model and --only-baselines exclude each other.", mend="leave one of them out")
    if given["items_file"] and (given["model"] or given["only_baselines"] or given["protocol"] == "leave-one-out"):
        raise UsageError(
            "--items is for the model that is trained in time; here none is.",
            mend="leave --items out, or leave out --model, --only-baselines and leave-one-out",
        )
    if given["model"] and given["protocol"] == "leave-one-out":
        raise UsageError(
            "Leave-one-out trains on each user's past up to the last item: there is no --model to give.",
            mend="leave --model out",
        )
    out: Path | None = given["out"]
    if out is not None and not out.absolute().parent.is_dir():
        raise UsageError(f"There is no folder for {out}.", mend="make the folder first")


def _evaluate(settings: Settings, file: Path, given: Mapping[str, Any]) -> None:
    # torch takes seconds to import: only once the command is known to make sense.
    from encoders.train import use_threads
    from stream_app.evaluation.html import html_of
    from stream_app.evaluation.run import EvaluationOptions, evaluate_log, evaluate_sequences
    from stream_app.evaluation.text import text_of
    from stream_app.inspection.catalogue import file_records
    from stream_app.item_contents import item_contents

    use_threads(given["threads"])
    options = EvaluationOptions(
        protocol=given["protocol"],
        split=given["split"],
        model=given["model"],
        only_baselines=given["only_baselines"],
        budget_s=given["budget_s"],
        seed=given["seed"],
        contents=item_contents(file_records(given["items_file"]))[0] if given["items_file"] else None,
    )
    if ".txt" in file.suffixes:
        if options.protocol != "leave-one-out":
            raise UsageError(f"{file} has no times.", mend="add --protocol leave-one-out, or give an event log")
        report = evaluate_sequences(file, settings, options, _progress)
    else:
        fields = pairs(given["fields"], "--field")
        report = evaluate_log(file, settings, options, _progress, fields, given["ts_unit"], given["limit"])
    if given["out"] is not None:
        _write(given["out"], html_of(report))
    if given["as_json"]:
        echo_json(report)
    else:
        click.echo(text_of(report))


def _parity(ctx: click.Context, settings: Settings, file: Path, given: Mapping[str, Any]) -> None:
    from stream_app.evaluation.parity import check_parity
    from stream_app.replay.readers import open_log

    log = open_log(file, pairs(given["fields"], "--field") or None, ts_unit=given["ts_unit"])
    found = check_parity(log, settings, given["users"], limit=given["limit"], report=_progress)
    if given["as_json"]:
        facts: dict[str, Any] = {
            "users": found.num_users,
            "differing": found.comparison.num_differing,
            "same": found.holds,
        }
        if not found.holds:
            facts["first_difference"] = found.text().splitlines()
        echo_json(facts)
    else:
        click.echo(found.text(), err=not found.holds)
    if not found.holds:
        ctx.exit(1)


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"The report cannot be written to {path}: {error.strerror or error}.", mend="name another file"
        ) from error
