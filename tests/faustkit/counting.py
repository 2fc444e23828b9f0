"""A small app for a process of its own: it counts events by key, and says for each event what it came to.

    python -m tests.faustkit.counting '{"servers": ..., "group": ..., ...}'

It prints ``ready`` once its stores are recovered. It can be told to be slow, or to die at a certain step.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from stream_app.faustkit import (
    AppConfig,
    BatchApp,
    Effects,
    OutRecord,
    Run,
    Stored,
    Values,
    run_app,
    transport,
)
from stream_app.faustkit.app import COMMIT_INTERVAL_S
from stream_app.faustkit.changelog import OWNER_HEADER
from stream_app.faustkit.producing import Writer
from stream_app.faustkit.store import PartitionStore
from tests.support import POLL_S

TABLE = "counts"
POISON = b"poison"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is to do.

    `die_at` is one of ``before_outputs``, ``before_changelog``, ``before_store``, ``before_commit``; the process
    kills itself there in its `die_in_run`-th run. With a `gate` it says ``at the gate`` at each assignment, and opens
    its stores only once there is a file of that name. Runs of the `held_partition` wait until there is a file
    `held_until`.
    """

    servers: str
    prefix: str
    folder: str
    worker: str = "w"
    instance_id: str = ""
    outputs: str = "outputs"
    max_run_records: int = 40
    delay_s: float = 0.0
    die_at: str = ""
    die_in_run: int = 1
    request_timeout_ms: int = 40_000
    num_standbys: int = 0
    gate: str = ""
    commit_interval_s: float = COMMIT_INTERVAL_S
    held_partition: int = -1
    held_until: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is published for each event: all the processor saw of it, and the count it led to."""

    partition: int
    offset: int
    key: str
    value: str
    timestamp_ms: int
    headers: dict[str, str]
    count: int
    run_length: int
    worker: str


class CountingProcessor:
    """Counts the events of each key."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def opening(self) -> list[OutRecord]:
        """Nothing."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing is held in memory."""
        for _ in items:
            pass

    async def process(self, run: Run, values: Values) -> Effects:
        """Count each event that the count of its key does not reflect yet."""
        await asyncio.sleep(self._task.delay_s)
        while run.partition == self._task.held_partition and not Path(self._task.held_until).exists():
            await asyncio.sleep(POLL_S)
        keys = [key or b"" for key in run.keys]
        kept = dict(zip(keys, values.get_many(keys), strict=True))
        counts = {key: (stored.position, int(stored.payload)) if stored else (-1, 0) for key, stored in kept.items()}
        effects = Effects()
        for place, offset in enumerate(run.offsets):
            if run.values[place] == POISON:
                raise ValueError("this event is poison")
            position, number = counts[keys[place]]
            if offset > position:
                counts[keys[place]] = (offset, number + 1)
                effects.outputs.append(self._output(run, place, number + 1))
                effects.changes[keys[place]] = Stored(offset, b"%d" % (number + 1))
        return effects

    def _output(self, run: Run, place: int, number: int) -> OutRecord:
        told = Told(
            partition=run.partition,
            offset=run.offsets[place],
            key=(run.keys[place] or b"").decode(),
            value=(run.values[place] or b"").decode(),
            timestamp_ms=run.timestamps_ms[place],
            headers={name: (value or b"").decode() for name, value in run.headers[place]},
            count=number,
            run_length=len(run),
            worker=self._task.worker,
        )
        topic = self._task.prefix + self._task.outputs
        return OutRecord(topic, run.partition, run.keys[place], msgspec.json.encode(told))


def build(task: Task) -> BatchApp:
    """The app."""
    connection: dict[str, Any] = {
        "bootstrap_servers": [task.servers],
        "request_timeout_ms": task.request_timeout_ms,
    }
    config = AppConfig(
        app_id=task.prefix + "counting",
        connection=connection,
        store_folder=Path(task.folder),
        instance_id=task.instance_id,
        session_timeout_s=6.0,
        max_run_records=task.max_run_records,
        commit_interval_s=task.commit_interval_s,
        changelog_prefix=task.prefix,
        num_standbys=task.num_standbys,
    )
    app = BatchApp(config)
    if task.gate:
        app.before_open(lambda: _wait_at(Path(task.gate)))
    app.attach(task.prefix + "inputs", lambda _: CountingProcessor(task), table=TABLE)
    return app


async def _wait_at(gate: Path) -> None:
    print("at the gate", flush=True)
    while not gate.exists():
        await asyncio.sleep(POLL_S)


def _dying(function: Callable[..., Any], is_due: Callable[..., bool]) -> Callable[..., Any]:
    """`function`, but the process kills itself instead of calling it when it is due."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if is_due(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return wrapped


def _prepare_death(task: Task, app: BatchApp) -> None:
    changelog = f"{task.prefix}{TABLE}-changelog"
    num_runs = 0

    def is_last_run(*_: Any) -> bool:
        nonlocal num_runs
        num_runs += 1
        return num_runs == task.die_in_run

    if task.die_at == "before_store":
        PartitionStore.write = _dying(PartitionStore.write, is_last_run)  # type: ignore[method-assign]
    elif task.die_at == "before_commit":
        done = transport.BatchConsumer.done_up_to
        transport.BatchConsumer.done_up_to = _dying(done, is_last_run)  # type: ignore[method-assign]
    elif task.die_at:
        wants_changelog = task.die_at == "before_changelog"

        def is_due(records: list[OutRecord]) -> bool:
            if OWNER_HEADER in dict(records[0].headers):
                return False
            return (records[0].topic == changelog) == wants_changelog and is_last_run()

        publish = app.outbox.publish

        async def dying_publish(records: list[OutRecord], writer: Writer) -> Any:
            if is_due(records):
                # Time for several commits: one that runs ahead of the effects has to show.
                await asyncio.sleep(4 * COMMIT_INTERVAL_S)
                os.kill(os.getpid(), signal.SIGKILL)
            return await publish(records, writer)

        app.outbox.publish = dying_publish  # type: ignore[assignment, method-assign]


async def main(task: Task) -> int:
    """Run the app until it is told to stop."""
    app = build(task)
    _prepare_death(task, app)
    return await run_app(app, on_ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout)
    logging.getLogger("sliceflow").setLevel(logging.INFO)
    sys.exit(asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Task))))
