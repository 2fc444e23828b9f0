"""An app for a process of its own that stands still in every way the watchdog has to notice.

    python -m tests.faustkit.misbehaving '{"servers": ..., "prefix": ..., "folder": ...}'

It does what the values of its events say. It prints ``ready`` once it reads them.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from stream_app.faustkit import AppConfig, BatchApp, Effects, OutRecord, Run, Stored, Values, run_app
from stream_app.faustkit.watchdog import Limits
from tests.faustkit.counting import TABLE
from tests.faustkit.stage import Process

FOR_EVER_S = 1000


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Where the process runs, and what may stand still for how long."""

    servers: str
    prefix: str
    folder: str
    instance_id: str = ""
    session_timeout_s: float = 6.0
    loop_blocked_s: float = 60.0
    stalled_s: float = 120.0
    interpreter_blocked_s: float = 600.0


def consumer_of(app: BatchApp) -> Any:
    """The consumer, with all that is not meant for others."""
    return app.consumer


def sleep_for_ever() -> None:
    """What blocks a loop."""
    time.sleep(FOR_EVER_S)


async def block_the_app(app: BatchApp) -> None:
    """Work on the event loop that does not end."""
    sleep_for_ever()


async def block_the_consumer(app: BatchApp) -> None:
    """The same on the loop that sends the heartbeats."""
    consumer_of(app)._thread.thread_loop.call_soon_threadsafe(sleep_for_ever)


async def block_the_log(app: BatchApp) -> None:
    """The same, in the middle of writing to the log."""
    assert logging.lastResort is not None
    with logging.lastResort.lock:  # type: ignore[union-attr]
        sleep_for_ever()


async def hold_the_interpreter(app: BatchApp) -> None:
    """A call into C that keeps all other threads of Python from running."""
    ctypes.PyDLL(None).sleep(FOR_EVER_S)


async def never_end(app: BatchApp) -> None:
    """Wait for something that never comes."""
    await asyncio.Event().wait()


async def end_late(app: BatchApp) -> None:
    """Wait for three times as long as a partition may stand still, for something that comes in small steps."""
    for _ in range(12):
        await asyncio.sleep(app.config.limits.stalled_s / 4)
        app.watchdog.note_progress()


async def be_slow(app: BatchApp) -> None:
    """Take nearly as long as a partition may stand still."""
    await asyncio.sleep(app.config.limits.stalled_s * 0.75)


async def never_commit(app: BatchApp) -> None:
    """Kafka's answer to a commit never comes."""

    async def commit(offsets: object) -> bool:
        await never_end(app)
        return True

    consumer_of(app)._commit = commit


async def stop_fetching(app: BatchApp) -> None:
    """The task of aiokafka that fetches ends, and nobody notices."""
    thread = consumer_of(app)._thread
    fetcher = thread._consumer._fetcher
    for task in (fetcher._fetch_task, *fetcher._pending_tasks):
        thread.thread_loop.call_soon_threadsafe(task.cancel)


async def lose_the_place(app: BatchApp) -> None:
    """Read on at the beginning, as aiokafka does when the topic is created anew."""
    await stop_fetching(app)
    thread = consumer_of(app)._thread
    for tp, _ in thread.input_states():
        thread.thread_loop.call_soon_threadsafe(thread._consumer.seek, tp, 0)


async def go_back(app: BatchApp) -> None:
    """Go back to the committed offsets, once, as it happens when partitions are dealt out."""
    if app in _GONE_BACK:
        print("came again", flush=True)
    else:
        _GONE_BACK.append(app)
        await app.consumer.perform_seek()


_GONE_BACK: list[BatchApp] = []

MISDEEDS: dict[bytes | None, Callable[[BatchApp], Awaitable[None]]] = {
    misdeed.__name__.encode(): misdeed
    for misdeed in (
        block_the_app,
        block_the_consumer,
        block_the_log,
        hold_the_interpreter,
        never_end,
        end_late,
        be_slow,
        never_commit,
        stop_fetching,
        lose_the_place,
        go_back,
    )
}


class MisbehavingProcessor:
    """Does what each event says; other events it only takes note of."""

    def __init__(self, app: BatchApp) -> None:
        self._app = app

    def opening(self) -> list[OutRecord]:
        """Nothing."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing is held in memory."""
        for _ in items:
            pass

    async def process(self, run: Run, values: Values) -> Effects:
        """Misbehave."""
        for value in run.values:
            if value in MISDEEDS:
                await MISDEEDS[value](self._app)
        return Effects()


def build(task: Task) -> BatchApp:
    """The app."""
    config = AppConfig(
        app_id=task.prefix + "counting",
        connection={"bootstrap_servers": [task.servers]},
        store_folder=Path(task.folder),
        instance_id=task.instance_id,
        session_timeout_s=task.session_timeout_s,
        max_run_records=1,
        changelog_prefix=task.prefix,
        limits=Limits(task.loop_blocked_s, task.stalled_s, task.interpreter_blocked_s),
    )
    app = BatchApp(config)
    app.attach(task.prefix + "inputs", lambda _: MisbehavingProcessor(app), table=TABLE)
    return app


def misbehaving(servers: str, prefix: str, folder: Path, **fields: Any) -> Process:
    """Start the app in a process of its own, with a log and stores in `folder`; the task has these `fields`."""
    task = Task(servers=servers, prefix=prefix, folder=str(folder / "stores"), **fields)
    log = folder / f"misbehaving-{len(list(folder.glob('misbehaving-*')))}.log"
    return Process(["tests.faustkit.misbehaving", msgspec.json.encode(task).decode()], log)


async def main(task: Task) -> int:
    """Run the app until it is told to stop."""
    return await run_app(build(task), on_ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Task))))
