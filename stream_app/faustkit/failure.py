"""Ending the process when going on would lose data."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

log = logging.getLogger("sliceflow.faustkit")

FAILED = 1


def end_process(reason: str, error: BaseException | None = None) -> NoReturn:
    """End this process at once with exit code 1 and `reason` as the last line of its log.

    Nothing is flushed or committed on the way out: whatever was not acknowledged is read again by the next
    process. Faust's own handling would acknowledge the failed input and go on.
    """
    log.critical("%s", reason, exc_info=error)
    print(f"sliceflow: {reason}", file=sys.stderr, flush=True)
    logging.shutdown()
    os._exit(FAILED)


@contextmanager
def ending_process(reason: str) -> Iterator[None]:
    """End the process with `reason` where the block fails; being cancelled is no failure."""
    try:
        yield
    except Exception as error:
        end_process(f"{reason}: {error}", error)
