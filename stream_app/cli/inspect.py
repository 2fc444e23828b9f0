"""`sliceflow inspect`: why a user's list is as it is, and what it would be without an event."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from stream_app.cli._context import echo_json, pairs, plain_settings, reachable_settings
from stream_app.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from stream_app.inspection.catalogue import Catalogue
    from stream_app.inspection.question import Question
    from stream_app.inspection.report import Inspection
    from stream_app.replay.readers import TsUnit

FILE = click.Path(path_type=Path, dir_okay=False)

_FILE_OPTIONS = {"items": "--items", "fields": "--field", "types": "--type-map", "ts_unit": "--ts-unit"}


@click.command("inspect")
@click.argument("user")
@click.option("--at", metavar="TIME", help="As of this event time: RFC 3339, or milliseconds. [default: the newest]")
@click.option("--without", metavar="EVENT", help="Also show what would be without this event (its id or offset).")
@click.option("--from-file", type=FILE, help="Read a log file, without Kafka.")
@click.option("--items", type=FILE, help="With --from-file: a catalogue (NDJSON).")
@click.option("--field", "fields", multiple=True, metavar="FIELD=COLUMN", help="The log's column of a field.")
@click.option("--type-map", "types", multiple=True, metavar="TYPE=OURS", help="Take a type of the log as one of ours.")
@click.option("--ts-unit", type=click.Choice(["ms", "s", "us"]), help="Unit of integer times in the log.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one line of JSON.")
@click.pass_context
def command(ctx: click.Context, /, user: str, at: str | None, without: str | None, as_json: bool, **file: Any) -> None:
    """Show how the list of USER came about, as of an event time.

    Shown are the user's events and what became of them, the slices and their part in the user vector, every candidate
    with its sources and score, and what was kept out. As of a time means: with all of the user's events that came
    before any later than that.

    Without --from-file the topics of the running system are read; nothing is written to them.
    """
    from stream_app.inspection.question import Question, parse_time

    question = Question(user, None if at is None else parse_time(at), without)
    if file["from_file"] is None:
        inspection, catalogue = _of_topics(ctx, question, file, quiet=as_json)
    else:
        inspection, catalogue = _of_file(ctx, question, quiet=as_json, **file)
    if as_json:
        echo_json(inspection)
    else:
        from stream_app.cli._inspection import print_inspection

        print_inspection(inspection, catalogue)


def _of_topics(
    ctx: click.Context, question: Question, file: dict[str, Any], *, quiet: bool
) -> tuple[Inspection, Catalogue]:
    if given := [option for name, option in _FILE_OPTIONS.items() if file[name]]:
        raise UsageError(f"{', '.join(given)} makes no sense without --from-file.", mend="add --from-file FILE")
    from stream_app.inspection.from_topics import inspect_topics
    from stream_app.replay.report import progress

    settings = reachable_settings(ctx)
    with progress(_console(quiet=quiet)) as show:
        return inspect_topics(settings, question, on_read=show)


def _of_file(
    ctx: click.Context,
    question: Question,
    *,
    quiet: bool,
    from_file: Path,
    items: Path | None,
    fields: Sequence[str],
    types: Sequence[str],
    ts_unit: str | None,
) -> tuple[Inspection, Catalogue]:
    from stream_app.inspection.from_file import LogFile, inspect_file
    from stream_app.replay.readers import open_log
    from stream_app.replay.report import progress

    log = open_log(from_file, pairs(fields, "--field") or None, ts_unit=cast("TsUnit | None", ts_unit))
    file = LogFile(from_file, log, plain_settings(ctx), pairs(types, "--type-map"))
    with progress(_console(quiet=quiet)) as show:
        return inspect_file(file, question, items=items, on_read=show)


def _console(*, quiet: bool) -> Console:
    from rich.console import Console

    return Console(stderr=True, quiet=quiet)
