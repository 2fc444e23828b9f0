"""`sliceflow rebuild`: the state of a role, made anew from its input and put in the place of the one in force."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import click

from stream_app.cli._context import echo_json, reachable_settings
from stream_app.cli._signals import stop_event, unless_stopped
from stream_app.roles import ROLES, SINGLE_ROLES

if TYPE_CHECKING:
    from pathlib import Path

    from stream_app.rebuilding import Differences, Rebuilt
    from stream_app.replay.report import Progress
    from stream_app.settings import Settings


@click.command("rebuild")
@click.argument("role", type=click.Choice(ROLES))
@click.option("--json", "as_json", is_flag=True, help="Print the line of JSON and nothing else.")
@click.pass_context
def command(ctx: click.Context, role: str, as_json: bool) -> None:
    """Make the state of ROLE anew from its input, and put it in the place of the one in force.

    Stop all workers of the role before; it waits a while for that. The input must be there from its first record on;
    it is folded up to what the role has worked off, beside the state in force, which then is replaced as a whole. Until
    that begins, Ctrl-C leaves everything as it was. If the command dies while it replaces the state, workers of the
    role refuse to start until it has been run again to its end.
    """
    from rich.console import Console

    from stream_app.rebuilding import workplace
    from stream_app.replay.report import progress

    settings = reachable_settings(ctx)
    started_s = time.monotonic()
    with workplace(settings, role) as folder, progress(Console(stderr=True, quiet=as_json)) as show:
        rebuilt, differences = asyncio.run(_rebuild(settings, role, folder, show))
    facts = _facts(rebuilt, differences, time.monotonic() - started_s)
    if not as_json:
        click.echo(_summary(facts), err=True)
    echo_json(facts)


async def _rebuild(settings: Settings, role: str, folder: Path, show: Progress) -> tuple[Rebuilt, Differences]:
    """Build, compare, swap. A signal is heeded until the swap begins."""
    from stream_app.rebuilding import build, compare, open_stores
    from stream_app.swapping import swap

    num_partitions = 1 if role in SINGLE_ROLES else settings.partitions
    with (
        stop_event() as stop,
        open_stores(folder / "new", num_partitions) as new,
        open_stores(folder / "old", num_partitions) as old,
    ):
        rebuilt = await unless_stopped(stop, build(settings, role, new, show))
        differences = await unless_stopped(stop, compare(settings, rebuilt, old, show))
        await swap(settings, rebuilt, old, differences, folder / "check", show)
        return rebuilt, differences


def _facts(rebuilt: Rebuilt, differences: Differences, seconds: float) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "role": rebuilt.role,
        "records": rebuilt.num_records,
        "keys": differences.num_keys,
        "added": differences.num_added,
        "changed": differences.num_changed,
        "removed": differences.num_removed,
        "seconds": round(seconds, 3),
    }
    return facts | ({"damage": differences.damage} if differences.damage else {})


def _summary(facts: dict[str, Any]) -> str:
    made = f"{facts['role']}: {facts['keys']:,} keys from {facts['records']:,} records in {facts['seconds']:g} s"
    if "damage" in facts:
        return f"{made}; the changelog was made anew, since it could not be read: {facts['damage']}"
    differing = [f"{facts[name]:,} {name}" for name in ("added", "changed", "removed") if facts[name]]
    return f"{made}; {', '.join(differing) or 'nothing differed'}"
