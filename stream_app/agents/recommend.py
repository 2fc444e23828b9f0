"""Role `recommend`: user vectors in; ranked lists with their provenance out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
import numpy as np
import numpy.typing as npt

from stream_app import tables
from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.records import Recommendation, SliceVectorRecord, encode
from stream_app.stages.profile import UserProfile, recent_items, take_slice_vector
from stream_app.stages.ranking import Query, features, gather, rank
from stream_app.stages.trend_view import TrendView
from stream_app.views import ItemView, TrendLog

log = logging.getLogger("sliceflow.recommend")

MAX_SEARCH = 1000
"""Most items asked of the index for one user: candidates plus what the user has seen."""

_VECTOR = msgspec.json.Decoder(SliceVectorRecord)


@dataclass(frozen=True)
class RecommendConfig:
    """What the lists are made with.

    Args:
        recommendations: Full name of the output topic.
        events: Full name of the events topic, part of each list's id.
        release: The release whose vectors are accepted.
        weights_F: The scorer's weights.
        list_items: Length of a list.
        candidates: Candidates of each source.
    """

    recommendations: str
    events: str
    release: str
    weights_F: npt.NDArray[np.float64]
    list_items: int
    candidates: int


class RecommendProcessor:
    """Handles one partition of `slice-vectors`."""

    def __init__(self, config: RecommendConfig, trends: TrendLog, items: ItemView, executor: Executor) -> None:
        self._config = config
        self._trends = trends
        self._items = items
        self._executor = executor

    def opening(self) -> list[OutRecord]:
        """Nothing is published before the first run."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing is held in memory, so nothing is read."""

    async def process(self, run: Run, values: Values) -> Effects:
        """Bring the users' profiles up to date, and make a list for each user with a new event."""
        records = [_VECTOR.decode(value or b"") for value in run.values]
        users = list(dict.fromkeys(record.user_id for record in records))
        kept = tables.load_values(values, users, tables.PROFILE)
        profiles = {user_id: profile for user_id, (_, profile) in kept.items()}
        asked = self._take(records, run.offsets, {user: position for user, (position, _) in kept.items()}, profiles)
        queries = await self._queries([record.user_id for record in asked], profiles)
        effects = Effects()
        for join_epoch, group in _by_epoch(asked):
            view = await self._trends.view_for(run.partition, join_epoch)
            for record in group:
                key = tables.key_of(record.user_id)
                made = self._list(record, queries[record.user_id], view)
                effects.outputs.append(OutRecord(self._config.recommendations, run.partition, key, encode(made)))
                await asyncio.sleep(0)
        for user_id in users:
            if user_id in profiles:
                key = tables.key_of(user_id)
                effects.changes[key] = (run.offsets[-1], tables.encode_value(profiles[user_id]))
        return effects

    def _take(
        self,
        records: Sequence[SliceVectorRecord],
        offsets: Sequence[int],
        positions: dict[str, int],
        profiles: dict[str, UserProfile],
    ) -> list[SliceVectorRecord]:
        """Take in what is news; the record each user's list answers."""
        asked: dict[str, SliceVectorRecord] = {}
        for record, offset in zip(records, offsets, strict=True):
            if record.release != self._config.release or offset <= positions.get(record.user_id, -1):
                continue
            profile = profiles.setdefault(record.user_id, UserProfile())
            take_slice_vector(profile, record)
            if record.fresh and record.offset > profile.answered:
                profile.answered = record.offset
                asked[record.user_id] = record
        return list(asked.values())

    async def _queries(self, users: Sequence[str], profiles: dict[str, UserProfile]) -> dict[str, Query]:
        """What each user's list is made for; the index is asked for all of them at once."""
        if not users:
            return {}
        vectors = [np.frombuffer(profiles[user_id].user_vector, dtype="<f4") for user_id in users]
        limits = [min(MAX_SEARCH, self._config.candidates + len(profiles[user_id].seen)) for user_id in users]
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._executor, self._search, np.stack(vectors), max(limits))
        # Cut to the user's own limit: what a user gets must not depend on who else is in the batch.
        return {
            user_id: Query(frozenset(profile.seen), recent_items(profile), vector_D, ids[:limit])
            for user_id, vector_D, ids, limit in zip(users, vectors, found, limits, strict=True)
            for profile in [profiles[user_id]]
        }

    def _search(self, vectors_QD: npt.NDArray[np.float32], num_items: int) -> list[list[str]]:
        if not len(self._items.index):
            return [[] for _ in vectors_QD]
        return self._items.index.search(vectors_QD, num_items).ids

    def _list(self, record: SliceVectorRecord, query: Query, view: TrendView) -> Recommendation:
        config = self._config
        found = gather(query, view, config.candidates, self._items.is_available)
        features_CF = features(query, found, view, self._items.index.vectors_of)
        return Recommendation(
            recommendation_id=recommendation_id(config, record, self._items.version, view.epoch),
            user_id=record.user_id,
            event_ts=record.last_ts,
            partition=record.partition,
            offset=record.offset,
            release=config.release,
            index_version=self._items.version,
            epoch=view.epoch,
            has_vector=True,
            items=rank(found, features_CF, config.weights_F, config.list_items),
        )


def recommendation_id(config: RecommendConfig, record: SliceVectorRecord, index_version: str, epoch: int) -> str:
    """The id of a list: a hash of everything it is a function of."""
    parts = (config.events, record.partition, record.offset, config.release, index_version, epoch)
    return blake2b("\x00".join(map(str, parts)).encode(), digest_size=12).hexdigest()


def _by_epoch(asked: Sequence[SliceVectorRecord]) -> list[tuple[int | None, list[SliceVectorRecord]]]:
    """Records by the epoch they need, oldest first; those that take the newest come last."""
    groups: dict[int | None, list[SliceVectorRecord]] = {}
    for record in asked:
        groups.setdefault(record.join_epoch, []).append(record)
    return sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or 0))
