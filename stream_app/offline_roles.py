"""The stages of all roles in one process, joined in memory as topics join them; no broker, no tables, no waiting.

Everything a role decides is decided by the same stage here; this module only carries records from one to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from encoders.contract import SliceEncoder
from index import ItemIndex, build_index
from stream_app.item_search import nearest_items, tell_availability
from stream_app.records import ActivityRecord, SliceRecord, SliceVectorRecord, TrendRecord
from stream_app.settings import Settings
from stream_app.settings_rules import sequence_stage, trend_rule
from stream_app.slice_encoding import encode_slices
from stream_app.stages.intake import Content, Headers, take_record
from stream_app.stages.listing import queries_of, search_of
from stream_app.stages.merging import UserMemory
from stream_app.stages.popularity import ItemStatistics, TrendRule
from stream_app.stages.profile import UserProfile
from stream_app.stages.ranking import Query
from stream_app.stages.sequence import KeptHistory, SequenceEffects
from stream_app.stages.trend import TrendStage
from stream_app.stages.trend_view import TrendView

Entry = tuple[int, Content, Headers]
"""One record of a partition of `events`: its offset, what it says, and its headers."""


TrendsAt = Callable[[int], TrendView]
"""Gives the trends as of an epoch, or of the newest complete one before it. They never go back."""


class TrendReader:
    """The trends of all items, read epoch by epoch."""

    def __init__(self, rule: TrendRule) -> None:
        self.rule = rule
        self._waiting: deque[TrendRecord] = deque()
        self._view = TrendView(rule)

    def add(self, records: Iterable[TrendRecord]) -> None:
        """Take records, oldest first."""
        self._waiting.extend(records)

    def at(self, epoch: int) -> TrendView:
        """The trends as of `epoch`."""
        if epoch > self._view.epoch:
            self._view.advance(epoch, self._up_to(epoch))
        return self._view

    def _up_to(self, epoch: int) -> Iterator[TrendRecord]:
        """The records of waiting epochs up to `epoch`; they wait no longer."""
        while self._waiting and self._waiting[0].epoch <= epoch:
            yield self._waiting.popleft()


class OfflineRoles:
    """What the roles keep, in memory, and what each does with its input.

    One trend stage stands for all partitions of `item-activity`: an item lies in one of them, and no item's
    statistics depend on another's.

    Args:
        settings: How the stream is cut and ranked.
        encoder: The trained encoder.
        num_partitions: Partitions of `events`.
    """

    def __init__(self, settings: Settings, encoder: SliceEncoder, num_partitions: int) -> None:
        self._encoder = encoder
        self._weights = settings.event_types
        self.sequences = [sequence_stage(settings, partition) for partition in range(num_partitions)]
        for stage in self.sequences:
            stage.restore([], None)
        self._histories: dict[str, KeptHistory] = {}
        self._memories: dict[str, UserMemory] = {}
        self.profiles: dict[str, UserProfile] = {}
        self._statistics: dict[str, tuple[int, ItemStatistics]] = {}
        self._trend = TrendStage(num_partitions, trend_rule(settings))
        self._num_activity = 0
        self._readers = [TrendReader(trend_rule(settings))]
        self._candidates = settings.candidates
        self.index: ItemIndex = build_index(settings.index_kind, encoder.dim, encoder.release)
        self.index.upsert(*encoder.item_vectors())

    def take_items(self, ids: Sequence[str], vectors_ND: npt.NDArray[np.float32]) -> None:
        """Role `encode`: vectors of items, as the catalogue has them."""
        self.index.upsert(ids, vectors_ND)

    def take_availability(self, available: Mapping[str, bool]) -> None:
        """Which items of the catalogue may be offered, by id; what is not told of may."""
        tell_availability(self.index, available)

    def cut(self, partition: int, entries: Sequence[Entry]) -> SequenceEffects:
        """Role `sequence`: a run (at least one record) of one partition of `events`; all roles: who it erases.

        It holds no other record of them, see `erasing.num_together`.
        """
        stage = self.sequences[partition]
        stage.begin_run([], self._load_histories)
        for offset, content, headers in entries:
            take_record(stage, content, offset, headers, is_counted=False)
        effects = stage.end_run(entries[-1][0], 1)
        self._histories.update(effects.changed)
        for user_id in effects.removed:
            self._histories.pop(user_id, None)
        for record in effects.erased:
            self._memories.pop(record.user_id, None)
            self.profiles.pop(record.user_id, None)
        return effects

    def count(self, activity: Iterable[ActivityRecord]) -> None:
        """Role `trend`: count activity, and fold the epochs that it completes."""
        self._trend.begin_run(self._load_statistics)
        for record in activity:
            self._trend.take(record, self._num_activity)
            self._num_activity += 1
        # No partition is ever idle here: every one gets each tick.
        folded, _ = self._trend.end_run(self._num_activity, frozenset())
        self._num_activity += 1
        for reader in self._readers:
            reader.add(folded)
        self._statistics.update(self._trend.changed)

    def encode(self, slices: Sequence[SliceRecord]) -> list[SliceVectorRecord]:
        """Role `encode`: the vectors of slice revisions, merged in the order given."""
        return encode_slices(self._encoder, slices, self._memories, self._weights)

    def trends_at(self, epoch: int) -> TrendView:
        """The trends as of `epoch`, or of the newest complete one before it. They never go back."""
        return self._readers[0].at(min(epoch, self._trend.totals.complete_epoch))

    def another_reader(self) -> TrendsAt:
        """The same for somebody who is at an epoch of its own."""
        reader = TrendReader(self._readers[0].rule)
        self._readers.append(reader)
        return lambda epoch: reader.at(min(epoch, self._trend.totals.complete_epoch))

    def queries(self, users: Sequence[str]) -> dict[str, Query]:
        """What the lists of these users are made for; the index is asked for all of them at once."""
        if not users:
            return {}
        search = search_of(users, self.profiles, self._candidates)
        return queries_of(search, self.profiles, nearest_items(self.index, search))

    def _load_histories(self, users: Sequence[str]) -> dict[str, KeptHistory]:
        return {user: self._histories[user] for user in users if user in self._histories}

    def _load_statistics(self, item_ids: Sequence[str]) -> dict[str, tuple[int, ItemStatistics]]:
        return {item: self._statistics[item] for item in item_ids if item in self._statistics}
