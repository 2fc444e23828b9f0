"""What a recommender knows of the scorer: the scorers of `scorer-weights`, joined by scorer-epoch."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from stream_app.faustkit import Follower, Run
from stream_app.records import MARK_KEY, ScorerEpochRecord, ScorerRecord
from stream_app.stages.learning import Scorer
from stream_app.stages.listing import ListRule, ScorerInForce
from stream_app.views import EPOCH_WAIT_S

log = logging.getLogger("sliceflow.views")

MAX_KEPT_BYTES = 32 * 1024 * 1024
"""Scorers kept until every partition's lists have passed their epoch. Beyond: nothing more is read than is waited for
while lists join exact epochs; otherwise the oldest are forgotten."""

_SCORER_RECORD = msgspec.json.Decoder(ScorerRecord)
_SCORER = msgspec.json.Decoder(Scorer)
_EPOCH = msgspec.json.Decoder(ScorerEpochRecord)


class ScorerLog:
    """The scorers that some partition may still need; the model's own where there is none yet.

    `on_progress` is called when a scorer that somebody waits for has come nearer.
    """

    def __init__(
        self, connection: dict[str, Any], topic: str, rule: ListRule, on_progress: Callable[[], None] = lambda: None
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._rule = rule
        self._on_progress = on_progress
        self._follower: Follower | None = None
        self._reset()

    def _reset(self) -> None:
        self._in_force = [ScorerInForce(self._rule.scorer)]
        self._sizes = [0]
        self._complete = -1
        self._views: dict[int, int] = {}
        self._is_exact = True
        self._waited_epoch = -1
        self._moved = asyncio.Event()
        self._enough = asyncio.Event()

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

    def add_view(self, partition: int) -> None:
        """Keep every scorer for this partition until its lists have passed it."""
        self._views.setdefault(partition, -1)

    async def scorer_for(self, partition: int, epoch: int | None) -> ScorerInForce:
        """The scorer for lists of `partition`: the newest up to the scorer-epoch `epoch`, or the newest for None.

        Waits until `epoch` is complete, at most `EPOCH_WAIT_S` after the last progress. A partition never goes back.
        """
        self._is_exact = epoch is not None
        if epoch is not None:
            await self._wait_for(epoch)
        elif self._follower is not None:
            await self._follower.wait_caught_up()
        wanted = self._complete if epoch is None else min(epoch, self._complete)
        self._views[partition] = max(wanted, self._views.get(partition, -1))
        found = self._in_force[self._place_of(wanted)]
        self._forget(self._place_of(min(self._views.values())))
        return found

    def _place_of(self, epoch: int) -> int:
        return max(0, bisect_right(self._in_force, epoch, key=lambda one: one.epoch) - 1)

    def _forget(self, num: int) -> None:
        """Forget the oldest scorers."""
        del self._in_force[:num]
        del self._sizes[:num]

    async def _wait_for(self, epoch: int) -> None:
        self._waited_epoch = max(self._waited_epoch, epoch)
        while self._complete < epoch:
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), EPOCH_WAIT_S)
                self._on_progress()
            except TimeoutError:
                log.warning("scorer-epoch %d did not come; lists use epoch %d", epoch, self._complete)
                return

    def _take(self, run: Run) -> None:
        for key, value in zip(run.keys, run.values, strict=True):
            if value is None:
                continue
            if key == MARK_KEY:
                self._complete = max(self._complete, _EPOCH.decode(value).epoch)
            else:
                self._keep(_SCORER_RECORD.decode(value))
        self._moved.set()
        if sum(self._sizes) > MAX_KEPT_BYTES:
            self._enough.set()
            if not self._is_exact:
                self._forget(self._place_of(self._complete))

    def _keep(self, record: ScorerRecord) -> None:
        # One that a worker published again after a crash is the same as before.
        if record.release == self._rule.release and record.epoch > self._in_force[-1].epoch:
            self._in_force.append(ScorerInForce(_SCORER.decode(record.scorer), record.epoch))
            self._sizes.append(len(bytes(record.scorer)))

    def _held(self) -> Collection[int]:
        """The topic's one partition while too much is kept and what lists wait for is there."""
        is_full = self._is_exact and sum(self._sizes) > MAX_KEPT_BYTES
        return (0,) if is_full and self._complete >= self._waited_epoch else ()
