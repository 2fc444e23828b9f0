"""The stream in one process, without a broker: the same stages, encoder, index and ranking on a log's own clock.

Events are taken in order of time. Before each one it can be asked what list the stream would give its user at
that moment: with the history up to just before, and the trends of the last complete epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from encoders.contract import SliceEncoder
from index import ItemIndex, build_index
from stream_app.records import ActivityRecord, Event, SliceRecord, SliceVectorRecord
from stream_app.settings import Settings
from stream_app.settings_rules import slicing_rule, trend_rule, weights_milli
from stream_app.slice_encoding import encode_slices
from stream_app.stages.merging import UserMemory
from stream_app.stages.popularity import ItemStatistics
from stream_app.stages.profile import UserProfile, recent_items, take_slice_vector
from stream_app.stages.ranking import Candidates, Query, features, gather
from stream_app.stages.sequence import KeptHistory, SequenceStage
from stream_app.stages.slicing import UserHistory, apply_event
from stream_app.stages.trend import TrendStage
from stream_app.stages.trend_view import TrendView

CHUNK_EVENTS = 2048
"""Events encoded in one batch."""


@dataclass(frozen=True)
class Moment:
    """Just before an event: what the stream would offer its user, and whether the item is new to the user.

    `features_CF` belongs to the candidates of `found`, in their order; both are None where nothing was asked.
    """

    event: Event
    is_target: bool
    found: Candidates | None = None
    features_CF: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class _Step:
    """One event with what the sequence stage made of it."""

    event: Event
    offset: int
    activity: list[ActivityRecord]
    vectors: list[SliceVectorRecord]


class OfflineStream:
    """All stages of one partition, in memory."""

    def __init__(self, settings: Settings, encoder: SliceEncoder) -> None:
        self._settings = settings
        self._encoder = encoder
        self._sequence = SequenceStage(
            0,
            slicing_rule(settings),
            epoch_ms=settings.epoch_ms,
            allowed_lateness_ms=int(settings.allowed_lateness_s * 1000),
            weights_milli=weights_milli(settings),
        )
        self._sequence.restore([], None)
        self._histories: dict[str, KeptHistory] = {}
        self._memories: dict[str, UserMemory] = {}
        self.profiles: dict[str, UserProfile] = {}
        self._statistics: dict[str, tuple[int, ItemStatistics]] = {}
        self._trend = TrendStage(1, trend_rule(settings))
        self.trends = TrendView(trend_rule(settings))
        self.index: ItemIndex = build_index("faiss", encoder.dim, encoder.release)
        self.index.upsert(*encoder.item_vectors())
        self._offset = 0

    def walk(self, events: Sequence[Event], *, ask_from_ms: int) -> Iterator[Moment]:
        """Take events in order of time; moments at or after `ask_from_ms` on new items carry candidates."""
        for start in range(0, len(events), CHUNK_EVENTS):
            yield from self._walk_chunk(events[start : start + CHUNK_EVENTS], ask_from_ms)

    def _walk_chunk(self, events: Sequence[Event], ask_from_ms: int) -> Iterator[Moment]:
        steps = self._cut_and_encode(events)
        for step in steps:
            self._advance_trends(step)
            yield self._moment(step, ask_from_ms)
            self._take(step)

    def _cut_and_encode(self, events: Sequence[Event]) -> list[_Step]:
        cut = [self._cut(event) for event in events]
        flat = [record for _, _, records in cut for record in records]
        made = encode_slices(self._encoder, flat, self._memories, self._settings.event_types)
        vectors = {(vector.user_id, vector.seq, vector.revision): vector for vector in made}
        return [
            _Step(event, offset, activity, [vectors[key] for key in map(_slice_key, records) if key in vectors])
            for event, (activity, offset, records) in zip(events, cut, strict=True)
        ]

    def _cut(self, event: Event) -> tuple[list[ActivityRecord], int, list[SliceRecord]]:
        offset = self._offset
        self._offset += 1
        self._sequence.begin_run([event.user_id], self._load_histories)
        self._sequence.take_event(event, offset, strict=False)
        effects = self._sequence.end_run(offset, 0)
        self._histories.update(effects.changed)
        return (
            effects.activity,
            offset,
            [record for record in effects.slices if record.fresh or not record.closed],
        )

    def _load_histories(self, users: Sequence[str]) -> dict[str, KeptHistory]:
        return {user: self._histories[user] for user in users if user in self._histories}

    def _moment(self, step: _Step, ask_from_ms: int) -> Moment:
        event = step.event
        profile = self.profiles.get(event.user_id)
        is_target = bool(step.activity) and profile is not None and event.item_id not in profile.seen
        if not is_target or profile is None or event.ts < ask_from_ms:
            return Moment(event, is_target)
        found, features_CF = self.ask(profile)
        return Moment(event, True, found, features_CF)

    def ask(self, profile: UserProfile) -> tuple[Candidates, npt.NDArray[np.float64]]:
        """Candidates and features (C, F) for a user, with the trends as they are."""
        user_vector_D = np.frombuffer(profile.user_vector, dtype="<f4")
        num_wanted = self._settings.candidates + len(profile.seen)
        from_index = self.index.search(user_vector_D[None, :], min(1000, num_wanted)).ids[0]
        query = Query(frozenset(profile.seen), recent_items(profile), user_vector_D, from_index)
        found = gather(query, self.trends, self._settings.candidates, lambda _: True)
        return found, features(query, found, self.trends, self.index.vectors_of)

    def _take(self, step: _Step) -> None:
        self._trend.begin_run(self._load_statistics)
        for record in step.activity:
            self._trend.take(record, 2 * record.offset + (record.next_item is None))
        self._statistics.update(self._trend.changed)
        for vector in step.vectors:
            take_slice_vector(self.profiles.setdefault(vector.user_id, UserProfile()), vector)

    def _load_statistics(self, item_ids: Sequence[str]) -> dict[str, tuple[int, ItemStatistics]]:
        return {item: self._statistics[item] for item in item_ids if item in self._statistics}

    def _advance_trends(self, step: _Step) -> None:
        epoch = step.event.ts // self._settings.epoch_ms
        if epoch - 1 <= self._trend.totals.complete_epoch:
            return
        position = 2 * step.offset - 1
        self._trend.begin_run(self._load_statistics)
        self._trend.take(ActivityRecord(partition=0, offset=step.offset, epoch=epoch), position)
        folded, complete = self._trend.end_run(position, frozenset())
        self._statistics.update(self._trend.changed)
        if complete is not None:
            self.trends.advance(complete, folded)


def _slice_key(record: SliceRecord) -> tuple[str, int, int]:
    return record.user_id, record.seq, record.revision


def history_slices(events: Sequence[Event], settings: Settings) -> dict[str, UserHistory]:
    """Every user's whole history, cut by the very function the stream uses, nothing forgotten."""
    rule = replace(slicing_rule(settings), history_events=max(1, len(events)))
    histories: dict[str, UserHistory] = {}
    for offset, event in enumerate(events):
        apply_event(histories.setdefault(event.user_id, UserHistory()), event, offset, rule)
    return histories
