"""`sliceflow config`: every setting with its value and its meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args, get_type_hints

import click
import msgspec
from rich.console import Console
from rich.table import Table

from stream_app.cli._context import echo_json, plain_settings
from stream_app.settings import ENV_PREFIX, KafkaSettings, Settings

SECRETS: Final = frozenset({"kafka.sasl_password"})
"""The settings whose value is never shown."""


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show all settings with value and meaning; secrets are masked.

    They come from defaults, the configuration file, then the environment (SLICEFLOW_<NAME>, nested names with
    an underscore: SLICEFLOW_KAFKA_SSL_CAFILE); later ones win.
    """
    rows = list(described(plain_settings(ctx)))
    if as_json:
        echo_json({name: {"value": value, "variable": _variable(name), "meaning": text} for name, value, text in rows})
        return
    table = Table(box=None)
    table.add_column("setting", no_wrap=True)
    table.add_column("value")
    table.add_column("meaning")
    for name, value, text in rows:
        table.add_row(name, msgspec.json.encode(value).decode("utf-8"), text)
    Console().print(table, markup=False)


def described(settings: Settings) -> Iterator[tuple[str, Any, str]]:
    """Name, value and meaning of each setting, in the order of the file; secrets as ``***``."""
    for name, value, text in _fields(settings):
        if isinstance(value, KafkaSettings):
            yield from ((f"{name}.{inner}", _masked(f"{name}.{inner}", at), said) for inner, at, said in _fields(value))
        else:
            yield name, _masked(name, value), text


def _fields(struct: msgspec.Struct) -> Iterator[tuple[str, Any, str]]:
    hints = get_type_hints(type(struct), include_extras=True)
    for name in struct.__struct_fields__:
        yield name, getattr(struct, name), _description(hints[name])


def _description(hint: Any) -> str:
    # An annotated type in an annotated type is flat here; the description is in whichever note has one.
    found = [note.description for note in get_args(hint) if isinstance(note, msgspec.Meta) and note.description]
    return found[-1] if found else ""


def _masked(name: str, value: Any) -> Any:
    return "***" if name in SECRETS and value else value


def _variable(name: str) -> str:
    return ENV_PREFIX + name.replace(".", "_").upper()
