"""The part a role writes: what to do with the runs of one partition; and who may look on while it does."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Protocol

from stream_app.faustkit.effects import Effects, OutRecord
from stream_app.faustkit.keeping import Values
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import Stored


class Processor(Protocol):
    """Handles one partition, from its assignment to its revocation.

    Effects of a run are published and acknowledged first, then kept: so a value that is in the store proves
    that everything its inputs caused is on its topic. An input at or below a value's position is a replay
    and must change nothing; it need not be published again.
    """

    def opening(self) -> list[OutRecord]:
        """What to publish when the partition is assigned, after `restore` and before the first run."""

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Take up what the store holds, once, before the first run; to its end, or not at all."""

    async def process(self, run: Run, values: Values) -> Effects:
        """Say what `run` causes. May wait, but must not write anywhere itself."""


class RunObserver(Protocol):
    """Looks on while runs are processed, and may add to what is told of their effects: headers, `on_published`."""

    async def process(self, run: Run, processing: Awaitable[Effects]) -> Effects:
        """Await `processing`, which has not begun yet, and give its effects."""

    async def close(self) -> None:
        """The app has stopped, and no more runs come; must not take long."""
