"""`sliceflow replay`: an event log through all roles, on Kafka or in this process; what came of it, kept or checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream_app.cli._context import echo_json, pairs, plain_settings, reachable_settings
from stream_app.cli._replay_options import ReplayOptions, options_of, parse_speed
from stream_app.cli._replaying import Resumable, run_replay, run_with_roles
from stream_app.cli._signals import stop_event
from stream_app.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from stream_app.recording import Recorder
    from stream_app.replay.place import Place
    from stream_app.replay.readers import Log
    from stream_app.settings import Settings

__all__ = ["ReplayOptions", "command", "parse_speed", "run_replay"]

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("replay")
@click.argument("file", type=FILE, required=False)
@click.option(
    "--from-topic",
    is_flag=False,
    flag_value="",
    metavar="[TOPIC]",
    help="Instead of FILE: what lies on a topic, by its full name. [default: this application's events]",
)
@click.option("--from", "start", metavar="BOUND", help="First offset or record time of the topic. [default: its start]")
@click.option("--to", "end", metavar="BOUND", help="Where to stop: the first one left out. [default: its end now]")
@click.option("--offline", is_flag=True, help="Without sending: all roles in this process, with the model alone.")
@click.option("--speed", default="max", show_default=True, help="`max`, `real`, or event seconds a second: x60, ...")
@click.option("--pause-at", metavar="TIME", help="Stand still before the first event from TIME on.")
@click.option("--resume", is_flag=True, help="Go on where this replay was broken off.")
@click.option("--limit", type=click.IntRange(min=0), help="Stop after so many rows.")
@click.option("--field", "fields", multiple=True, metavar="FIELD=COLUMN", help="The log's column of a field.")
@click.option("--type-map", "types", multiple=True, metavar="TYPE=OURS", help="Send a type as one of ours.")
@click.option("--ts-unit", type=click.Choice(["ms", "s", "us"]), help="Unit of integer times in the log.")
@click.option("--items", type=FILE, help="A catalogue (NDJSON) to send first.")
@click.option("--send-unknown-types", is_flag=True, help="Let types that nobody named become dead letters.")
@click.option("--namespace", metavar="NAME", help="Into topics and groups of its own, made where they are missing.")
@click.option("--fresh", is_flag=True, help="As --namespace, with a new name.")
@click.option("--with-roles", is_flag=True, help="Start the roles of that namespace, and stop them in the end.")
@click.option("--remove", is_flag=True, help="Remove that namespace in the end; without a log that is all.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the roles.")
@click.option("--record", type=FILE, metavar="OUT", help="Write the last lists and the slices to a file.")
@click.option("--check", type=FILE, metavar="GOLDEN", help="Compare with a recorded file; exit code 1 if it differs.")
@click.option(
    "--score-tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="With --check: scores may differ by so much (0.00001 on another kind of processor).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the line of JSON and nothing else.")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Send the events of FILE, or of a topic, with their own times, and wait until the lists are made.

    FILE is Parquet, NDJSON or CSV, the last two may be gzipped. Of a topic the records are sent as they lie there, bad
    ones too; BOUND is an offset for every partition, pairs like 0:100,1:250, or a record time (RFC 3339, or a number
    with ms). Stdout gets one line of JSON: how many events went in and what became of them. Exit code 1 where that does
    not add up, the roles did not catch up, or the outcome is not that of GOLDEN.

    Ctrl-C breaks the replay off, and --resume goes on behind the last record that Kafka acknowledged, also after a
    crash. Ctrl-Z and `fg` interrupt it; a pause that --pause-at makes ends with Enter or SIGCONT. With --offline
    nothing is sent: the same stages run here, and give the same lists and slices as the roles would.
    """
    from stream_app.cli import _recording

    options = options_of(given)
    file_log = _open_file(given) if given["file"] else None  # before Kafka is asked for anything
    settings = plain_settings(ctx) if given["offline"] and given["file"] else reachable_settings(ctx)
    own = _namespace_of(settings, given)
    if not given["file"] and given["from_topic"] is None:
        _remove(own)
        return
    log, resumable = _open(settings, own, given, file_log)
    wish = _recording.prepare(given["record"], given["check"], given["score_tolerance"])
    if given["offline"]:
        outcome = _replay_offline(settings, log, options, wish.recorder, is_quiet=given["as_json"])
    else:
        with _namespace(settings, own, given) as used:
            outcome = _replay_to_kafka(used, log, options, wish.recorder, resumable, is_quiet=given["as_json"])
    outcome |= _facts_of(log, settings, own, resumable, outcome)
    outcome |= wish.fulfil(outcome, settings)
    if not given["as_json"]:
        click.echo(_recording.summary(outcome), err=True)
    echo_json(outcome)
    if outcome.get("balanced") is False or outcome.get("same") is False:
        ctx.exit(1)


def _open_file(given: Mapping[str, Any]) -> Log:
    from stream_app.replay.readers import open_log

    return open_log(given["file"], pairs(given["fields"], "--field") or None, ts_unit=given["ts_unit"])


def _open(settings: Settings, own: Settings, given: Mapping[str, Any], file_log: Log | None) -> tuple[Log, Resumable]:
    """The log, and where a replay of it into the namespace `own` keeps its place.

    Raises:
        LogFormatError: The range of the topic is not there.
        UsageError: The topic is the one that is sent to, or there is no place to go on from.
    """
    from stream_app.replay.place import PlaceFile
    from stream_app.topics import EVENTS, prefixed

    target = prefixed(own.prefix, EVENTS)
    topic = given["from_topic"] or prefixed(settings.prefix, EVENTS)
    file = PlaceFile(own, target, str(given["file"].resolve()) if given["file"] else topic)
    resumable = Resumable(file, file.read() if given["resume"] else None)
    if file_log is not None:
        return file_log, resumable
    if topic == target and not given["offline"]:
        raise UsageError(
            f"{topic} would be sent to itself: each of its events would be there twice.",
            mend="replay it with --fresh --with-roles, or --offline",
        )
    return _topic_log(settings, topic, given, resumable.place), resumable


def _topic_log(settings: Settings, topic: str, given: Mapping[str, Any], place: Place | None) -> Log:
    from stream_app.replay.ranges import parse_bound, resolve_ranges
    from stream_app.replay.topic_log import TopicLog

    if place is not None:
        # What the topic got since then was not in the range.
        kept = place.identity["log"]["ranges"]
        return TopicLog(settings, topic, {int(number): (low, high) for number, (low, high) in kept.items()})
    start, end = (
        None if given[name] is None else parse_bound(given[name], option)
        for name, option in (("start", "--from"), ("end", "--to"))
    )
    return TopicLog(settings, topic, asyncio.run(resolve_ranges(settings, topic, start, end)))


def _namespace_of(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings of the namespace that is asked for; without one those of the application."""
    if not given["namespace"] and not given["fresh"]:
        return settings
    from stream_app.replay.namespaces import fresh_name, namespace_of

    return namespace_of(settings, given["namespace"] or fresh_name())


@contextmanager
def _namespace(settings: Settings, own: Settings, given: Mapping[str, Any]) -> Iterator[Settings]:
    """The namespace, made where it is missing, for the block; removed behind it if that is asked for."""
    if own is settings:
        yield settings
        return
    from stream_app.models import served_model
    from stream_app.replay.namespaces import make_namespace

    if given["with_roles"]:
        served_model(own)  # refuse before topics are made
    made = make_namespace(settings, own)
    if not given["with_roles"] and not given["as_json"]:
        environ = f"SLICEFLOW_PREFIX={made.prefix} SLICEFLOW_STATE_DIR={made.state_path}"
        click.echo(f"roles of this namespace: {environ} KAFKA_BOOTSTRAP_SERVERS=... sliceflow up", err=True)
    try:
        yield made
    finally:
        if given["remove"]:
            _remove(made)


def _remove(own: Settings) -> None:
    from stream_app.replay.namespaces import remove_namespace

    click.echo(f"{remove_namespace(own)} topics of {own.prefix} removed", err=True)


def _facts_of(
    log: Log, settings: Settings, own: Settings, resumable: Resumable, outcome: Mapping[str, Any]
) -> dict[str, Any]:
    """What else is to be said: the range of a topic, the namespace, and how a broken-off replay can go on."""
    facts: dict[str, Any] = {}
    if "ranges" in (identity := log.identity()):
        facts |= {"topic": identity["topic"], "ranges": identity["ranges"]}
    if own is not settings:
        facts |= {"prefix": own.prefix, "state_dir": str(own.state_path)}
    if outcome.get("broken_off"):
        facts["place"] = str(resumable.file.path)
    return facts


def _replay_offline(
    settings: Settings, log: Log, options: ReplayOptions, recorder: Recorder | None, *, is_quiet: bool
) -> dict[str, Any]:
    from stream_app.offline_replay import replay_offline
    from stream_app.replay.report import progress

    started_s = time.monotonic()
    with progress(_console(is_quiet=is_quiet)) as show:
        made = replay_offline(
            log,
            settings,
            type_map=options.type_map,
            limit=options.limit,
            send_unknown_types=options.send_unknown_types,
            items=options.items,
            recorder=recorder,
            on_taken=lambda num_events: show(f"{num_events:,} events taken"),
        )
    return {
        "events_in": made.sent.num_events,
        "applied": made.totals.applied,
        "dead_lettered": made.totals.dead_lettered,
        "dead_letter_reasons": dict(made.dead_letters),
        "dropped": dict(made.totals.dropped),
        "users": len(made.sent.users),
        "recommendations": made.num_lists,
        "seconds": round(time.monotonic() - started_s, 3),
        "balanced": made.totals.balances(made.sent.num_events),
    }


def _replay_to_kafka(
    settings: Settings,
    log: Log,
    options: ReplayOptions,
    recorder: Recorder | None,
    resumable: Resumable,
    *,
    is_quiet: bool,
) -> dict[str, Any]:
    from stream_app.replay.report import progress

    async def run() -> dict[str, Any]:
        replay = run_with_roles if options.with_roles else run_replay
        with stop_event() as stop, progress(_console(is_quiet=is_quiet)) as show:
            return await replay(settings, log, options, show, stop, recorder, resumable)

    return asyncio.run(run())


def _console(*, is_quiet: bool) -> Console:
    from rich.console import Console

    return Console(stderr=True, quiet=is_quiet)
