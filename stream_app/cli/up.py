"""`sliceflow up`: the embedded broker and all roles on this machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from stream_app.cli._context import address_file, echo_json, plain_settings
from stream_app.cli._signals import stop_event, terminate_as_interrupt
from stream_app.cli.serve import page_address
from stream_app.errors import UsageError
from stream_app.roles import SERVE

if TYPE_CHECKING:
    from stream_app.broker import EmbeddedBroker
    from stream_app.role_process import Worker
    from stream_app.settings import Settings
    from stream_app.supervisor import OnEvent, RoleEvent

BROKER_POLL_S: Final = 0.5
"""How soon the end of the embedded broker is noticed."""


@click.command("up")
@click.option("--workers", "counts", multiple=True, metavar="ROLE=N", help="Several workers of a role.")
@click.option("--no-page", is_flag=True, help="Without the server of the page and the HTTP API.")
@click.option("--json", "as_json", is_flag=True, help="Print every event as one line of JSON.")
@click.pass_context
def command(ctx: click.Context, counts: Sequence[str], no_page: bool, as_json: bool) -> None:
    """Run all roles and the page on this machine until Ctrl-C, and a broker where none is named.

    A role that ends is started again. With KAFKA_BOOTSTRAP_SERVERS the roles use that broker. It needs a
    model: see `sliceflow train`.
    """
    # Imported here, so that the command's help does not wait for Kafka's client.
    from stream_app.models import served_model
    from stream_app.preflight import ensure_topics
    from stream_app.role_process import Worker
    from stream_app.supervisor import lock_folder, workers_of

    settings = plain_settings(ctx)
    workers = [*workers_of(parse_counts(counts)), *([] if no_page else [Worker(SERVE)])]
    served_model(settings)
    lock_folder(settings.state_path).release()  # refuse before a broker is started
    told = partial(tell_as_json, settings) if as_json else partial(tell, settings)
    with terminate_as_interrupt(), broker_for(settings) as (reached, broker):
        ensure_topics(reached, create=True)
        if not as_json and sys.stdout.isatty():
            asyncio.run(_run_with_table(reached, workers, broker))
        else:
            asyncio.run(_run(reached, workers, broker, told))


def parse_counts(texts: Sequence[str]) -> dict[str, int]:
    """The ``ROLE=N`` options as counts.

    Raises:
        UsageError: One is not of that form.
    """
    counts: dict[str, int] = {}
    for text in texts:
        role, equals, number = text.partition("=")
        if not equals or not (number.isascii() and number.isdigit()):
            raise UsageError(f"--workers {text} is not of the form ROLE=N.", mend="for example --workers sequence=2")
        counts[role] = int(number)
    return counts


@contextmanager
def broker_for(settings: Settings) -> Iterator[tuple[Settings, EmbeddedBroker | None]]:
    """The settings with an address: that of the broker they name, else of an embedded one for the block.

    Raises:
        BrokerError: The embedded broker did not start.
    """
    from stream_app.local_broker import local_broker, with_broker

    if settings.kafka.bootstrap_servers:
        yield settings, None
        return
    where = address_file(settings)
    with local_broker(where.parent, where, say) as broker:
        say(f"Kafka is ready on {broker.bootstrap_servers}")
        yield with_broker(settings, broker.bootstrap_servers), broker


def say(text: str) -> None:
    """Print a line of progress on stderr, where it does not mix with JSON."""
    click.echo(text, err=True)


def tell(settings: Settings, event: RoleEvent) -> None:
    """Print an event as a line for people."""
    if event.worker is None:
        click.echo("all roles are ready")
        if page := page_address(settings):
            click.echo(f"the page is at {page}")
        return
    pid = f" (process {event.pid})" if event.event == "started" else ""
    reason = f": {event.reason}" if event.reason else ""
    click.echo(f"{event.worker.label} {event.event}{pid}{reason}")


def tell_as_json(settings: Settings, event: RoleEvent) -> None:
    """Print an event as a line of JSON."""
    shown: dict[str, object] = {"event": event.event}
    if event.event == "all-ready" and (page := page_address(settings)):
        shown["page"] = page
    if event.worker is not None:
        shown |= {"role": event.worker.role, "instance": event.worker.instance, "pid": event.pid}
    if event.reason:
        shown["reason"] = event.reason
    echo_json(shown)


async def _run_with_table(settings: Settings, workers: Sequence[Worker], broker: EmbeddedBroker | None) -> None:
    """As `_run`, with a table of the workers on the terminal."""
    from stream_app.cli._live_table import LiveTable
    from stream_app.kafka import quiet_clients

    with quiet_clients(), LiveTable(workers, address_of=lambda: page_address(settings)) as table:
        following = asyncio.create_task(table.follow(settings))
        try:
            await _run(settings, workers, broker, table.take)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _run(settings: Settings, workers: Sequence[Worker], broker: EmbeddedBroker | None, on_event: OnEvent) -> None:
    """Run the workers until a signal.

    Raises:
        RoleFailedError: A role was given up.
        BrokerError: The embedded broker ended by itself.
    """
    from stream_app.supervisor import Supervisor

    with stop_event() as stop:
        async with Supervisor(settings, workers, on_event=on_event) as supervisor:
            await supervisor.watch(_until(stop, broker))


async def _until(stop: asyncio.Event, broker: EmbeddedBroker | None) -> None:
    from stream_app.broker import BrokerError

    while not stop.is_set():
        if broker is not None and (status := broker.poll()) is not None:
            raise BrokerError(
                f"Kafka ended by itself, with exit status {status}.",
                mend=f"read its log {broker.log_file}, then start again; the data is kept",
            )
        try:
            await asyncio.wait_for(stop.wait(), BROKER_POLL_S)
        except TimeoutError:
            continue
