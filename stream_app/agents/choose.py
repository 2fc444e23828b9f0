"""Role `choose`: user vectors in; what users took, beside what would have been offered, out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from stream_app import tables
from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.marks import last_mark
from stream_app.records import MARK_KEY, ChoiceRecord, SliceVectorRecord, encode
from stream_app.stages.choices import Choice, choice_record, queries_for, search_for, take_choices
from stream_app.stages.listing import KnownItems, offered
from stream_app.stages.ranking import Query
from stream_app.stages.score_rule import ScoreRule
from stream_app.views import ItemView, TopicEnds, TrendLog

_VECTOR = msgspec.json.Decoder(SliceVectorRecord)

CHOICES_AT_ONCE = 256
"""Choices that the index is asked for together; each holds the set of what its user has seen, at most some 100 KB."""


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
    """The choices of a run, in order, and the profiles it changed."""

    choices: list[Choice]
    changes: dict[bytes, Stored]


def take_choosers(run: Run, values: Values, rule: ChooseRule) -> TakenChoices:
    """Bring the profiles of the sampled users of `run` up to date, and see what they chose."""
    sampled = {key for key in set(run.keys) if key and rule.score.is_sampled(key)}
    wanted = [place for place, key in enumerate(run.keys) if key in sampled]
    records = [(_VECTOR.decode(run.values[place] or b""), run.offsets[place]) for place in wanted]
    kept = tables.load_values(values, list(dict.fromkeys(record.user_id for record, _ in records)), tables.PROFILE)
    profiles = {user_id: profile for user_id, (_, profile) in kept.items()}
    news = [
        (record, offset) for record, offset in records if record.user_id not in kept or offset > kept[record.user_id][0]
    ]
    choices = take_choices([record for record, _ in news], profiles, rule.release)
    changes = {
        tables.key_of(user_id): Stored(offset, tables.encode_value(profiles[user_id]))
        for user_id, offset in {record.user_id: offset for record, offset in news}.items()
        if user_id in profiles
    }
    return TakenChoices(choices, changes)


class ChooseProcessor:
    """Handles one partition of `slice-vectors`.

    Args:
        rule: Of whom and how choices are told.
        topics: Names of topics.
        trends: The epochs of trends.
        items: The item index and the catalogue.
        catalogue: Tells where the topic of the catalogue ends.
        executor: One thread, for the index.
    """

    def __init__(
        self,
        rule: ChooseRule,
        topics: ChooseTopics,
        trends: TrendLog,
        items: ItemView,
        catalogue: TopicEnds,
        executor: Executor,
    ) -> None:
        self._rule = rule
        self._topics = topics
        self._trends = trends
        self._items = items
        self._catalogue = catalogue
        self._executor = executor

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
        return Effects(outputs, taken.changes)

    async def _records(self, choices: Sequence[Choice], partition: int) -> list[ChoiceRecord]:
        if any(choice.record.join_epoch is not None for choice in choices):
            await self._items.catch_up(await self._catalogue.ends())
        made: list[ChoiceRecord] = []
        for part in _parts(choices):
            queries = await self._queries(part)
            for choice, query in zip(part, queries, strict=True):
                view = await self._trends.view_for(partition, choice.record.join_epoch)
                items = KnownItems(self._items.version, self._items.is_available, self._items.index.vectors_of)
                record = choice_record(choice, *offered(query, view, items, self._rule.candidates), self._rule.score)
                if record is not None:
                    made.append(record)
                await asyncio.sleep(0)
        return made

    async def _queries(self, choices: Sequence[Choice]) -> list[Query]:
        search = search_for(choices, self._rule.candidates)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._executor, self._search, search.vectors_UD, max(search.limits))
        return queries_for(search, choices, found)

    def _search(self, vectors_UD: npt.NDArray[np.float32], num_items: int) -> list[list[str]]:
        if not len(self._items.index):
            return [[] for _ in vectors_UD]
        return self._items.index.search(vectors_UD, num_items).ids


def _parts(choices: Sequence[Choice]) -> Iterator[Sequence[Choice]]:
    for start in range(0, len(choices), CHOICES_AT_ONCE):
        yield choices[start : start + CHOICES_AT_ONCE]
