"""`sliceflow replay`: an event log through all roles, on Kafka or in this process; what came of it, kept or checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from stream_app.cli._context import echo_json, pairs, plain_settings, reachable_settings
from stream_app.cli._signals import stop_event, unless_stopped
from stream_app.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from stream_app.recorded_topics import OutputEnds
    from stream_app.recording import Recorder
    from stream_app.replay.caught_up import Totals
    from stream_app.replay.readers import EventLog, TsUnit
    from stream_app.replay.report import Progress
    from stream_app.settings import Settings

FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True)
class ReplayOptions:
    """How a log is replayed; `speed` is event seconds a second, None as fast as it goes."""

    type_map: dict[str, str]
    speed: float | None = None
    limit: int | None = None
    send_unknown_types: bool = False
    items: Path | None = None
    wait: bool = True


@click.command("replay")
@click.argument("file", type=FILE)
@click.option("--offline", is_flag=True, help="Without Kafka: all roles in this process, with the model alone.")
@click.option("--speed", default="max", show_default=True, help="`max`, or event seconds a second: 1, 60, ...")
@click.option("--limit", type=click.IntRange(min=0), help="Stop after so many rows.")
@click.option("--field", "fields", multiple=True, metavar="FIELD=COLUMN", help="The log's column of a field.")
@click.option("--type-map", "types", multiple=True, metavar="TYPE=OURS", help="Send a type as one of ours.")
@click.option("--ts-unit", type=click.Choice(["ms", "s", "us"]), help="Unit of integer times in the log.")
@click.option("--items", type=FILE, help="A catalogue (NDJSON) to send first.")
@click.option("--send-unknown-types", is_flag=True, help="Let types that nobody named become dead letters.")
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
def command(
    ctx: click.Context,
    file: Path,
    offline: bool,
    speed: str,
    limit: int | None,
    fields: Sequence[str],
    types: Sequence[str],
    ts_unit: str | None,
    items: Path | None,
    send_unknown_types: bool,
    no_wait: bool,
    record: Path | None,
    check: Path | None,
    score_tolerance: float,
    as_json: bool,
) -> None:
    """Send the events of FILE with their own times, and wait until the lists are made.

    FILE is Parquet, NDJSON or CSV, the last two may be gzipped. Stdout gets one line of JSON: how many events went
    in and what became of them. Exit code 1 where that does not add up, the roles did not catch up, or the outcome is
    not that of GOLDEN. Ctrl-C ends the log there; with --offline it gives up.

    With --offline nothing is sent: the same stages run here, and give the same lists and slices as the roles would.
    """
    from stream_app.cli import _recording
    from stream_app.replay.readers import open_log

    options = ReplayOptions(
        type_map=pairs(types, "--type-map"),
        speed=parse_speed(speed),
        limit=limit,
        send_unknown_types=send_unknown_types,
        items=items,
        wait=not no_wait,
    )
    _check_together(options, offline=offline, is_recorded=record is not None or check is not None)
    log = open_log(file, pairs(fields, "--field") or None, ts_unit=cast("TsUnit | None", ts_unit))
    wish = _recording.prepare(record, check, score_tolerance)
    settings = plain_settings(ctx) if offline else reachable_settings(ctx)
    if offline:
        outcome = _replay_offline(settings, log, options, wish.recorder, quiet=as_json)
    else:
        outcome = asyncio.run(_replay(settings, log, options, wish.recorder, quiet=as_json))
    outcome |= wish.fulfil(outcome, settings)
    if not as_json:
        click.echo(_recording.summary(outcome), err=True)
    echo_json(outcome)
    if outcome.get("balanced") is False or outcome.get("same") is False:
        ctx.exit(1)


def parse_speed(text: str) -> float | None:
    """The factor that `--speed` names; None for ``max``.

    Raises:
        UsageError: It is neither ``max`` nor a number above 0.
    """
    if text == "max":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise UsageError(
            f"--speed {text} is neither `max` nor a number above 0.",
            mend="1 is real time, 60 an hour of the log in a minute",
        )
    return factor


def _check_together(options: ReplayOptions, *, offline: bool, is_recorded: bool) -> None:
    if offline and options.speed is not None:
        raise UsageError("--offline has no clock to keep a --speed by.", mend="leave out one of the two")
    if offline and not options.wait:
        raise UsageError("--offline has nobody to wait for, so --no-wait makes no sense.", mend="leave out --no-wait")
    if is_recorded and not options.wait:
        raise UsageError(
            "With --no-wait the lists are not made yet when --record and --check look at them.",
            mend="leave out --no-wait",
        )


def _replay_offline(
    settings: Settings, log: EventLog, options: ReplayOptions, recorder: Recorder | None, *, quiet: bool
) -> dict[str, Any]:
    from stream_app.offline_replay import replay_offline
    from stream_app.replay.report import progress

    started_s = time.monotonic()
    with progress(_console(quiet=quiet)) as show:
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


async def _replay(
    settings: Settings, log: EventLog, options: ReplayOptions, recorder: Recorder | None, *, quiet: bool
) -> dict[str, Any]:
    from stream_app.replay.report import progress

    with stop_event() as stop, progress(_console(quiet=quiet)) as show:
        return await run_replay(settings, log, options, show, stop, recorder)


def _console(*, quiet: bool) -> Console:
    from rich.console import Console

    return Console(stderr=True, quiet=quiet)


async def run_replay(
    settings: Settings,
    log: EventLog,
    options: ReplayOptions,
    show: Progress,
    stop: asyncio.Event,
    recorder: Recorder | None = None,
) -> dict[str, Any]:
    """Replay `log` to Kafka and say what came of it, in plain values; `recorder` takes the lists and slices.

    Raises:
        SliceflowError: As `replay_log` and `wait_caught_up`.
        click.Abort: `stop` was set while waiting for the roles.
    """
    from stream_app.recorded_topics import output_ends
    from stream_app.replay import caught_up
    from stream_app.replay.producer import replay_log, send_items

    started_s = time.monotonic()
    if options.items is not None:
        show(f"{await send_items(options.items, settings)} items sent")
    before = await caught_up.read_totals(settings)
    since = await output_ends(settings)
    sent = await replay_log(
        log,
        settings,
        type_map=options.type_map,
        speed=options.speed,
        limit=options.limit,
        send_unknown_types=options.send_unknown_types,
        stop=stop,
        on_sent=lambda num_sent: show(f"{num_sent:,} events sent"),
    )
    facts: dict[str, Any] = {"events_in": sent.num_events, "users": len(sent.users)}
    if not options.wait:
        return {**facts, "seconds": round(time.monotonic() - started_s, 3)}
    stop.clear()  # a Ctrl-C that ended the log is done with; the next one ends the waiting
    waiting = caught_up.wait_caught_up(settings, on_lag=lambda lag: show(f"{lag.role}: {lag.behind:,} behind"))
    await unless_stopped(stop, waiting)
    show("reading the lists")
    totals = (await caught_up.read_totals(settings)).since(before)
    facts |= await _outcome(settings, sent.users, totals, since, recorder)
    return {
        **facts,
        "seconds": round(time.monotonic() - started_s, 3),
        "balanced": totals.balances(sent.num_events),
    }


async def _outcome(
    settings: Settings, users: Collection[bytes], totals: Totals, since: OutputEnds, recorder: Recorder | None
) -> dict[str, Any]:
    """What became of the events, as the topics tell it."""
    from stream_app.recorded_topics import dead_letter_reasons, record_topics
    from stream_app.replay.caught_up import users_with_list

    if recorder is None:
        num_lists = await users_with_list(settings, users, since.lists)
    else:
        await record_topics(settings, recorder, users, since)
        num_lists = recorder.num_lists
    return {
        "applied": totals.applied,
        "dead_lettered": totals.dead_lettered,
        "dead_letter_reasons": await dead_letter_reasons(settings, since) if totals.dead_lettered else {},
        "dropped": dict(totals.dropped),
        "recommendations": num_lists,
    }
