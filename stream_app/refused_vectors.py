"""Dead letters of vectors that did not enter the index, written by one process of all those that refuse them.

Every recommender reads `item-vectors` whole and refuses the same records. The one that owns partition p of
`slice-vectors` writes the letters of partition p of `item-vectors`; both have equal counts. Refusals come before a
partition is owned, since the index is filled first: so letters wait. A process that is started again, or takes a
partition over, refuses anew what still lies on the topic, and writes the letters again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from index.checks import WRONG_RELEASE
from stream_app.dead_letters import dead_letter
from stream_app.faustkit import OutRecord, Run
from stream_app.stages.clean import Rejection

log = logging.getLogger("sliceflow.views")

MAX_WAITING: Final = 1000
"""Letters that wait at once, for each partition; older ones are lost then. One tells what is wrong, and is 2 KB."""

Publish = Callable[[list[OutRecord]], Awaitable[object]]


class RefusedVectors:
    """Letters that wait for their partition to be owned.

    Vectors of another release are what a change of models leaves behind: of each partition one is told, not each.

    Args:
        topic: Full name of the topic of dead letters.
        publish: Sends records.
    """

    def __init__(self, topic: str, publish: Publish) -> None:
        self._topic = topic
        self._publish = publish
        self._owned: Sequence[int] = ()
        self._waiting: dict[int, deque[OutRecord]] = {}
        self._told_releases: set[int] = set()
        self._sending: asyncio.Task[None] | None = None

    def take(self, run: Run, place: int, reason: str) -> None:
        """A record of `item-vectors` was refused."""
        if reason == WRONG_RELEASE:
            if run.partition in self._told_releases:
                return
            self._told_releases.add(run.partition)
        log.warning(
            "the vector at offset %d of %s[%d] is refused: %s", run.offsets[place], run.topic, run.partition, reason
        )
        detail = "the vector does not enter the index, and the item keeps the one it has"
        letter = dead_letter(self._topic, run, place, Rejection(reason, detail))
        self._waiting.setdefault(run.partition, deque(maxlen=MAX_WAITING)).append(letter)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), name="dead letters of vectors")

    async def own(self, partitions: Sequence[int]) -> None:
        """These partitions are this process's now, and no others; what waits for them is sent."""
        self._owned = partitions
        await self._send()

    async def _send(self) -> None:
        while letters := [letter for partition in self._owned for letter in self._waiting.pop(partition, ())]:
            await self._publish(letters)
