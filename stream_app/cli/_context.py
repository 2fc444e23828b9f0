"""What several commands share: the settings of a call, a quick look at the broker, JSON on stdout."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from stream_app.cli import Globals
from stream_app.errors import KafkaUnreachableError, UsageError
from stream_app.settings import Settings, load_settings

REACHABLE_WITHIN_S: Final = 5.0
"""How long a command waits for a broker's first answer: a person waits, and milliseconds are usual."""


def plain_settings(ctx: click.Context) -> Settings:
    """The settings of this call, as file and environment give them.

    Raises:
        SettingsError: They are wrong.
    """
    options = ctx.find_object(Globals) or Globals()
    return load_settings(options.config)


def address_file(settings: Settings) -> Path:
    """Where a running embedded broker writes its ``host:port``."""
    return settings.state_path / "broker" / "address"


def resolve_settings(ctx: click.Context) -> Settings:
    """The settings of this call, with the embedded broker's address where no other broker is named.

    Raises:
        SettingsError: They are wrong.
        KafkaUnreachableError: No broker is named, and no embedded one runs.
    """
    settings = plain_settings(ctx)
    if settings.kafka.bootstrap_servers:
        return settings
    found = read_address(settings)
    if not found:
        raise KafkaUnreachableError(
            f"No Kafka broker is named, and no embedded one runs: there is no {address_file(settings)}.",
            mend="run `sliceflow up` in another terminal, or set KAFKA_BOOTSTRAP_SERVERS",
        )
    return msgspec.structs.replace(settings, kafka=msgspec.structs.replace(settings.kafka, bootstrap_servers=found))


def read_address(settings: Settings) -> str:
    """The embedded broker's address; empty where none is written."""
    return written_in(address_file(settings))


def written_in(file: Path) -> str:
    """The line that a running process wrote to a file; empty where there is none."""
    try:
        return file.read_text("utf-8").strip()
    except FileNotFoundError:
        return ""


def begin_process(ctx: click.Context, *, end_with_stdin: bool) -> Settings:
    """What comes first in a process that runs until it is stopped: its log is set up, and its settings are resolved.

    Args:
        ctx: Of the command.
        end_with_stdin: Whether it is to stop when standard input ends.

    Raises:
        SettingsError: The settings are wrong.
        KafkaUnreachableError: No broker is named, and no embedded one runs.
    """
    # Imported here, as in `reachable_settings`.
    from stream_app.logs import set_up_logging

    if end_with_stdin:
        from stream_app.lifeline import end_with_parent

        end_with_parent()
    options = ctx.find_object(Globals) or Globals()
    set_up_logging(debug=options.debug)
    settings = resolve_settings(ctx)
    set_up_logging(debug=options.debug, as_json=settings.log_json)
    return settings


def reachable_settings(ctx: click.Context) -> Settings:
    """As `resolve_settings`, and the broker has answered just now.

    Raises:
        SettingsError: The settings are wrong.
        KafkaUnreachableError: There is no broker, or it does not answer.
    """
    # Imported here, because the help of every command imports this module, and Kafka's client takes a while.
    from stream_app.kafka import check_reachable

    # The clients' own log lines would stand between the command's; what matters comes as an error.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    settings = resolve_settings(ctx)
    check_reachable(settings, REACHABLE_WITHIN_S)
    return settings


def printable(text: str) -> str:
    """`text` with control characters escaped: ids come from others, and could steer the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def echo_json(value: Any) -> None:
    """Print one value as a line of JSON."""
    click.echo(msgspec.json.encode(value).decode("utf-8"))


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """Repeated ``NAME=VALUE`` options as a map.

    Raises:
        UsageError: One is not of that form, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{option} {text} is not of the form NAME=VALUE.", mend=f"see --help: {option}")
        if name in found:
            raise UsageError(f"{option} names {name} twice.", mend="give it once")
        found[name] = value
    return found
