"""The state of each role as a fold of its input, by the very processors that the roles use; what they would publish is
left out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

from stream_app import tables, topics
from stream_app.agents.choose import ChooseRule, take_choosers
from stream_app.agents.encode import EncodeProcessor, EncodeTopics
from stream_app.agents.recommend import take_run
from stream_app.agents.score import ScoreProcessor, ScoreTopics
from stream_app.agents.sequence import SequenceProcessor, SequenceTopics
from stream_app.agents.trend import TrendProcessor, TrendTopics
from stream_app.batching import SliceBatcher
from stream_app.erasing import FindErasures, erased_records, erasures_of_events, parts_together
from stream_app.faustkit import Effects, Run, Stored, Values
from stream_app.faustkit.run import part_of
from stream_app.models import ServedModel, load_encoder, scorer_stage, served_model
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules, score_rule, sequence_stage, trend_rule
from stream_app.stages.trend import TrendStage

ROLE_TABLES: Final = {
    "sequence": tables.USER_HISTORIES,
    "trend": tables.ITEM_STATISTICS,
    "encode": tables.USER_MEMORY,
    "choose": tables.USER_CHOICES,
    "score": tables.SCORER,
    "recommend": tables.USER_VECTORS,
}
"""The table of each role."""

TREND_RUN_MS: Final = 1000
"""Longest run of activity in record time: whoever was silent for ten of these was idle to the role as well."""


Changes = dict[bytes, Stored | None]
"""Changed values by key; None removes one."""


class Fold(Protocol):
    """Folds one partition of a role's input."""

    async def changes(self, run: Run, values: Values) -> Changes:
        """What the next run changes; `values` hold all changes before."""
        ...


NewFold = Callable[[int], Fold]
"""Makes the fold of a partition, from its first record on."""


@contextmanager
def role_folds(settings: Settings, role: str) -> Iterator[NewFold]:
    """The folds of a role, for the block.

    Raises:
        ModelError: The role needs a model, and its folder is missing, damaged or does not fit the settings.
    """
    if role == "sequence":
        yield lambda partition: sequence_fold(settings, partition)
    elif role == "trend":
        yield lambda partition: TrendFold(settings)
    elif role == "recommend":
        release = served_model(settings).release
        yield lambda partition: profile_fold(release)
    elif role == "choose":
        rule = ChooseRule(served_model(settings).release, settings.candidates, score_rule(settings))
        yield lambda partition: chooser_fold(rule)
    elif role == "score":
        model = served_model(settings)
        yield lambda partition: ScorerFold(settings, model)
    else:
        encoder = load_encoder(settings)
        with ThreadPoolExecutor(1, thread_name_prefix="encoder") as executor:
            batcher = SliceBatcher(encoder, executor, settings.event_types)
            yield lambda partition: memory_fold(batcher)


Process = Callable[[Run, Values], Awaitable[Effects]]
"""Says what a run causes, as processors do; of the outputs nobody hears."""


class UserFold:
    """A fold whose runs are cut at erasures, as the roles cut theirs.

    Args:
        process: Of the role.
        find: Finds erasures in its input.
    """

    def __init__(self, process: Process, find: FindErasures) -> None:
        self._process = process
        self._find = find

    async def changes(self, run: Run, values: Values) -> Changes:
        """See `Fold.changes`."""
        changed: Changes = {}
        for places in parts_together(run.keys, self._find(run)):
            effects = await self._process(part_of(run, places.start, places.stop), Layered(changed, values))
            changed |= effects.changes
            changed |= dict.fromkeys(effects.removed)
        return changed


def sequence_fold(settings: Settings, partition: int) -> UserFold:
    """`events` become histories and totals."""

    def name(topic: str) -> str:
        return topics.prefixed(settings.prefix, topic)

    names = SequenceTopics(
        slices=name(topics.SLICES),
        activity=name(topics.ITEM_ACTIVITY),
        dead_letter=name(topics.DEAD_LETTER),
        status=name(topics.STATUS),
        num_partitions=settings.partitions,
    )
    rules = clean_rules(settings)
    processor = SequenceProcessor(sequence_stage(settings, partition), rules, names)
    processor.restore(())
    return UserFold(processor.process, erasures_of_events(rules))


class TrendFold:
    """`item-activity` becomes statistics. Which sources were idle is judged by record times: the role's own clock is
    gone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._now_s = 0.0
        self._processor: TrendProcessor | None = None

    async def changes(self, run: Run, values: Values) -> Changes:
        """See `Fold.changes`."""
        changed: Changes = {}
        for part in cut_by_time(run, TREND_RUN_MS):
            self._now_s = max(self._now_s, part.timestamps_ms[0] / 1000)
            processor = self._processor or self._begin()
            changed |= (await processor.process(part, Layered(changed, values))).changes
        return changed

    def _begin(self) -> TrendProcessor:
        stage = TrendStage(self._settings.partitions, trend_rule(self._settings))
        names = TrendTopics(trends=topics.prefixed(self._settings.prefix, topics.ITEM_TRENDS))
        self._processor = TrendProcessor(stage, names, lambda: self._now_s)
        self._processor.restore(())
        return self._processor


def memory_fold(batcher: SliceBatcher) -> UserFold:
    """`slices` become memories, by the release that is served."""
    processor = EncodeProcessor(batcher, EncodeTopics(topics.SLICE_VECTORS, topics.DRIFT))
    return UserFold(processor.process, erased_records)


def profile_fold(release: str) -> UserFold:
    """`slice-vectors` become profiles; no list is made."""

    async def process(run: Run, values: Values) -> Effects:
        taken = take_run(run, values, release)
        return Effects(changes=taken.changes, removed=taken.erasures.removed)

    return UserFold(process, erased_records)


def chooser_fold(rule: ChooseRule) -> UserFold:
    """`slice-vectors` become the profiles of the sampled users; no choice is told of."""

    async def process(run: Run, values: Values) -> Effects:
        taken = take_choosers(run, values, rule)
        return Effects(changes=taken.changes, removed=taken.removed)

    return UserFold(process, erased_records)


class ScorerFold:
    """`choices` become what was learned, and what waits."""

    def __init__(self, settings: Settings, model: ServedModel) -> None:
        stage = scorer_stage(settings, model, settings.partitions)
        self._processor = ScoreProcessor(stage, ScoreTopics(scorer_weights=topics.SCORER_WEIGHTS))
        self._processor.restore(())

    async def changes(self, run: Run, values: Values) -> Changes:
        """See `Fold.changes`."""
        return {**(await self._processor.process(run, values)).changes}


@dataclass(frozen=True)
class Layered:
    """Values over others: what a part of a run changed or removed is seen by the next part."""

    top: Changes
    below: Values

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """The values of `keys`, in their order; None where there is none."""
        missing = [key for key in keys if key not in self.top]
        found = dict(zip(missing, self.below.get_many(missing), strict=True))
        return [self.top[key] if key in self.top else found[key] for key in keys]


def cut_by_time(run: Run, span_ms: int) -> Iterator[Run]:
    """The run in parts, none of which has a record `span_ms` or more after the part's first, by record time."""
    cuts = [0]
    for place, at_ms in enumerate(run.timestamps_ms):
        if at_ms - run.timestamps_ms[cuts[-1]] >= span_ms:
            cuts.append(place)
    for start, stop in pairwise([*cuts, len(run)]):
        yield part_of(run, start, stop)
