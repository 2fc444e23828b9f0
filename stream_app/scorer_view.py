"""What a recommender knows of the scorer: the scorers of `scorer-weights`, joined by scorer-epoch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import msgspec

from stream_app.epoch_log import EpochLog
from stream_app.records import MARK_KEY, ScorerEpochRecord, ScorerRecord
from stream_app.stages.learning import Scorer
from stream_app.stages.listing import ListRule, ScorerInForce

MAX_KEPT_BYTES = 32 * 1024 * 1024
"""Scorers kept until every partition's lists have passed their epoch. Beyond: nothing more is read than is waited for
while lists join exact epochs; otherwise the oldest are forgotten."""

_SCORER_RECORD = msgspec.json.Decoder(ScorerRecord)
_SCORER = msgspec.json.Decoder(Scorer)
_EPOCH = msgspec.json.Decoder(ScorerEpochRecord)


class ScorerLog(EpochLog):
    """The scorers that some partition may still need; the model's own where there is none yet.

    Args:
        connection: Keyword arguments for aiokafka clients.
        topic: Full name of `scorer-weights`, which has one partition.
        rule: The release that is served, and the model's own scorer.
        on_progress: Called when a scorer that somebody waits for has come nearer.
    """

    def __init__(
        self, connection: dict[str, Any], topic: str, rule: ListRule, on_progress: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(connection, topic, 1, max_kept_bytes=MAX_KEPT_BYTES, on_progress=on_progress)
        self._rule = rule
        self._reset()

    def _reset(self) -> None:
        super()._reset()
        self._in_force = [ScorerInForce(self._rule.scorer)]
        self._sizes = [0]
        self._views: dict[int, int] = {}
        self._joins_exactly = True

    def add_view(self, partition: int) -> None:
        """Keep every scorer for this partition until its lists have passed it."""
        self._views.setdefault(partition, -1)

    async def scorer_for(self, partition: int, epoch: int | None) -> ScorerInForce:
        """The scorer for lists of `partition`: the newest up to the scorer-epoch `epoch`, or the newest for None.

        Waits until `epoch` is complete, at most `EPOCH_WAIT_S` after the last progress. A partition never goes back.
        """
        self._joins_exactly = epoch is not None
        wanted = await self._wait_for(epoch)
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

    def _take_record(self, partition: int, key: bytes | None, value: bytes) -> None:
        if key == MARK_KEY:
            self._note_complete(partition, _EPOCH.decode(value).epoch)
        else:
            self._keep(_SCORER_RECORD.decode(value))

    def _keep(self, record: ScorerRecord) -> None:
        # One that a worker published again after a crash is the same as before.
        if record.release == self._rule.release and record.epoch > self._in_force[-1].epoch:
            self._in_force.append(ScorerInForce(_SCORER.decode(record.scorer), record.epoch))
            self._sizes.append(len(bytes(record.scorer)))

    def _num_kept_bytes(self) -> int:
        return sum(self._sizes)

    def _is_exact(self) -> bool:
        return self._joins_exactly

    def _make_room(self) -> None:
        self._forget(self._place_of(self.complete_epoch))
