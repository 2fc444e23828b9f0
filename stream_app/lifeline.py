"""Ends this process when the one that started it is gone, in whatever way it went.

The parent keeps the writing end of a pipe open that is this process's standard input; nobody else has it.
When the parent is gone, even by SIGKILL, the pipe ends. That needs nothing but POSIX, and holds from whichever
thread of the parent the process was started (Linux's parent-death signal is tied to the thread).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

ORPHAN_BOUND_S: Final = 5.0
"""Time an orphan gets for a clean stop. Its broker is likely going too, so that it may never come to one;
what it had not committed is read again by the next process."""

READ_BYTES: Final = 4096


def end_with_parent() -> None:
    """Watch standard input from now on; at its end this process gets SIGTERM, and is gone soon after."""
    descriptor = sys.stdin.fileno()
    thread = threading.Thread(target=_watch, args=(descriptor, _end), name="lifeline", daemon=True)
    thread.start()


def _watch(descriptor: int, end: Callable[[], None]) -> None:
    while True:
        try:
            if not os.read(descriptor, READ_BYTES):
                break
        except OSError:
            break
    end()


def _end() -> None:
    print("sliceflow: the process that started this one is gone", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_BOUND_S)
    os._exit(1)
