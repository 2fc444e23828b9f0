"""Progress of a replay for people: a line that changes in a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console

LINE_EVERY_S: Final = 5.0
"""How often a line is printed where there is no terminal."""


class Progress(Protocol):
    """Takes the state of the work as a short text."""

    def __call__(self, text: str) -> None:
        """Show `text` as the newest state."""
        ...


class LinePrinter:
    """Prints the newest state at most every `LINE_EVERY_S` seconds.

    Args:
        out: Prints a line.
        clock_s: A monotonic clock in seconds.
    """

    def __init__(self, out: Callable[[str], None], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock_s = clock_s
        self._next_s = clock_s() + LINE_EVERY_S

    def __call__(self, text: str) -> None:
        """Print `text`, if the last line is long enough ago."""
        now_s = self._clock_s()
        if now_s >= self._next_s:
            self._next_s = now_s + LINE_EVERY_S
            self._out(text)


@contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """A way to show progress on `console`, which is best on stderr."""
    if not console.is_terminal:
        yield LinePrinter(lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
        return
    with console.status("starting") as status:
        yield lambda text: status.update(text)
