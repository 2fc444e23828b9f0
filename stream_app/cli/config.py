"""`sliceflow config`: every setting with its value, where the value came from, and its meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args, get_type_hints

import click
import msgspec
from rich.console import Console
from rich.table import Table

from stream_app.cli import Globals
from stream_app.cli._context import echo_json, plain_settings
from stream_app.settings import ENV_PREFIX, KafkaSettings, Settings, masked, settings_sources

DEFAULT: Final = "default"


@click.group("config", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show all settings with value and meaning; secrets are masked.

    They come from defaults, the configuration file, then the environment (SLICEFLOW_<NAME>, nested names with
    an underscore: SLICEFLOW_KAFKA_SSL_CAFILE); later ones win.
    """
    if ctx.invoked_subcommand is None:
        _print(ctx, as_json=as_json)


@command.command("show")
@click.option("--changed", is_flag=True, help="Only what is not left at its default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx: click.Context, changed: bool, as_json: bool) -> None:
    """Show all settings and where each value came from: default, file or variable; secrets are masked."""
    _print(ctx, as_json=as_json, only_changed=changed)


def _print(ctx: click.Context, *, as_json: bool, only_changed: bool = False) -> None:
    options = ctx.find_object(Globals) or Globals()
    rows = list(described(plain_settings(ctx)))
    sources = settings_sources(options.config)
    if only_changed:
        rows = [row for row in rows if row[0] in sources]
    if as_json:
        echo_json(
            {
                name: {
                    "value": value,
                    "source": sources.get(name, DEFAULT),
                    "variable": _variable(name),
                    "meaning": text,
                }
                for name, value, text in rows
            }
        )
        return
    Console().print(_table(rows, sources), markup=False)


def _table(rows: list[tuple[str, Any, str]], sources: dict[str, str]) -> Table:
    table = Table(box=None)
    table.add_column("setting", no_wrap=True)
    table.add_column("value")
    table.add_column("from")
    table.add_column("meaning")
    for name, value, text in rows:
        table.add_row(name, msgspec.json.encode(value).decode("utf-8"), sources.get(name, DEFAULT), text)
    return table


def described(settings: Settings) -> Iterator[tuple[str, Any, str]]:
    """Name, value and meaning of each setting, in the order of the file; secrets as ``***``."""
    for name, value, text in _fields(settings):
        if isinstance(value, KafkaSettings):
            yield from ((f"{name}.{inner}", masked(inner, at), said) for inner, at, said in _fields(value))
        else:
            yield name, masked(name, value), text


def _fields(struct: msgspec.Struct) -> Iterator[tuple[str, Any, str]]:
    hints = get_type_hints(type(struct), include_extras=True)
    for name in struct.__struct_fields__:
        yield name, getattr(struct, name), _description(hints[name])


def _description(hint: Any) -> str:
    # An annotated type in an annotated type is flat here; the description is in whichever note has one.
    found = [note.description for note in get_args(hint) if isinstance(note, msgspec.Meta) and note.description]
    return found[-1] if found else ""


def _variable(name: str) -> str:
    return ENV_PREFIX + name.replace(".", "_").upper()
