"""`sliceflow replay`: an event log to Kafka, until every role has worked it off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from stream_app.cli._context import echo_json, pairs, reachable_settings
from stream_app.cli._signals import stop_event, unless_stopped
from stream_app.errors import UsageError

if TYPE_CHECKING:
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
@click.option("--speed", default="max", show_default=True, help="`max`, or event seconds a second: 1, 60, ...")
@click.option("--limit", type=click.IntRange(min=0), help="Stop after so many rows.")
@click.option("--field", "fields", multiple=True, metavar="FIELD=COLUMN", help="The log's column of a field.")
@click.option("--type-map", "types", multiple=True, metavar="TYPE=OURS", help="Send a type as one of ours.")
@click.option("--ts-unit", type=click.Choice(["ms", "s", "us"]), help="Unit of integer times in the log.")
@click.option("--items", type=FILE, help="A catalogue (NDJSON) to send first.")
@click.option("--send-unknown-types", is_flag=True, help="Let types that nobody named become dead letters.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the roles.")
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    speed: str,
    limit: int | None,
    fields: Sequence[str],
    types: Sequence[str],
    ts_unit: str | None,
    items: Path | None,
    send_unknown_types: bool,
    no_wait: bool,
) -> None:
    """Send the events of FILE with their own times, and wait until the lists are made.

    FILE is Parquet, NDJSON or CSV, the last two may be gzipped. The last line on stdout is JSON: how many
    events went in and what became of them. Exit code 1 where that does not add up, or the roles did not catch
    up. Ctrl-C ends the log there.
    """
    from stream_app.replay.readers import open_log

    options = ReplayOptions(
        type_map=pairs(types, "--type-map"),
        speed=parse_speed(speed),
        limit=limit,
        send_unknown_types=send_unknown_types,
        items=items,
        wait=not no_wait,
    )
    log = open_log(file, pairs(fields, "--field") or None, ts_unit=cast("TsUnit | None", ts_unit))
    outcome = asyncio.run(_replay(reachable_settings(ctx), log, options))
    echo_json(outcome)
    if outcome.get("balanced") is False:
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


async def _replay(settings: Settings, log: EventLog, options: ReplayOptions) -> dict[str, Any]:
    from rich.console import Console

    from stream_app.replay.report import progress

    with stop_event() as stop, progress(Console(stderr=True)) as show:
        return await run_replay(settings, log, options, show, stop)


async def run_replay(
    settings: Settings, log: EventLog, options: ReplayOptions, show: Progress, stop: asyncio.Event
) -> dict[str, Any]:
    """Replay `log` and say what came of it, in plain values.

    Raises:
        SliceflowError: As `replay_log` and `wait_caught_up`.
        click.Abort: `stop` was set while waiting for the roles.
    """
    from stream_app.replay import caught_up
    from stream_app.replay.producer import replay_log, send_items

    started_s = time.monotonic()
    if options.items is not None:
        show(f"{await send_items(options.items, settings)} items sent")
    before = await caught_up.read_totals(settings)
    lists_from = await caught_up.list_ends(settings)
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
    totals = (await caught_up.read_totals(settings)).since(before)
    return {
        "events_in": sent.num_events,
        "applied": totals.applied,
        "dead_lettered": totals.dead_lettered,
        "dropped": dict(totals.dropped),
        "users": len(sent.users),
        "recommendations": await caught_up.users_with_list(settings, sent.users, lists_from),
        "seconds": round(time.monotonic() - started_s, 3),
        "balanced": totals.balances(sent.num_events),
    }
