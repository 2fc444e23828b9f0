"""Reading the changelogs into their folds, beside the stores of this machine.

Stores are opened before the end of their changelog is asked for, so none is ahead of what is read of it. Commits are
asked for before it too, so everything that is committed is in what is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stream_app import tables, topics
from stream_app.audit.changelogs import Observer, PartitionFold
from stream_app.audit.findings import Check
from stream_app.audit.held import HeldCounts
from stream_app.audit.reading import RunsReader
from stream_app.audit.stores import ChangelogPass, StoreComparison, StoreSnapshot, local_stores, open_snapshots
from stream_app.kafka import admin_client
from stream_app.lag import committed_offsets, group_name
from stream_app.settings import Settings
from stream_app.wiring import store_folder

TABLE_ROLES: Final = {
    tables.USER_HISTORIES: "sequence",
    tables.ITEM_STATISTICS: "trend",
    tables.USER_MEMORY: "encode",
    tables.USER_CHOICES: "choose",
    tables.SCORER: "score",
    tables.USER_VECTORS: "recommend",
}
"""The tables, and who keeps each."""


@dataclass(frozen=True)
class Held:
    """What the sequence role keeps of one partition, and what it had committed before that was read."""

    fold: PartitionFold
    counts: HeldCounts
    committed: int | None


@dataclass
class ChangelogOutcome:
    """The two checks that changelogs are read for, and what the sequence role keeps, by partition."""

    stores: Check = field(default_factory=lambda: Check("stores", "every store is the fold of its changelog"))
    positions: Check = field(
        default_factory=lambda: Check("positions", "source positions and owner generations never go back")
    )
    held: dict[int, Held] = field(default_factory=dict)
    num_stores: int = 0
    num_keys: int = 0
    num_values: int = 0
    num_marks: int = 0


async def check_changelogs(settings: Settings, reader: RunsReader, *, with_stores: bool) -> ChangelogOutcome:
    """Fold all changelogs, and compare the stores of this machine with them.

    Raises:
        KafkaUnreachableError: The broker does not answer.
        TopicMismatchError: A topic does not exist.
    """
    outcome = ChangelogOutcome()
    if not with_stores:
        outcome.stores.leave_out("all stores", "--no-store was given")
    for table, role in TABLE_ROLES.items():
        workers = store_folder(settings, role, 0).parent
        stores = local_stores(workers, role, table) if with_stores else {}
        topic = topics.changelog_name(settings.prefix, table)
        if table == tables.USER_HISTORIES:
            await _read_histories(settings, reader, topic, stores, outcome)
        else:
            for partition in await reader.bounds(topic):
                fold = PartitionFold(outcome.positions, topic, partition)
                await _fold(reader, fold, stores.get(partition, []), outcome)
        missing = sorted(set(await reader.bounds(topic)) - set(stores))
        if with_stores and missing:
            numbers = ", ".join(map(str, missing))
            outcome.stores.leave_out(f"{table}, partition {numbers}", f"there is no store of it under {workers}")
    outcome.stores.summary = f"{outcome.num_stores} stores, {outcome.num_keys:,} keys"
    outcome.stores.facts = {"stores": outcome.num_stores, "keys": outcome.num_keys}
    outcome.positions.summary = f"{outcome.num_values:,} values, {outcome.num_marks:,} owners' marks"
    outcome.positions.facts = {"values": outcome.num_values, "marks": outcome.num_marks}
    return outcome


async def _read_histories(
    settings: Settings, reader: RunsReader, topic: str, stores: dict[int, list[Path]], outcome: ChangelogOutcome
) -> None:
    events = topics.prefixed(settings.prefix, topics.EVENTS)
    async with admin_client(settings) as admin:
        committed = await committed_offsets(admin, group_name(settings, "sequence"))
    for partition in await reader.bounds(topic):
        counts = HeldCounts(outcome.positions, topic, partition)
        observers: Sequence[Observer] = [counts]
        fold = PartitionFold(outcome.positions, topic, partition, observers)
        await _fold(reader, fold, stores.get(partition, []), outcome)
        counts.forget_users()
        outcome.held[partition] = Held(fold, counts, committed.get((events, partition)))


async def _fold(reader: RunsReader, fold: PartitionFold, paths: Sequence[Path], outcome: ChangelogOutcome) -> None:
    with open_snapshots(paths, outcome.stores) as opened:
        begin, end = (await reader.bounds(fold.topic))[fold.partition]
        comparisons = _comparisons(fold, opened, begin, outcome.stores)
        changelog = ChangelogPass(fold, comparisons)
        async for run in reader.runs(fold.topic, fold.partition, begin, end):
            changelog.take(run)
        changelog.finish(end)
    outcome.stores.num_checked += len(comparisons)
    outcome.num_stores += len(comparisons)
    outcome.num_keys += sum(one.num_keys for one in comparisons)
    outcome.positions.num_checked += 1
    outcome.num_values += fold.num_values
    outcome.num_marks += fold.generations.num_marks


def _comparisons(
    fold: PartitionFold, opened: Sequence[StoreSnapshot], begin: int, check: Check
) -> list[StoreComparison]:
    comparisons = []
    for store in opened:
        comparison = StoreComparison(check, store, fold)
        if comparison.offset + 1 < begin:
            where = f"{fold.topic}[{fold.partition}]"
            why = f"it stands at offset {comparison.offset}, but {where} begins at {begin}"
            check.leave_out(f"the store {store.path}", why)
        else:
            comparisons.append(comparison)
    return comparisons
