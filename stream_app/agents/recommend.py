"""Role `recommend`: user vectors in; ranked lists with their provenance out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stream_app import tables
from stream_app.erasing import Erasures, erasures_in
from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.held_items import HeldItems
from stream_app.profile_runs import profile_run
from stream_app.records import SliceVectorRecord, encode
from stream_app.scorer_view import ScorerLog
from stream_app.stages.listing import LISTS_AT_ONCE, ListRule, by_epoch, make_lists, queries_of, search_of, take_vectors
from stream_app.stages.parts import in_parts
from stream_app.stages.profile import UserProfile
from stream_app.trend_log import TrendLog


@dataclass(frozen=True)
class RecommendTopics:
    """Full name of the topic this role writes."""

    recommendations: str


@dataclass(frozen=True)
class TakenRun:
    """What a run does to profiles: those of its users as they are now, whom a list is due to, what changed, and who is
    erased.
    """

    profiles: dict[str, UserProfile]
    asked: list[SliceVectorRecord]
    changes: dict[bytes, Stored]
    erasures: Erasures


def take_run(run: Run, values: Values, release: str) -> TakenRun:
    """Bring the profiles of the users of `run` up to date, with the vectors of `release`."""
    erasures = erasures_in(run, values)
    found = profile_run(erasures.others(run), values)
    asked = take_vectors(found.news, found.profiles, release)
    return TakenRun(found.profiles, asked, found.changes() | erasures.changes(), erasures)


class RecommendProcessor:
    """Handles one partition of `slice-vectors`.

    Args:
        rule: What lists are made with.
        topics: Names of topics.
        trends: The epochs of trends.
        scorers: The scorer of each scorer-epoch.
        items: The item index and the catalogue.
    """

    def __init__(
        self,
        rule: ListRule,
        topics: RecommendTopics,
        trends: TrendLog,
        scorers: ScorerLog,
        items: HeldItems,
    ) -> None:
        self._rule = rule
        self._topics = topics
        self._trends = trends
        self._scorers = scorers
        self._items = items

    def opening(self) -> list[OutRecord]:
        """Nothing is published before the first run."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing is held in memory, so nothing is read."""

    async def process(self, run: Run, values: Values) -> Effects:
        """Bring the users' profiles up to date, and make a list for each user with a new event. Who is erased has none:
        null takes the place of the last one.
        """
        taken = take_run(run, values, self._rule.release)
        nulls = [
            OutRecord(self._topics.recommendations, run.partition, tables.key_of(record.user_id), None)
            for record in taken.erasures.news
        ]
        lists = await self._lists(taken.asked, taken.profiles, run.partition)
        return Effects([*nulls, *lists], taken.changes, taken.erasures.removed)

    async def _lists(
        self, asked: Sequence[SliceVectorRecord], profiles: dict[str, UserProfile], partition: int
    ) -> list[OutRecord]:
        if not asked:
            return []
        await self._items.catch_up(asked)
        search = search_of([record.user_id for record in asked], profiles, self._rule.candidates)
        queries = queries_of(search, profiles, await self._items.search(search))
        lists: list[OutRecord] = []
        for join_epoch, group in by_epoch(asked):
            view = await self._trends.view_for(partition, join_epoch)
            in_force = await self._scorers.scorer_for(partition, self._rule.score.joined(join_epoch))
            for part in in_parts(group, LISTS_AT_ONCE):
                made = make_lists(part, queries, view, self._items.known(), self._rule, in_force)
                lists += [
                    OutRecord(self._topics.recommendations, partition, tables.key_of(one.user_id), encode(one))
                    for one in made
                ]
                await asyncio.sleep(0)
        return lists
