"""Role `recommend`: user vectors in; ranked lists with their provenance out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from stream_app import tables
from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.marks import without_marks
from stream_app.records import SliceVectorRecord, encode
from stream_app.scorer_view import ScorerLog
from stream_app.stages.listing import KnownItems, ListRule, by_epoch, make_list, queries_of, search_of, take_vectors
from stream_app.stages.profile import UserProfile
from stream_app.stages.ranking import Query
from stream_app.views import ItemView, TopicEnds, TrendLog

_VECTOR = msgspec.json.Decoder(SliceVectorRecord)


@dataclass(frozen=True)
class RecommendTopics:
    """Full name of the topic this role writes."""

    recommendations: str


@dataclass(frozen=True)
class TakenRun:
    """What a run does to profiles: those of its users as they are now, whom a list is due to, and what changed."""

    profiles: dict[str, UserProfile]
    asked: list[SliceVectorRecord]
    changes: dict[bytes, Stored]


def take_run(run: Run, values: Values, release: str) -> TakenRun:
    """Bring the profiles of the users of `run` up to date, with the vectors of `release`."""
    records = [(_VECTOR.decode(value), offset) for offset, value in without_marks(run)]
    kept = tables.load_values(values, list(dict.fromkeys(record.user_id for record, _ in records)), tables.PROFILE)
    profiles = {user_id: profile for user_id, (_, profile) in kept.items()}
    news = [
        (record, offset) for record, offset in records if record.user_id not in kept or offset > kept[record.user_id][0]
    ]
    asked = take_vectors([record for record, _ in news], profiles, release)
    # Who has no news is left alone: what is read again may end earlier than what a profile reflects already.
    changes = {
        tables.key_of(user_id): Stored(offset, tables.encode_value(profiles[user_id]))
        for user_id, offset in {record.user_id: offset for record, offset in news}.items()
        if user_id in profiles
    }
    return TakenRun(profiles, asked, changes)


class RecommendProcessor:
    """Handles one partition of `slice-vectors`.

    Args:
        rule: What lists are made with.
        topics: Names of topics.
        trends: The epochs of trends.
        scorers: The scorer of each scorer-epoch.
        items: The item index and the catalogue.
        catalogue: Tells where the topic of the catalogue ends.
        executor: One thread, for the index.
    """

    def __init__(
        self,
        rule: ListRule,
        topics: RecommendTopics,
        trends: TrendLog,
        scorers: ScorerLog,
        items: ItemView,
        catalogue: TopicEnds,
        executor: Executor,
    ) -> None:
        self._rule = rule
        self._topics = topics
        self._trends = trends
        self._scorers = scorers
        self._items = items
        self._catalogue = catalogue
        self._executor = executor

    def opening(self) -> list[OutRecord]:
        """Nothing is published before the first run."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing is held in memory, so nothing is read."""

    async def process(self, run: Run, values: Values) -> Effects:
        """Bring the users' profiles up to date, and make a list for each user with a new event."""
        taken = take_run(run, values, self._rule.release)
        return Effects(await self._lists(taken.asked, taken.profiles, run.partition), taken.changes)

    async def _lists(
        self, asked: Sequence[SliceVectorRecord], profiles: dict[str, UserProfile], partition: int
    ) -> list[OutRecord]:
        if any(record.join_epoch is not None for record in asked):
            await self._items.catch_up(await self._catalogue.ends())
        queries = await self._queries([record.user_id for record in asked], profiles)
        lists: list[OutRecord] = []
        for join_epoch, group in by_epoch(asked):
            view = await self._trends.view_for(partition, join_epoch)
            in_force = await self._scorers.scorer_for(partition, self._rule.score.joined(join_epoch))
            for record in group:
                items = KnownItems(self._items.version, self._items.is_available, self._items.index.vectors_of)
                made = make_list(record, queries[record.user_id], view, items, self._rule, in_force)
                key = tables.key_of(record.user_id)
                lists.append(OutRecord(self._topics.recommendations, partition, key, encode(made)))
                await asyncio.sleep(0)
        return lists

    async def _queries(self, users: Sequence[str], profiles: dict[str, UserProfile]) -> dict[str, Query]:
        """What each user's list is made for; the index is asked for all of them at once."""
        if not users:
            return {}
        search = search_of(users, profiles, self._rule.candidates)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._executor, self._search, search.vectors_UD, max(search.limits))
        return queries_of(search, profiles, found)

    def _search(self, vectors_UD: npt.NDArray[np.float32], num_items: int) -> list[list[str]]:
        if not len(self._items.index):
            return [[] for _ in vectors_UD]
        return self._items.index.search(vectors_UD, num_items).ids
