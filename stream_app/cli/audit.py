"""`sliceflow audit`: whether what lies on the topics and in the stores keeps what is promised."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from stream_app.cli._context import echo_json, printable, reachable_settings

if TYPE_CHECKING:
    from stream_app.audit.auditor import AuditOptions
    from stream_app.audit.findings import Check
    from stream_app.settings import Settings


@click.command("audit")
@click.option(
    "--bound-s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Within so many seconds the roles must have worked off what is there now.",
)
@click.option("--no-store", is_flag=True, help="Do not compare the stores of this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one check a line, and nothing else.")
@click.pass_context
def command(ctx: click.Context, bound_s: float, no_store: bool, as_json: bool) -> None:
    """Check that nothing was lost, counted twice or changed; exit code 1 on any breach.

    It reads whole topics and the stores of this machine, beside running roles or after they have stopped, and changes
    nothing. Run it with the settings of the roles: it folds the events once more, by the same rules.
    """
    # Imported here, so that the command's help does not wait for Kafka's client and Faust.
    from stream_app.audit.auditor import AuditOptions

    settings = reachable_settings(ctx)
    checks = asyncio.run(_audit(settings, AuditOptions(bound_s=bound_s, stores=not no_store), quiet=as_json))
    if as_json:
        for check in checks:
            echo_json(check.plain())
    else:
        _print_tables(checks)
        for line in lines_of(checks):
            click.echo(printable(line))
    if any(check.num_breaches for check in checks):
        ctx.exit(1)


async def _audit(settings: Settings, options: AuditOptions, *, quiet: bool) -> list[Check]:
    from rich.console import Console

    from stream_app.audit.auditor import audit
    from stream_app.replay.report import progress

    with progress(Console(stderr=True, quiet=quiet)) as show:
        return await audit(settings, options, show)


def lines_of(checks: Sequence[Check]) -> list[str]:
    """What stands below the tables: breaches with their places, what was not checked, and what to know."""
    lines: list[str] = []
    for check in checks:
        for breach in check.breaches:
            place = f"{breach.place}: " if breach.place else ""
            lines.append(f"breach of {check.name}: {place}seen {breach.seen}; expected {breach.expected}")
        if check.num_breaches > len(check.breaches):
            lines.append(f"breach of {check.name}: and {check.num_breaches - len(check.breaches):,} more")
    lines += [f"not checked by {check.name}: {text}" for check in checks for text in check.not_checked]
    lines += [f"note on {check.name}: {text}" for check in checks for text in check.notes]
    return lines


def _print_tables(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table("check", "status", "breaches", "seen", box=None)
    for check in checks:
        # Names of drops and topics are no markup.
        table.add_row(check.name, check.status, f"{check.num_breaches:,}", Text(printable(check.summary)))
    console.print(table)
    rows: list[dict[str, Any]] = next(check.facts.get("partitions", []) for check in checks if check.name == "input")
    table = Table("partition", "in", "applied", "dead letters", "dropped", "removed", "missing", box=None)
    for row in rows:
        counts = (row["in"], row["applied"], row["dead_lettered"], sum(row["dropped"].values()))
        numbers = [f"{count:,}" for count in (*counts, row["removed"], row["missing"])]
        table.add_row(str(row["partition"]), *numbers)
    console.print()
    console.print(table)
