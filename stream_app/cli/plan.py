"""`sliceflow plan`: what machines a load needs, from what was measured."""

from __future__ import annotations

from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from stream_app.cli._context import echo_json
from stream_app.planning.measured import MeasuredFigures, load_measured
from stream_app.planning.sizing import Load, Plan, plan_for


@click.command("plan")
@click.option("--users", type=click.IntRange(min=1), required=True, help="Users whose state is kept.")
@click.option(
    "--events-per-second",
    "events_per_s",
    type=click.FloatRange(min=0, min_open=True),
    required=True,
    help="Events a second at the busiest hour.",
)
@click.option("--items", type=click.IntRange(min=1), required=True, help="Items in the catalogue.")
@click.option("--dim", type=click.IntRange(min=1), default=64, show_default=True, help="Dimension of the model.")
@click.option(
    "--retention-days",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    help="How long topics that grow with the events are kept.",
)
@click.option("--replication", type=click.IntRange(min=1), default=3, show_default=True, help="Copies of every topic.")
@click.option("--standbys", type=click.IntRange(min=0), default=1, show_default=True, help="Copies of each store.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool, **wanted: Any) -> None:
    """Tell workers, memory, disks, partitions and recovery times for a load.

    Everything is computed from measurements that are in the repository; --json names the one behind each figure.
    Read it as a first order of machines, then measure your own: `make bench-sizing`.
    """
    measured = load_measured()
    made = plan_for(Load(**wanted), measured)
    if as_json:
        echo_json(as_plain(made, measured))
    else:
        _print(made)


def as_plain(made: Plan, measured: MeasuredFigures) -> dict[str, Any]:
    """The plan and the figures behind it as plain values."""
    plain: dict[str, Any] = msgspec.to_builtins(made)
    return plain | {"cores": made.cores, "measured": msgspec.to_builtins(measured)}


def _print(made: Plan) -> None:
    table = Table(box=None)
    table.add_column("role")
    for name in ("cores in use", "workers", "MiB a worker", "disk MiB a worker", "recovery s"):
        table.add_column(name, justify="right")
    for role in made.roles:
        recovery = "<1" if role.recovery_s < 1 else f"{role.recovery_s:,.0f}"
        numbers = (f"{role.cores:.2f}", f"{role.workers}", f"{role.memory_mib:,}", f"{role.disk_mib:,}", recovery)
        table.add_row(role.role, *numbers)
    Console().print(table)
    click.echo(f"\npartitions {made.partitions}, cores in use {made.cores:.1f}, brokers included")
    click.echo(f"brokers: {made.kafka_cores:.1f} cores, {made.kafka_disk_gib:,.1f} GiB of disk, all together")
    for note in made.notes:
        click.echo(f"- {note}")
