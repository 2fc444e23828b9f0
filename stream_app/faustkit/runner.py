"""Running an app as a process: until it is asked to stop, or fails."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

from stream_app.errors import TopicMismatchError
from stream_app.faustkit.app import BatchApp
from stream_app.faustkit.failure import FAILED

log = logging.getLogger("sliceflow.faustkit")

GC_THRESHOLDS = (100_000, 50, 100)
"""When Python looks for cycles: at its usual thresholds (700, 10, 10) an eighth of a busy process's time goes there."""

STOP_S = 20.0
"""Longest time a clean stop may take: the run in work, its acknowledgements and the last commit."""


async def run_app(
    app: BatchApp, *, on_ready: Callable[[], None], before: Callable[[], Awaitable[None]] | None = None
) -> int:
    """Start `app`, say when it is ready, and run it until SIGTERM, SIGINT or failure.

    Args:
        app: The app.
        on_ready: Called once, when all stores are recovered and input is read.
        before: Awaited before the app starts (loading views it depends on).

    Returns:
        The exit code: 0 after a clean stop, 1 after a failure, or when topics are missing or do not fit each other.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await app.check_topics()
    except TopicMismatchError as error:
        log.critical("%s", error)
        print(f"sliceflow: {error}", file=sys.stderr, flush=True)
        return FAILED
    if before is not None and not await _unless_stopped(before(), stop):
        return 0
    await app.start()
    waits = [asyncio.create_task(stop.wait()), asyncio.create_task(app.wait_until_stopped())]
    ready = asyncio.create_task(_report_ready(app, on_ready))
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in (ready, *waits):
        task.cancel()
    failed = app.crash_reason is not None
    if failed:
        log.critical("The app failed: %r", app.crash_reason)
    try:
        await asyncio.wait_for(app.stop(), STOP_S)
    except TimeoutError:
        log.error("The app did not stop within %.0f s; what was not committed is read again.", STOP_S)
        return 1
    return int(failed)


async def _unless_stopped(work: Awaitable[None], stop: asyncio.Event) -> bool:
    """Await `work`, but no longer than until `stop`; whether it came to its end."""
    working = asyncio.ensure_future(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not working.done():
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return False
    working.result()
    return True


async def _report_ready(app: BatchApp, on_ready: Callable[[], None]) -> None:
    await app.ready.wait()
    # What was loaded until now stays; and records come and go in thousands without making any cycles.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    on_ready()
