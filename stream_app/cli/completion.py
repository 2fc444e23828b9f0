"""`sliceflow completion`: what a shell needs to complete the commands."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

PROGRAM: Final = "sliceflow"
VARIABLE: Final = "_SLICEFLOW_COMPLETE"
"""Where this is set the program answers the shell's question instead of doing anything; click's rule."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete commands and options.

    For this session: `source <(sliceflow completion bash)`. For all: write it to a file that the shell reads at its
    start (fish: ~/.config/fish/completions/sliceflow.fish).
    """
    completion = get_completion_class(shell)
    assert completion is not None, "click knows the shells of the choice"
    click.echo(completion(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())
