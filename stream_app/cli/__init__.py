"""The command line: one group, its commands imported only when they are asked for."""

from __future__ import annotations

import errno
import importlib
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import click
from click.shell_completion import CompletionItem

from stream_app.errors import SliceflowError

COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "demo": "Start everything on this machine and watch lists follow clicks.",
        "up": "Start an embedded broker and all roles on this machine.",
        "worker": "Run one role against Kafka.",
        "serve": "Serve the page and the HTTP API.",
        "broker": "Run the embedded Kafka broker alone.",
        "topics": "List the topics, or create the missing ones.",
        "doctor": "Check the set-up, and say what mends what is wrong.",
        "train": "Train a model from an event log.",
        "evaluate": "Judge the lists on an event log, beside every baseline.",
        "send": "Send one event.",
        "erase": "Have all roles forget a user.",
        "replay": "Send an event log with its own times, and wait for the lists.",
        "rebuild": "Make the state of a role anew from its input.",
        "recommend": "Show the current list of a user.",
        "index": "Look into the item index: state, neighbours, search by text.",
        "inspect": "Show why a user's list is as it is.",
        "tail": "Follow the lists as they are published.",
        "audit": "Check that nothing was lost, counted twice or changed.",
        "drift": "Show how close the user vectors are to a full re-encoding.",
        "config": "Show all settings, with their values and meaning.",
        "plan": "Tell what machines a load needs, from what was measured.",
        "completion": "Print what a shell needs to complete the commands.",
    }
)
"""Each command with its line of help, in that order; module ``stream_app.cli.NAME`` holds ``command``."""


@dataclass(frozen=True)
class Globals:
    """The options that stand before the command."""

    config: Path | None = None
    debug: bool = False


class LazyGroup(click.Group):
    """A group that imports a command when it is run, and prints errors as a paragraph."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"stream_app.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"stream_app.cli.{cmd_name}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their lines of help, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands and options that begin so, without importing any command: the shell waits at each key."""
        commands = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error becomes one paragraph on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except SliceflowError as error:
            _fail(ctx, str(error), error.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output left: click ends quietly
                raise
            _fail(ctx, _unexpected(error), 1)
        except Exception as error:
            _fail(ctx, _unexpected(error), 1)


def _unexpected(error: Exception) -> str:
    return f"Unexpected {type(error).__name__}: {error}. Run `sliceflow --debug ...` for the details."


def _fail(ctx: click.Context, text: str, exit_code: int) -> NoReturn:
    if isinstance(ctx.obj, Globals) and ctx.obj.debug:
        click.echo(traceback.format_exc(), err=True, nl=False)
    click.echo(f"Error: {text}", err=True)
    ctx.exit(exit_code)


def _show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        # Reading the packages' metadata takes as long as the rest of a start: only where it is asked for.
        from importlib import metadata

        try:
            version = metadata.version("sliceflow")
        except metadata.PackageNotFoundError:
            version = "(not installed as a package)"
        click.echo(f"sliceflow {version}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file (TOML). [default: SLICEFLOW_CONFIG, else ./sliceflow.toml where it is there]",
)
@click.option("--debug", is_flag=True, help="Show where an error came from.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """Streaming sequential recommendations on Kafka: events in, ranked lists out.

    Start with `sliceflow demo`.
    """
    ctx.obj = Globals(config=config, debug=debug)
