"""Runs a worker of a real role that carries trouble with it: it dies at a certain step, may write no more, or is slow.

    python -m tests.faults.launcher '{"settings": {...}, "role": "sequence", "die_at": "before_store"}'

It is `sliceflow worker` but for the one thing it is told to do wrong.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from stream_app.cli import worker
from stream_app.errors import SliceflowError
from stream_app.faustkit import OutRecord, transport
from stream_app.faustkit.app import COMMIT_INTERVAL_S
from stream_app.faustkit.changelog import OWNER_HEADER
from stream_app.faustkit.outbox import Outbox
from stream_app.faustkit.producing import Writer
from stream_app.faustkit.store import PartitionStore
from stream_app.lifeline import end_with_parent
from stream_app.logs import set_up_logging
from stream_app.settings import Settings
from stream_app.topics import DRIFT, ITEM_VECTORS, STATUS

MODULE: Final = "tests.faults.launcher"

Step = Literal["", "before_outputs", "within_outputs", "before_changelog", "before_store", "before_commit"]

STEPS: Final[tuple[Step, ...]] = (
    "before_outputs",
    "within_outputs",
    "before_changelog",
    "before_store",
    "before_commit",
)
"""The places at which a worker can be told to die, in the order in which a run comes by them."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong.

    Args:
        die_at: Kill the process at this step.
        die_in_run: In which run.
        file_bytes: No file may grow beyond this, as on a full disk; 0: no limit.
        encode_delay_s: How much longer each batch takes in the encoder.
    """

    die_at: Step = ""
    die_in_run: int = 1
    file_bytes: int = 0
    encode_delay_s: float = 0.0


NO_TROUBLE: Final = Trouble()


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Which worker to run, and what goes wrong with it."""

    settings: Settings
    role: str
    instance: int = 0
    trouble: Trouble = NO_TROUBLE


def command(task: Task) -> list[str]:
    """The command line that runs `task` until its standard input ends."""
    return [sys.executable, "-m", MODULE, msgspec.json.encode(task).decode("utf-8")]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Countdown:
    """True once, at the `num`-th call."""

    def __init__(self, num: int) -> None:
        self._num = num

    def __call__(self) -> bool:
        self._num -= 1
        return self._num == 0


def _dying(function: Callable[..., Any], is_due: Callable[[], bool]) -> Callable[..., Any]:
    """`function`, but the process kills itself instead of calling it when it is due."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if is_due():
            _die()
        return function(*args, **kwargs)

    return wrapped


def _step_of(records: list[OutRecord]) -> str:
    """Which step of a run publishes these records; empty for those that belong to no run."""
    topic = records[0].topic
    if OWNER_HEADER in dict(records[0].headers) or topic.endswith(ITEM_VECTORS):
        return ""
    return "changelog" if topic.endswith(("-changelog", STATUS, DRIFT)) else "outputs"


def _die_publishing(step: Step, is_due: Callable[[], bool]) -> None:
    publish = Outbox.publish
    wanted = "changelog" if step == "before_changelog" else "outputs"

    async def dying(self: Outbox, records: list[OutRecord], writer: Writer | None = None) -> Any:
        if records and _step_of(records) == wanted and is_due():
            if step == "within_outputs":
                await publish(self, records[: len(records) // 2], writer)
            # Time for several commits: one that runs ahead of the effects has to show.
            await asyncio.sleep(4 * COMMIT_INTERVAL_S)
            _die()
        return await publish(self, records, writer)

    Outbox.publish = dying  # type: ignore[assignment, method-assign]


def _prepare_death(trouble: Trouble) -> None:
    is_due = _Countdown(trouble.die_in_run)
    if trouble.die_at == "before_store":
        PartitionStore.write = _dying(PartitionStore.write, is_due)  # type: ignore[method-assign]
    elif trouble.die_at == "before_commit":
        done = transport.BatchConsumer.done_up_to
        transport.BatchConsumer.done_up_to = _dying(done, is_due)  # type: ignore[method-assign]
    elif trouble.die_at:
        _die_publishing(trouble.die_at, is_due)


def _slow_down(delay_s: float) -> None:
    from stream_app.batching import SliceBatcher

    encode = SliceBatcher._encode

    def slow(self: SliceBatcher, requests: Any) -> Any:
        time.sleep(delay_s)
        return encode(self, requests)

    SliceBatcher._encode = slow  # type: ignore[method-assign]


def main(text: str) -> int:
    """Run the worker; its exit code."""
    task = msgspec.json.decode(text, type=Task)
    end_with_parent()
    set_up_logging()
    trouble = task.trouble
    _prepare_death(trouble)
    if trouble.encode_delay_s:
        _slow_down(trouble.encode_delay_s)
    if trouble.file_bytes:
        # Python ignores the signal that comes with it, so that the write fails as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.file_bytes, resource.RLIM_INFINITY))
    try:
        return worker.run_worker(task.settings, task.role, task.instance)
    except SliceflowError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
