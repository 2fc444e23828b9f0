"""One replay to Kafka, from the first record to the sum of what came of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from stream_app.cli._replay_options import ReplayOptions
from stream_app.cli._signals import unless_stopped

if TYPE_CHECKING:
    from stream_app.recorded_topics import OutputEnds
    from stream_app.recording import Recorder
    from stream_app.replay.caught_up import Totals
    from stream_app.replay.pausing import Pauses
    from stream_app.replay.place import Place, PlaceFile
    from stream_app.replay.readers import Log
    from stream_app.replay.report import Progress
    from stream_app.settings import Settings

ROLES_READY_WITHIN_S: Final = 180.0
"""Longest wait for roles that were started for a replay; ten seconds are usual."""


@dataclass(frozen=True)
class Resumable:
    """Where a replay keeps its place, and the place it goes on from (None: from the beginning)."""

    file: PlaceFile
    place: Place | None = None


async def run_replay(
    settings: Settings,
    log: Log,
    options: ReplayOptions,
    show: Progress,
    stop: asyncio.Event,
    recorder: Recorder | None = None,
    resumable: Resumable | None = None,
) -> dict[str, Any]:
    """Replay `log` to Kafka and say what came of it, in plain values; `recorder` takes the lists and slices.

    Raises:
        SliceflowError: As `replay_log` and `wait_caught_up`.
        click.Abort: `stop` was set while waiting for the roles.
    """
    from stream_app.replay import caught_up
    from stream_app.replay.place import Keeping
    from stream_app.replay.producer import replay_log

    started_s = time.monotonic()
    totals_before, since = await _before(settings, options, show, resumable)
    keeping = None
    if resumable is not None:
        before = msgspec.to_builtins({"totals": totals_before, "since": since}, str_keys=True)
        keeping = Keeping(resumable.file, before, resumable.place)
    with pausing(options.pause_at_ms) as pauses:
        sent = await replay_log(
            log,
            settings,
            type_map=options.type_map,
            speed=options.speed,
            limit=options.limit,
            send_unknown_types=options.send_unknown_types,
            stop=stop,
            pauses=pauses,
            keeping=keeping,
            on_sent=lambda num_sent: show(f"{num_sent:,} events sent"),
        )
    facts: dict[str, Any] = {"events_in": sent.num_events, "users": len(sent.users)}
    if sent.is_broken_off:
        facts["broken_off"] = True
    if options.wait:
        stop.clear()  # a Ctrl-C that ended the log is done with; the next one ends the waiting
        waiting = caught_up.wait_caught_up(settings, on_lag=lambda lag: show(f"{lag.role}: {lag.behind:,} behind"))
        await unless_stopped(stop, waiting)
        show("reading the lists")
        totals = (await caught_up.read_totals(settings)).since(totals_before)
        facts |= await _outcome(settings, sent.users, totals, since, recorder)
        facts["balanced"] = totals.balances(sent.num_events)
    if resumable is not None and not sent.is_broken_off:
        resumable.file.remove()
    return {**facts, "seconds": round(time.monotonic() - started_s, 3)}


async def run_with_roles(
    settings: Settings,
    log: Log,
    options: ReplayOptions,
    show: Progress,
    stop: asyncio.Event,
    recorder: Recorder | None,
    resumable: Resumable,
) -> dict[str, Any]:
    """As `run_replay`, with roles of its own: started before, stopped behind.

    Raises:
        RoleFailedError: A role did not become ready, or was given up.
        UsageError: Roles run on the state folder already.
        click.Abort: `stop` was set before the roles were ready.
    """
    from stream_app.supervisor import Supervisor, workers_of

    def tell(event: Any) -> None:
        if event.worker is not None:
            show(f"{event.worker.label} {event.event}")

    async with Supervisor(settings, workers_of({}), on_event=tell) as supervisor:
        await unless_stopped(stop, supervisor.wait_ready(ROLES_READY_WITHIN_S))
        return await supervisor.watch(run_replay(settings, log, options, show, stop, recorder, resumable))


async def _before(
    settings: Settings, options: ReplayOptions, show: Progress, resumable: Resumable | None
) -> tuple[Totals, OutputEnds]:
    """The totals, and where the outputs end, before the first record; of a replay that goes on as they were then."""
    from stream_app.recorded_topics import OutputEnds, output_ends
    from stream_app.replay import caught_up
    from stream_app.replay.producer import send_items

    if resumable is not None and resumable.place is not None:
        kept = resumable.place.before
        return (
            msgspec.convert(kept["totals"], caught_up.Totals, str_keys=True),
            msgspec.convert(kept["since"], OutputEnds, str_keys=True),
        )
    if options.items is not None:
        show(f"{await send_items(options.items, settings)} items sent")
    return await caught_up.read_totals(settings), await output_ends(settings)


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


@contextmanager
def pausing(at_ms: int | None) -> Iterator[Pauses]:
    """The pauses of a replay within the block; for a running loop of the main thread.

    Ctrl-Z stops the process where everything sent is acknowledged. The pause at `at_ms` ends with Enter, where there is
    a terminal, or SIGCONT.
    """
    from stream_app.replay.pausing import Pauses

    loop = asyncio.get_running_loop()
    has_terminal = sys.stdin is not None and sys.stdin.isatty()

    def on_pause(num_sent: int) -> None:
        key = "Enter, or " if has_terminal else ""
        # Not as progress, which is not always shown: nobody must wonder what it waits for.
        click.echo(f"paused after {num_sent:,} events; {key}SIGCONT (kill -CONT {os.getpid()}) goes on", err=True)
        if has_terminal:
            loop.add_reader(sys.stdin, on_key)

    def on_key() -> None:
        sys.stdin.readline()
        loop.remove_reader(sys.stdin)
        pauses.go_on.set()

    pauses = Pauses(at_ms, on_pause)
    handlers = {signal.SIGTSTP: pauses.suspend.set, signal.SIGCONT: pauses.go_on.set}
    # Whoever started this process may want Ctrl-Z to be ignored.
    taken = {number: act for number, act in handlers.items() if signal.getsignal(number) is signal.SIG_DFL}
    for number, act in taken.items():
        loop.add_signal_handler(number, act)
    try:
        yield pauses
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
        if has_terminal:
            loop.remove_reader(sys.stdin)
        pauses.stand_by()
