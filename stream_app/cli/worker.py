"""`sliceflow worker`: one role as a process."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from stream_app.cli._context import begin_process, echo_json
from stream_app.roles import ROLES

if TYPE_CHECKING:
    from stream_app.settings import Settings

log = logging.getLogger("sliceflow.worker")


@click.command("worker")
@click.argument("role", type=click.Choice(ROLES))
@click.option(
    "--instance",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Number of this worker among those of its role on this machine.",
)
@click.option("--end-with-stdin", is_flag=True, hidden=True, help="Stop when standard input ends.")
@click.pass_context
def command(ctx: click.Context, role: str, instance: int, end_with_stdin: bool) -> None:
    """Run one worker of ROLE until SIGTERM or Ctrl-C.

    It prints one line of JSON when it is ready, and its log on stderr. Further workers of a role share its
    partitions; each needs its own --instance on a machine.
    """
    ctx.exit(run_worker(begin_process(ctx, end_with_stdin=end_with_stdin), role, instance))


def run_worker(settings: Settings, role: str, instance: int) -> int:
    """Check the topics, then run the role; the exit code of the process.

    Raises:
        TopicMismatchError: A topic has another shape than the one needed.
        KafkaUnreachableError: The broker does not answer.
        ModelError: The role needs a model, and it is missing, damaged or does not fit.
    """
    # Imported here, so that the command's help does not wait for Kafka's client and Faust.
    import uvloop

    from stream_app.preflight import ensure_topics

    ensure_topics(settings, create=True)
    return uvloop.run(_run(settings, role, instance))


async def _run(settings: Settings, role: str, instance: int) -> int:
    from stream_app.faustkit import run_app
    from stream_app.monitoring.endpoint import metrics_port, serving
    from stream_app.wiring import build_app, store_folder

    store_folder(settings, role, instance).mkdir(parents=True, exist_ok=True)
    # The app's events and tasks belong to the loop that it is made in.
    built = build_app(settings, role, instance=instance, report=lambda text: log.info("%s", text))

    def tell_ready() -> None:
        echo_json({"ready": role, "instance": instance, "pid": os.getpid()})

    with ExitStack() as stack:
        if settings.metrics_port:
            port = metrics_port(settings.metrics_port, role, instance)
            address = serving(built.metrics.registry, settings.metrics_host, port, is_ready=built.is_ready)
            log.info("metrics at http://%s:%d/metrics", *stack.enter_context(address))
        return await run_app(built.app, on_ready=tell_ready, before=built.before)
