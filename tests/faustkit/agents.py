"""A per-message agent in a process of its own, on stock Faust or on ours: the same agent for both.

    python -m tests.faustkit.agents '{"kind": "ours", "servers": ..., "prefix": ..., ...}'

It does what the value of each event says, and prints ``began`` and ``done`` with its place. Ours can also count the
runs of another topic beside it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import faust
import msgspec

from stream_app.faustkit import AppConfig, BatchApp, run_app
from stream_app.faustkit.each import Event, Handler, Outcome, each
from stream_app.faustkit.effects import OutRecord
from tests.faustkit.counting import TABLE, Told

SESSION_S = 6.0
"""Kafka waits so long for a killed process before another gets its partitions."""

PLAIN = b'{"do": "nothing"}'
RAISE = b'{"do": "raise"}'
WAIT = b'{"do": "wait"}'
STOP = b'{"do": "stop"}'
NO_JSON = b'{"do": SECRET'


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is to do.

    Args:
        kind: ``stock`` or ``ours``.
        topic: What the agent reads; empty: there is no agent.
        release: An event that waits is done when this file is there.
        sends_to: Where the agent sends a record for each event.
        takes: The agent gathers so many events with `take`, and raises.
        counts: A topic whose events are counted by key (ours alone).
        changelog_prefix: Of the counts; empty: `prefix`.
        padding_bytes: Kept with each count.
        file_bytes: No file may grow beyond this; 0: any.
    """

    kind: str
    servers: str
    prefix: str
    folder: str
    worker: str = "w"
    topic: str = "inputs"
    concurrency: int = 1
    release: str = ""
    sends_to: str = ""
    takes: int = 0
    counts: str = ""
    changelog_prefix: str = ""
    padding_bytes: int = 0
    file_bytes: int = 0


def stock_app(task: Task) -> faust.App:
    """A stock app that reads from the beginning and commits often."""
    return faust.App(
        task.prefix + "counting",
        broker=f"aiokafka://{task.servers}",
        broker_commit_interval=0.2,
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=SESSION_S / 5,
        consumer_auto_offset_reset="earliest",
        datadir=task.folder,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
    )


def our_app(task: Task) -> BatchApp:
    """An app of ours."""
    config = AppConfig(
        app_id=task.prefix + "counting",
        connection={"bootstrap_servers": [task.servers]},
        store_folder=Path(task.folder),
        session_timeout_s=SESSION_S,
        changelog_prefix=task.changelog_prefix or task.prefix,
    )
    app = BatchApp(config)
    if task.counts:
        app.attach(task.prefix + task.counts, each(_counter(task)), table=TABLE)
    return app


def _counter(task: Task) -> Handler:
    async def count(event: Event, value: bytes | None) -> Outcome:
        number = int(value or b"0") + 1
        told = Told(
            partition=event.partition,
            offset=event.offset,
            key=(event.key or b"").decode(),
            value=(event.value or b"").decode(),
            timestamp_ms=event.timestamp_ms,
            headers={name: (value or b"").decode() for name, value in event.headers},
            count=number,
            run_length=1,
            worker=task.worker,
        )
        output = OutRecord(task.prefix + "outputs", event.partition, event.key, msgspec.json.encode(told))
        return Outcome([output], b"%d" % number + b" " * task.padding_bytes)

    return count


def add_agent(app: faust.App, task: Task) -> None:
    """Join the agent to its topic."""

    @app.agent(app.topic(task.prefix + task.topic, value_serializer="json"), name="agent", concurrency=task.concurrency)
    async def agent(stream: Any) -> None:
        if task.takes:
            async for values in stream.take(task.takes, within=60):
                raise ValueError(f"these {len(values)} events are poison")
        async for event in stream.events():
            await _handle(app, task, event)


async def _handle(app: faust.App, task: Task, event: Any) -> None:
    place = f"{event.message.partition}:{event.message.offset}"
    print(f"began {place}", flush=True)
    if task.sends_to:
        await app.topic(task.prefix + task.sends_to, value_serializer="json").send(value=event.value)
    wish = event.value["do"]
    if wish == "raise":
        raise ValueError("this event is poison")
    if wish == "stop":
        os.kill(os.getpid(), signal.SIGTERM)
        while not app.should_stop:
            await asyncio.sleep(0.02)
    while wish == "wait" and not Path(task.release).exists():
        await asyncio.sleep(0.02)
    print(f"done {place}", flush=True)


def main(task: Task) -> int:
    """Run the app until it is told to stop."""
    if task.file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task.file_bytes, resource.RLIM_INFINITY))
    app = stock_app(task) if task.kind == "stock" else our_app(task)
    if task.topic:
        add_agent(app, task)
    if isinstance(app, BatchApp):
        return asyncio.run(run_app(app, on_ready=lambda: print("ready", flush=True)))
    faust.Worker(app, loglevel="info").execute_from_commandline()
    return 0


if __name__ == "__main__":
    sys.exit(main(msgspec.json.decode(sys.argv[1], type=Task)))
