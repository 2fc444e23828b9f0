"""Replaying a log without a broker: the same rows, records and ticks as a replay to Kafka, through the roles in memory.

A chunk of the log is what a run is on Kafka. Since every list uses exactly the last epoch before its event, neither the
chunks nor the number of partitions change what the users get in the end. All that the roles keep on disk is kept in
memory here: some KiB for each user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from encoders.contract import SliceEncoder
from stream_app.item_contents import item_content
from stream_app.item_reading import TowerVectors, catalogue_vectors, item_reader
from stream_app.models import list_rule, load_encoder, served_model
from stream_app.offline_entries import EntryReader
from stream_app.offline_roles import Entry, OfflineRoles
from stream_app.offline_scoring import OfflineScoring
from stream_app.recording import Recorder
from stream_app.records import Item, ProgressRecord, SliceRecord
from stream_app.replay.caught_up import Totals, sum_of
from stream_app.replay.planning import Counted, PlannedRecord, ReplayPlan
from stream_app.replay.producer import check_types, item_of, plan_for
from stream_app.replay.readers import AnyRow, Log, read_items
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules
from stream_app.stages.encoding import newest_revisions
from stream_app.stages.item_columns import ItemColumns
from stream_app.stages.listing import (
    LISTS_AT_ONCE,
    KnownItems,
    ListRule,
    ScorerInForce,
    by_epoch,
    index_version,
    make_lists,
    take_vectors,
)
from stream_app.stages.parts import in_parts
from stream_app.stages.profile import UserProfile

OnTaken = Callable[[int], None]
"""Told the number of events taken so far."""


@dataclass(frozen=True)
class OfflineOutcome:
    """What went in, what became of it, dead letters by reason, and how many users have a list."""

    sent: Counted
    totals: Totals
    dead_letters: Mapping[str, int]
    num_lists: int


class OfflineReplay:
    """One replay, chunk by chunk.

    Args:
        settings: How the stream is cut, partitioned and ranked.
        encoder: The trained encoder.
        rule: What lists are made with.
        plan: Turns rows into the records that Kafka would get.
        catalogue: Whether an item is available, for those that the catalogue knows.
        vectors: Of the items that the catalogue knows, some at a time.
        recorder: Takes every list and slice, where somebody wants to keep them.
    """

    def __init__(
        self,
        settings: Settings,
        encoder: SliceEncoder,
        rule: ListRule,
        plan: ReplayPlan,
        *,
        catalogue: Mapping[str, bool] | None = None,
        vectors: Iterable[TowerVectors] = (),
        recorder: Recorder | None = None,
    ) -> None:
        self._roles = OfflineRoles(settings, encoder, settings.partitions)
        for some in vectors:
            self._roles.take_items(some.ids, some.vectors_ND)
        self._scoring = OfflineScoring(settings, rule, self._roles, settings.partitions)
        self._entries = EntryReader(settings.partitions, clean_rules(settings))
        self._rule = rule
        self._plan = plan
        self._recorder = recorder
        self._users_with_list: set[str] = set()
        known = catalogue or {}
        self._roles.take_availability(known)
        self._items = KnownItems(
            index_version(rule.release, len(self._roles.index)),
            ItemColumns(self._roles.index, lambda item_id: known.get(item_id, True)),
        )

    @property
    def profiles(self) -> Mapping[str, UserProfile]:
        """What is known of each user, by user id."""
        return self._roles.profiles

    @property
    def scorer(self) -> ScorerInForce:
        """The newest scorer; lists of earlier events cannot be made after it was asked for."""
        return self._scoring.in_force(None)

    def take(self, rows: Iterable[AnyRow]) -> None:
        """Take the next rows of the log."""
        self._take(self._plan.records_of(rows))

    def finish(self) -> OfflineOutcome:
        """End the log; what came of it."""
        self._take(self._plan.last_ticks())
        dead_letters: dict[str, int] = {}
        for stage in self._roles.sequences:
            for reason, num in stage.totals.dead_lettered.items():
                dead_letters[reason] = dead_letters.get(reason, 0) + num
        return OfflineOutcome(
            self._plan.counted,
            sum_of([stage.status(-1) for stage in self._roles.sequences]),
            dict(sorted(dead_letters.items())),
            len(self._users_with_list),
        )

    def _take(self, records: Iterable[PlannedRecord]) -> None:
        for part in self._entries.parts(records):
            self._take_part(part)

    def _take_part(self, entries: Mapping[int, Sequence[Entry]]) -> None:
        roles = self._roles
        effects = [roles.cut(partition, listed) for partition, listed in entries.items()]
        roles.count(chain.from_iterable(made.activity for made in effects))
        slices = [record for made in effects for record in made.slices]
        erased = [record for made in effects for record in made.erased]
        self._users_with_list.difference_update(record.user_id for record in erased)
        if self._recorder is not None:
            self._recorder.take_erased(erased)
            self._recorder.take_slices(slices)
        self._make_lists(slices, [made.progress for made in effects if made.progress is not None])

    def _make_lists(self, slices: Iterable[SliceRecord], progress: Sequence[ProgressRecord]) -> None:
        roles = self._roles
        vectors = roles.encode(newest_revisions(slices))
        self._scoring.take(vectors, progress, self._items)
        asked = take_vectors(vectors, roles.profiles, self._rule.release)
        queries = roles.queries([record.user_id for record in asked])
        for join_epoch, group in by_epoch(asked):
            assert join_epoch is not None, "every event of a replay is strict"
            trends = roles.trends_at(join_epoch)
            scorer = self._scoring.in_force(self._rule.score.joined(join_epoch))
            made = [
                one
                for part in in_parts(group, LISTS_AT_ONCE)
                for one in make_lists(part, queries, trends, self._items, self._rule, scorer)
            ]
            self._users_with_list.update(one.user_id for one in made)
            if self._recorder is not None:
                self._recorder.take_lists(made)


def replay_offline(
    log: Log,
    settings: Settings,
    *,
    type_map: Mapping[str, str] | None = None,
    limit: int | None = None,
    send_unknown_types: bool = False,
    items: Path | None = None,
    recorder: Recorder | None = None,
    on_taken: OnTaken = lambda num_events: None,
) -> OfflineOutcome:
    """Take a whole log through all roles.

    Args:
        log: The log.
        settings: With a model; no Kafka address is needed.
        type_map: Our event type by the log's.
        limit: Stop after this many rows.
        send_unknown_types: Take events of types that the settings do not name: they become dead letters.
        items: A catalogue (NDJSON), known before the first event.
        recorder: Takes every list and slice.
        on_taken: Told of progress.

    Raises:
        UsageError: The first events have types that the settings do not name.
        LogFormatError: The log or the catalogue cannot be read.
        ModelError: The model is missing, damaged, or trained for other settings.
    """
    plan = plan_for(log, settings, settings.partitions, type_map)
    chunks = iter(log.iter_chunks(limit=limit))
    first = next(chunks, [])
    if not send_unknown_types:
        check_types(first, plan, settings)
    encoder, catalogue = load_encoder(settings), _catalogue(items)
    contents = {item_id: item_content(item) for item_id, item in catalogue.items()}
    replay = OfflineReplay(
        settings,
        encoder,
        list_rule(settings, served_model(settings)),
        plan,
        catalogue={item_id: item.available for item_id, item in catalogue.items()},
        vectors=catalogue_vectors(item_reader(settings, encoder), contents),
        recorder=recorder,
    )
    for chunk in chain([first], chunks):
        replay.take(chunk)
        on_taken(plan.counted.num_events)
    return replay.finish()


def _catalogue(items: Path | None) -> dict[str, Item]:
    """The newest of each item, of the very items that Kafka would get."""
    rows: Iterable[Mapping[str, Any]] = [] if items is None else read_items(items)
    return {item.item_id: item for item in map(item_of, rows)}
