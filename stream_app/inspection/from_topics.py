"""Inspecting a user of the running system, from its topics alone: nothing is written, no group is joined."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from stream_app.inspection.catalogue import Catalogue
from stream_app.inspection.choice import Recommender
from stream_app.inspection.published import OnRead, PublishedTopics, TrendsAsOf, published_of
from stream_app.inspection.question import Question, check_found, offsets_without
from stream_app.inspection.report import (
    NOTHING_PUBLISHED,
    Inspection,
    Published,
    Snapshot,
    snapshot_of,
    without_event,
)
from stream_app.inspection.trace import Trace, trace
from stream_app.inspection.user_log import UserLog
from stream_app.inspection.what_if import ActivityChange, activity_change, count_again, without_places
from stream_app.item_loading import load_items
from stream_app.item_view import ItemView
from stream_app.models import ServedModel, list_rule, load_encoder, served_model
from stream_app.records import ActivityRecord, Recommendation, SliceRecord, TrendRecord
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules, score_rule, trend_rule
from stream_app.stages.listing import ScorerInForce
from stream_app.topic_reader import TopicReader
from stream_app.topics import EVENTS

READ_WITHIN_S: Final = 3600.0
"""Longest reading of one topic: an hour reads hundreds of millions of records."""

BY_PUBLISHED = "the published list names it"
BY_TICKS = "the last epoch before the event's own, as replayed events ask"
BY_EVENT = "not known: the last epoch before the event's own is taken"
"""How the epoch of a list is known."""

LEARNED_WITH_EVENT = (
    "the scorer was learned with the event, and is not learned again: what would be without it is approximate; "
    "`--from-file` with the log is exact"
)
"""Said where a list without an event is ranked by what the event may have taught."""


Instead = Mapping[str, TrendRecord | None]
"""Trend records to take instead of the published ones, by item id; None: the item was never touched."""


@dataclass(frozen=True)
class _User:
    """A user's records as of the time asked for, and as they would be without those at `offsets`.

    `num_gone` records of the partition were removed by retention.
    """

    traced: Trace
    num_gone: int
    offsets: frozenset[int] = frozenset()
    without: Trace | None = None

    @property
    def answered(self) -> list[SliceRecord]:
        """What lists answer, with and without; a user without an applied event has none."""
        found = [traced.answered for traced in (self.traced, self.without) if traced is not None]
        return [record for record in found if record is not None]


@dataclass(frozen=True)
class _Join:
    """The epoch and the scorer-epoch that a list joins, and how they are known."""

    epoch: int
    scorer_epoch: int
    known_by: str


@dataclass(frozen=True)
class _Facts:
    """All that was read of a user and what the lists need."""

    partition: int
    source: str
    user: _User
    published: Published
    joins: Mapping[int, _Join]
    trends: Mapping[int, TrendsAsOf]
    scorers: Mapping[int, ScorerInForce]
    change: ActivityChange
    activity: Sequence[ActivityRecord]
    catalogue: Catalogue
    items: ItemView
    notes: list[str]


def inspect_topics(
    settings: Settings, question: Question, *, on_read: OnRead = lambda _: None
) -> tuple[Inspection, Catalogue]:
    """Explain a user of the running system.

    Args:
        settings: With a Kafka address and a model.
        question: Whom and when.
        on_read: Told of progress.

    Returns:
        The inspection, and the catalogue with titles.

    Raises:
        SliceflowError: The user is unknown, or the time is before the first event.
        UsageError: There is no such event to leave out.
        KafkaUnreachableError: The broker did not deliver in time.
        TopicMismatchError: A topic does not exist.
        ModelError: The model is missing, damaged, or trained for other settings.
    """
    encoder = load_encoder(settings)
    model = served_model(settings)
    facts = asyncio.run(_read(settings, question, model, on_read))
    rule = list_rule(settings, model)
    view, scorer = facts.items, ScorerInForce(rule.scorer)
    if not view.is_complete:
        # The encode role has not published this release yet; it would begin with these.
        view.index.upsert(*encoder.item_vectors())
    recommender = Recommender(settings, encoder, view.index, rule, facts.catalogue.is_available, scorer, view.version)
    notes = [*facts.notes, *_notes(facts, settings)]
    snapshot, used = _snapshot(facts, facts.user.traced, recommender, facts.published, {})
    without = None
    if facts.user.without is not None:
        instead = _trends_without(facts, settings)
        after, _ = _snapshot(facts, facts.user.without, recommender, NOTHING_PUBLISHED, instead)
        without = without_event(sorted(facts.user.offsets), snapshot, after)
    return Inspection(
        user_id=question.user_id,
        source=facts.source,
        partition=facts.partition,
        at_ms=question.at_ms,
        release=encoder.release,
        half_lives_ms=encoder.half_lives_ms.tolist(),
        weights=used.weights,
        snapshot=snapshot,
        without=without,
        notes=notes,
    ), facts.catalogue


async def _read(settings: Settings, question: Question, model: ServedModel, on_read: OnRead) -> _Facts:
    release = model.release
    async with TopicReader(settings, timeout_s=READ_WITHIN_S) as reader:
        topics = PublishedTopics(settings, reader, on_read)
        partition = await topics.partition_of_user(question.user_id)
        user = await _read_user(topics, settings, question, partition)
        lists = await topics.lists_of(question.user_id, partition, {record.offset for record in user.answered})
        published, notes = published_of(
            lists,
            await topics.slices_of(question.user_id, partition),
            await topics.vectors_of(question.user_id, partition, release),
            user.traced,
        )
        complete = await topics.complete_epoch()
        joins = {one.offset: _join(one, lists.get(one.offset), settings, complete) for one in user.answered}
        change, catalogue = _change(user), Catalogue()
        items = await load_items(
            settings, model, "faiss", lambda run: catalogue.take(zip(run.keys, run.values, strict=True))
        )
        return _Facts(
            partition=partition,
            source=topics.name_of(EVENTS),
            user=user,
            published=published,
            joins=joins,
            trends=await topics.trends_as_of({join.epoch for join in joins.values()}),
            scorers=await topics.scorers_as_of({join.scorer_epoch for join in joins.values()}, release),
            change=change,
            activity=await topics.activity_of(change.items),
            catalogue=catalogue,
            items=items.view,
            notes=notes,
        )


async def _read_user(topics: PublishedTopics, settings: Settings, question: Question, partition: int) -> _User:
    log = UserLog(question.user_id, clean_rules(settings), question.at_ms)
    num_gone = await topics.fill(log, partition)
    check_found(question, log, topics.name_of(EVENTS))
    entries = log.entries
    traced = trace(question.user_id, partition, entries, settings)
    if question.without is None:
        return _User(traced, num_gone)
    offsets = offsets_without(question.without, traced.events)
    left = [entry for entry in entries if entry.offset not in offsets]
    return _User(traced, num_gone, offsets, trace(question.user_id, partition, left, settings))


def _join(answered: SliceRecord, published: Recommendation | None, settings: Settings, complete: int) -> _Join:
    """Which trends and scorer a list uses: those that it names, else by the rule of the recommend role."""
    if published is not None:
        return _Join(published.epoch, published.scorer_epoch, BY_PUBLISHED)
    is_known = answered.join_epoch is not None
    before = answered.join_epoch if is_known else answered.events[-1].ts // settings.epoch_ms - 1
    scorer_epoch = score_rule(settings).joined(before)
    assert before is not None and scorer_epoch is not None, "one of both tells the epoch"
    return _Join(min(before, complete), scorer_epoch, BY_TICKS if is_known else BY_EVENT)


def _change(user: _User) -> ActivityChange:
    if user.without is None:
        return ActivityChange()
    return activity_change(user.traced.activity, user.without.activity)


def _snapshot(
    facts: _Facts, traced: Trace, recommender: Recommender, published: Published, instead: Instead
) -> tuple[Snapshot, Recommender]:
    """The snapshot, and the recommender with the scorer that it used."""
    if traced.answered is None:
        return snapshot_of(traced, None, "", recommender, published), recommender
    join = facts.joins[traced.answered.offset]
    trends = facts.trends[join.epoch].view(trend_rule(recommender.settings), instead)
    used = replace(recommender, scorer=facts.scorers.get(join.scorer_epoch, recommender.scorer))
    return snapshot_of(traced, trends, join.known_by, used, published), used


def _trends_without(facts: _Facts, settings: Settings) -> Instead:
    """The trends of the items that the change touches, counted anew with it; None for those never touched."""
    user = facts.user
    if user.without is None or user.without.answered is None:
        return {}
    epoch = facts.joins[user.without.answered.offset].epoch
    counted = count_again(without_places(facts.activity, facts.change), epoch, trend_rule(settings))
    return {item_id: counted.get(item_id) for item_id in facts.change.items}


def _notes(facts: _Facts, settings: Settings) -> list[str]:
    """What stands in the way of an exact answer."""
    notes = []
    if facts.user.without is not None and facts.scorers:
        notes.append(LEARNED_WITH_EVENT)
    if facts.user.num_gone:
        notes.append(
            f"the first {facts.user.num_gone:,} records of partition {facts.partition} of {facts.source} are gone "
            "(retention): what the user did then is not known"
        )
    for epoch, trends in facts.trends.items():
        if trends.num_lost:
            notes.append(
                f"the trends of {trends.num_lost:,} items as of epoch {epoch} are gone (compaction keeps the newest): "
                "a list made anew lacks them; `--from-file` with the log is exact"
            )
        counted = count_again(facts.activity, epoch, trend_rule(settings))
        if any(counted.get(item_id) != trends.records.get(item_id) for item_id in facts.change.items):
            notes.append(
                f"the trends of epoch {epoch} cannot be counted again exactly from `item-activity` (records are gone, "
                "or late activity was counted in a later epoch): what would be without the event is approximate"
            )
    return notes
