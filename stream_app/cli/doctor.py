"""`sliceflow doctor`: what is wrong with the set-up, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from stream_app.cli._context import echo_json, plain_settings, resolve_settings
from stream_app.doctor import Check, failed, kafka_checks, local_checks
from stream_app.errors import KafkaUnreachableError, SettingsError


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one check a line.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check settings, machine, Kafka, topics and lag; exit code 1 when anything fails."""
    has_failed = False
    for check in _checks(ctx):
        has_failed |= check.status == "FAIL"
        if as_json:
            echo_json(check)
        else:
            click.echo(line_of(check))
    if has_failed:
        ctx.exit(1)


def _checks(ctx: click.Context) -> Iterator[Check]:
    try:
        settings = plain_settings(ctx)
    except SettingsError as error:
        yield failed("settings", error)
        return
    yield Check("settings", "OK", f"prefix {settings.prefix!r}, {settings.partitions} partitions")
    yield from local_checks(settings)
    try:
        settings = resolve_settings(ctx)
    except KafkaUnreachableError as error:
        yield failed("connection", error)
        return
    yield from kafka_checks(settings)


def line_of(check: Check) -> str:
    """One finding as a line: status, name, what was seen, and what mends it."""
    mend = f" To mend it: {check.mend}." if check.mend else ""
    end = "" if not mend or check.detail.endswith(".") else "."
    return f"{check.status:<5} {check.name:<13} {check.detail}{end}{mend}"
