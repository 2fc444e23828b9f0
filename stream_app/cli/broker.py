"""`sliceflow broker`: runs the embedded Kafka broker in the foreground."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Final

import click
import msgspec

from stream_app.broker import EmbeddedBroker
from stream_app.broker.errors import BrokerError
from stream_app.cli._context import address_file, plain_settings
from stream_app.errors import SliceflowError, UsageError
from stream_app.local_broker import announced

POLL_S: Final = 0.5
"""How soon the end of Kafka itself is noticed."""


@click.command("broker")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data. [default: `broker` in the state folder]",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port for clients. [default: a free one]")
@click.option("--ephemeral", is_flag=True, help="Keep nothing: the data goes when the broker stops.")
@click.option("--heap-mb", type=click.IntRange(128), default=512, show_default=True, help="Largest Java heap, in MiB.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as one line of JSON.")
@click.pass_context
def command(
    context: click.Context,
    data_dir: Path | None,
    port: int | None,
    ephemeral: bool,
    heap_mb: int,
    as_json: bool,
) -> None:
    """Run a Kafka broker on this machine, until Ctrl-C.

    It needs neither Docker nor Java. The first run fetches Kafka (40 MB) and prepares it.
    """
    try:
        if ephemeral and data_dir is not None:
            raise UsageError("--ephemeral keeps no data and --data-dir says where.", mend="give only one.")
        where = address_file(plain_settings(context))
        folder = None if ephemeral else (data_dir or where.parent)
        broker = EmbeddedBroker(folder, port=port, heap_mb=heap_mb, on_progress=_say)
        with _told_to_stop():
            # Only the broker on the state folder is the one that the other commands look for.
            _run(broker, announce_in=where if folder == where.parent else None, as_json=as_json)
    except SliceflowError as error:
        click.echo(f"error: {error}", err=True)
        context.exit(error.exit_code)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _run(broker: EmbeddedBroker, *, announce_in: Path | None, as_json: bool) -> None:
    """Run the broker until the process is told to stop.

    Raises:
        BrokerError: Kafka did not start, or ended by itself.
    """
    with broker, announced(broker, announce_in) if announce_in else nullcontext():
        _announce(broker, as_json=as_json)
        while (status := broker.poll()) is None:
            time.sleep(POLL_S)
        raise BrokerError(
            f"Kafka ended by itself, with exit status {status}.",
            mend=f"read its log {broker.log_file}, then start it again; the data is kept.",
        )


def _announce(broker: EmbeddedBroker, *, as_json: bool) -> None:
    if as_json:
        facts = {
            "bootstrap_servers": broker.bootstrap_servers,
            "data_dir": str(broker.data_dir),
            "log_file": str(broker.log_file),
            "pid": broker.pid,
        }
        click.echo(msgspec.json.encode(facts))
        return
    click.echo(f"Kafka is ready on {broker.bootstrap_servers}")
    click.echo(f"  its data: {broker.data_dir}")
    click.echo(f"  its log:  {broker.log_file}")
    click.echo(f"  use it:   export KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap_servers}")
    click.echo("  stop it:  Ctrl-C")


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """Leave the block quietly on SIGTERM or Ctrl-C; further ones are ignored while the block tidies up.

    Tidying up is bounded (see `EmbeddedBroker.stop`), so ignoring them cannot hang the terminal.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def tell(_number: int, _frame: FrameType | None) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, tell)
    try:
        yield
    except KeyboardInterrupt:
        _say("stopped")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
