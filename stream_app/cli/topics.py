"""`sliceflow topics`: the topics as they are and as they should be."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.table import Table

from stream_app.cli._context import echo_json, reachable_settings
from stream_app.preflight import TopicState, ensure_topics, inspect_topics


@click.command("topics")
@click.option("--create", is_flag=True, help="Create the missing ones.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one topic a line.")
@click.pass_context
def command(ctx: click.Context, create: bool, as_json: bool) -> None:
    """List the topics with their state; exit code 1 when one is missing or of the wrong shape."""
    settings = reachable_settings(ctx)
    states = ensure_topics(settings, create=True) if create else inspect_topics(settings)
    if as_json:
        for state in states:
            echo_json(_plain(state))
    else:
        _print_table(states)
    if any(state.is_missing or state.problems for state in states):
        ctx.exit(1)


def state_word(state: TopicState) -> str:
    """One word for the state of a topic."""
    if state.is_missing:
        return "missing"
    if state.problems:
        return "wrong"
    return "created" if state.created else "ok"


def _plain(state: TopicState) -> dict[str, Any]:
    return {
        "topic": state.name,
        "state": state_word(state),
        "partitions": state.num_partitions,
        "expected_partitions": state.spec.num_partitions,
        "cut_by": state.spec.group,
        "cleanup": state.cleanup,
        "max_message_bytes": state.max_message_bytes,
        "problems": state.problems,
        "notes": state.notes,
    }


def _print_table(states: list[TopicState]) -> None:
    table = Table("topic", "state", "partitions", "cut by", "cleanup", box=None)
    for state in states:
        shown = "-" if state.num_partitions is None else str(state.num_partitions)
        table.add_row(
            state.name, state_word(state), shown, state.spec.group or "-", state.cleanup or state.spec.cleanup
        )
    Console().print(table)
    for state in states:
        for line in (*state.problems, *state.notes):
            click.echo(line)
    if any(state.is_missing for state in states):
        click.echo("Create the missing topics with `sliceflow topics --create`.")
