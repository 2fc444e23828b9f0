"""Role `choose`: user vectors in; what users took, beside what would have been offered, out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stream_app import tables
from stream_app.erasing import erasures_in
from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.held_items import HeldItems
from stream_app.marks import last_mark
from stream_app.profile_runs import profile_run
from stream_app.records import MARK_KEY, ChoiceRecord, encode
from stream_app.stages.choices import (
    CHOICES_AT_ONCE,
    Choice,
    at_one_moment,
    choice_record,
    queries_for,
    search_for,
    take_choices,
)
from stream_app.stages.listing import offered_each
from stream_app.stages.parts import in_parts
from stream_app.stages.score_rule import ScoreRule
from stream_app.trend_log import TrendLog


@dataclass(frozen=True)
class ChooseTopics:
    """Full name of the topic this role writes; it has one partition."""

    choices: str


@dataclass(frozen=True)
class ChooseRule:
    """Of whom and how choices are told: the release that is served, candidates of each source, and the sampling."""

    release: str
    candidates: int
    score: ScoreRule


@dataclass(frozen=True)
class TakenChoices:
    """The choices of a run, in order, the profiles it changed, and the keys of those it removed."""

    choices: list[Choice]
    changes: dict[bytes, Stored]
    removed: list[bytes]


def take_choosers(run: Run, values: Values, rule: ChooseRule) -> TakenChoices:
    """Bring the profiles of the sampled users of `run` up to date, and see what they chose."""
    erasures = erasures_in(run, values)
    sampled = {key for key in set(run.keys) if key and rule.score.is_sampled(key)}
    places = {offset for key, offset in zip(run.keys, run.offsets, strict=True) if key in sampled}
    found = profile_run([row for row in erasures.others(run) if row[0] in places], values)
    choices = take_choices(found.news, found.profiles, rule.release)
    return TakenChoices(choices, found.changes() | erasures.changes(), erasures.removed)


class ChooseProcessor:
    """Handles one partition of `slice-vectors`.

    Args:
        rule: Of whom and how choices are told.
        topics: Names of topics.
        trends: The epochs of trends.
        items: The item index and the catalogue.
    """

    def __init__(self, rule: ChooseRule, topics: ChooseTopics, trends: TrendLog, items: HeldItems) -> None:
        self._rule = rule
        self._topics = topics
        self._trends = trends
        self._items = items

    def opening(self) -> list[OutRecord]:
        """Nothing is published before the first run."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing is held in memory, so nothing is read."""

    async def process(self, run: Run, values: Values) -> Effects:
        """Bring the profiles up to date, and tell of each choice beside what was offered in that moment."""
        taken = take_choosers(run, values, self._rule)
        outputs = [
            OutRecord(self._topics.choices, 0, tables.key_of(made.user_id), encode(made))
            for made in await self._records(taken.choices, run.partition)
        ]
        if (mark := last_mark(run)) is not None:
            outputs.append(OutRecord(self._topics.choices, 0, MARK_KEY, mark))
        return Effects(outputs, taken.changes, taken.removed)

    async def _records(self, choices: Sequence[Choice], partition: int) -> list[ChoiceRecord]:
        await self._items.catch_up(choice.record for choice in choices)
        made: list[ChoiceRecord] = []
        for part in in_parts(choices, CHOICES_AT_ONCE):
            search = search_for(part, self._rule.candidates)
            queries = queries_for(search, part, await self._items.search(search))
            for epoch, some, asking in at_one_moment(part, queries):
                view = await self._trends.view_for(partition, epoch)
                found = offered_each(asking, view, self._items.known(), self._rule.candidates)
                records = [
                    choice_record(choice, *one, self._rule.score) for choice, one in zip(some, found, strict=True)
                ]
                made += [record for record in records if record is not None]
                await asyncio.sleep(0)
        return made
