"""What a recommender knows of trends: the epochs of `item-trends`, and a view of them for each partition."""

from __future__ import annotations

import math
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from stream_app.epoch_log import EpochLog
from stream_app.records import TrendEpochRecord, TrendRecord
from stream_app.stages.popularity import TrendRule
from stream_app.stages.trend_view import TrendView

MAX_KEPT_BYTES = 256 * 1024 * 1024
"""Trend records kept until every partition's lists have passed their epoch. Beyond: in a replay nothing more is read
than is waited for; otherwise epochs are merged, and only the newest can be joined exactly."""

MAX_DECODED_EPOCHS = 64
"""Epochs kept decoded: about ten times as large as their bytes."""

STRICT_S = 60.0
"""A replay is going on while the last replayed event is less than this ago."""

_TREND = msgspec.json.Decoder(TrendRecord)
_TREND_EPOCH = msgspec.json.Decoder(TrendEpochRecord)


class TrendLog(EpochLog):
    """The epochs of trends that some partition may still need, and a view for each partition.

    Each partition of `slice-vectors` is at its own epoch, so each has its own view; what they read is shared.

    Args:
        connection: Keyword arguments for aiokafka clients.
        topic: Full name of `item-trends`.
        num_partitions: How many partitions it has.
        rule: How statistics decay.
        on_progress: Called when the trends that somebody waits for have come nearer.
    """

    def __init__(
        self,
        connection: dict[str, Any],
        topic: str,
        num_partitions: int,
        rule: TrendRule,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(connection, topic, num_partitions, max_kept_bytes=MAX_KEPT_BYTES, on_progress=on_progress)
        self._rule = rule
        self._reset()

    def _reset(self) -> None:
        super()._reset()
        self._epochs: dict[int, dict[bytes, bytes]] = {}
        self._sorted_epochs: list[int] = []
        self._decoded: dict[int, list[TrendRecord]] = {}
        self._views: dict[int, TrendView] = {}
        self._kept_bytes = 0
        self._dropped_up_to = -1
        self._strict_s: float | None = None

    def add_view(self, partition: int) -> None:
        """Keep every epoch for this partition until its view has passed it."""
        self._views.setdefault(partition, TrendView(self._rule))

    async def view_for(self, partition: int, join_epoch: int | None) -> TrendView:
        """The trends for events of `partition`: exactly as of `join_epoch`, or the newest complete ones for None.

        Waits for the epoch, at most `EPOCH_WAIT_S` after the last progress. A view never goes back: an older
        `join_epoch` than it has gets what it has.
        """
        view = self._views.setdefault(partition, TrendView(self._rule))
        if join_epoch is not None:
            self._strict_s = time.monotonic()
        elif self._strict_s is None:
            self._strict_s = -math.inf
        wanted = await self._wait_for(join_epoch)
        if wanted > view.epoch:
            view.advance(wanted, self._records(view.epoch, wanted))
            self._drop_read()
        return view

    def _records(self, after: int, up_to: int) -> Iterator[TrendRecord]:
        """The records of the epochs after `after` up to `up_to`, oldest first."""
        start, end = bisect_right(self._sorted_epochs, after), bisect_right(self._sorted_epochs, up_to)
        for epoch in self._sorted_epochs[start:end]:
            yield from self._decoded_epoch(epoch)

    def _decoded_epoch(self, epoch: int) -> list[TrendRecord]:
        """The records of an epoch; decoded once for all partitions, which mostly come to it one after the other."""
        decoded = self._decoded.get(epoch)
        if decoded is None:
            decoded = [_TREND.decode(value) for value in self._epochs[epoch].values()]
            if len(self._decoded) < MAX_DECODED_EPOCHS:
                self._decoded[epoch] = decoded
        return decoded

    def _take_record(self, partition: int, key: bytes | None, value: bytes) -> None:
        epoch = _TREND_EPOCH.decode(value).epoch
        if key:
            self._keep(epoch, key, value)
        else:
            self._note_complete(partition, epoch)

    def _keep(self, epoch: int, key: bytes, value: bytes) -> None:
        if epoch <= self._dropped_up_to:
            return
        kept = self._epochs.get(epoch)
        if kept is None:
            kept = self._epochs[epoch] = {}
            insort(self._sorted_epochs, epoch)
        self._kept_bytes += len(value) - len(kept.get(key, b""))
        kept[key] = value
        self._decoded.pop(epoch, None)

    def _num_kept_bytes(self) -> int:
        return self._kept_bytes

    def _is_exact(self) -> bool:
        return self._strict_s is None or time.monotonic() - self._strict_s < STRICT_S

    def _make_room(self) -> None:
        """Keep of all complete epochs only the newest record of each item, as if it were of the newest epoch."""
        complete = self.complete_epoch
        end = bisect_right(self._sorted_epochs, complete)
        if end < 2:
            return
        self._decoded.clear()
        merged: dict[bytes, bytes] = {}
        for epoch in self._sorted_epochs[:end]:
            merged.update(self._epochs.pop(epoch))
        self._sorted_epochs[:end] = [complete]
        self._epochs[complete] = merged
        self._kept_bytes = sum(len(value) for kept in self._epochs.values() for value in kept.values())

    def _drop_read(self) -> None:
        oldest = min(view.epoch for view in self._views.values())
        end = bisect_right(self._sorted_epochs, oldest)
        for epoch in self._sorted_epochs[:end]:
            self._kept_bytes -= sum(map(len, self._epochs.pop(epoch).values()))
            self._decoded.pop(epoch, None)
        del self._sorted_epochs[:end]
        self._dropped_up_to = max(self._dropped_up_to, oldest)
