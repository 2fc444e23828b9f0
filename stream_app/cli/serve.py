"""`sliceflow serve`: the page and the HTTP API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream_app.cli._context import begin_process, echo_json, written_in
from stream_app.cli._signals import stop_event
from stream_app.roles import SERVE

if TYPE_CHECKING:
    from stream_app.settings import Settings


@click.command("serve")
@click.option("--any-port", is_flag=True, help="Take any free port where the one of the settings is taken.")
@click.option("--end-with-stdin", is_flag=True, hidden=True, help="Stop when standard input ends.")
@click.pass_context
def command(ctx: click.Context, any_port: bool, end_with_stdin: bool) -> None:
    """Serve the page and the HTTP API until SIGTERM or Ctrl-C.

    It answers from what it holds by following the topics; it writes events alone. It prints one line of JSON with the
    address when it is ready, and its log on stderr. Bound to another address than this machine's own it needs a token.
    """
    settings = begin_process(ctx, end_with_stdin=end_with_stdin)
    # Imported here, so that the command's help does not wait for Kafka's client.
    import uvloop

    from stream_app.preflight import ensure_topics

    ensure_topics(settings, create=True)
    try:
        uvloop.run(_serve(settings, any_port=any_port))
    finally:
        address_file(settings).unlink(missing_ok=True)


def page_address(settings: Settings) -> str:
    """The address of the page, as the server that runs on this state folder wrote it; empty where none does."""
    return written_in(address_file(settings))


def address_file(settings: Settings) -> Path:
    """Where a running server writes its address."""
    return settings.state_path / SERVE / "address"


async def _serve(settings: Settings, *, any_port: bool) -> None:
    from stream_app.web.server import serve

    def tell_ready(address: str) -> None:
        file = address_file(settings)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(address + "\n", "utf-8")
        echo_json({"ready": SERVE, "address": address, "pid": os.getpid()})

    with stop_event() as stop:
        await serve(settings, stop, tell_ready, any_port=any_port)
