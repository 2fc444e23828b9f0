"""What belongs to epochs, followed on a topic and kept until every partition's lists have passed it."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any

from stream_app.faustkit import Follower, Run

log = logging.getLogger("sliceflow.views")

EPOCH_WAIT_S = 60.0
"""Longest wait of a replayed event for its epoch. A role that died is back within seconds; a replay that was broken
off never completes its epoch, and its last lists must come all the same (they say which epoch they used)."""


class EpochLog(ABC):
    """The reading of such a topic, and the waiting for its epochs; what is kept of each epoch is up to subclasses.

    While more than `max_kept_bytes` are kept, nothing further is read than is waited for if lists join exact epochs;
    otherwise older epochs are given up.

    Args:
        connection: Keyword arguments for aiokafka clients.
        topic: Full name of the topic.
        num_partitions: How many partitions it has.
        max_kept_bytes: See above.
        on_progress: Called when an epoch that somebody waits for has come nearer.
    """

    def __init__(
        self,
        connection: dict[str, Any],
        topic: str,
        num_partitions: int,
        *,
        max_kept_bytes: int,
        on_progress: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._num_partitions = num_partitions
        self._max_kept_bytes = max_kept_bytes
        self._on_progress = on_progress
        self._follower: Follower | None = None

    def _reset(self) -> None:
        """Forget all that was read; subclasses call it when they are made, and add what they keep."""
        self._complete: dict[int, int] = {}
        self._waited_epoch = -1
        self._moved = asyncio.Event()
        self._enough = asyncio.Event()

    @abstractmethod
    def add_view(self, partition: int) -> None:
        """Keep every epoch for the lists of this partition until they have passed it."""

    @abstractmethod
    def _take_record(self, partition: int, key: bytes | None, value: bytes) -> None:
        """Keep a record of the topic, or note with `_note_complete` what it says."""

    @abstractmethod
    def _num_kept_bytes(self) -> int:
        """How much is kept."""

    @abstractmethod
    def _is_exact(self) -> bool:
        """Whether lists join exact epochs now; also while nothing has been asked for yet."""

    @abstractmethod
    def _make_room(self) -> None:
        """Give up what only lists of older epochs than the newest complete one need."""

    async def restart(self) -> None:
        """Read the topic from its beginning; returns when caught up, or as much as may be is kept."""
        await self.stop()
        self._reset()
        self._follower = Follower(self._connection, self._topic, self._take, hold=self._held)
        await self._follower.start()
        waits = [asyncio.ensure_future(self._follower.wait_caught_up()), asyncio.ensure_future(self._enough.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def stop(self) -> None:
        """Stop following."""
        if self._follower is not None:
            await self._follower.stop()

    @property
    def complete_epoch(self) -> int:
        """The newest epoch that all partitions of the topic are complete up to; -1 where there is none."""
        if len(self._complete) < self._num_partitions:
            return -1
        return min(self._complete.values())

    async def _wait_for(self, epoch: int | None) -> int:
        """Wait until `epoch` is complete, at most `EPOCH_WAIT_S` after the last progress; for None until caught up.

        Returns:
            The epoch to use: `epoch`, or the newest complete one where that is older or None is asked for.
        """
        if epoch is not None:
            await self._wait_complete(epoch)
            return min(epoch, self.complete_epoch)
        if self._follower is not None:
            await self._follower.wait_caught_up()
        return self.complete_epoch

    async def _wait_complete(self, epoch: int) -> None:
        self._waited_epoch = max(self._waited_epoch, epoch)
        while self.complete_epoch < epoch:
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), EPOCH_WAIT_S)
                self._on_progress()
            except TimeoutError:
                log.warning("epoch %d of %s did not come; lists use epoch %d", epoch, self._topic, self.complete_epoch)
                return

    def _take(self, run: Run) -> None:
        for key, value in zip(run.keys, run.values, strict=True):
            if value is not None:
                self._take_record(run.partition, key, value)
        self._moved.set()
        if self._num_kept_bytes() > self._max_kept_bytes:
            self._enough.set()
            if not self._is_exact():
                self._make_room()

    def _note_complete(self, partition: int, epoch: int) -> None:
        """Note that a partition of the topic holds everything up to `epoch`."""
        self._complete[partition] = max(epoch, self._complete.get(partition, -1))

    def _held(self) -> Collection[int]:
        """Partitions not to be read for now: those that are further than any waiting list, while too much is kept."""
        if self._num_kept_bytes() <= self._max_kept_bytes or not self._is_exact():
            return ()
        return {number for number, epoch in self._complete.items() if epoch >= self._waited_epoch}
