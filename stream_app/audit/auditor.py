"""The audit of one namespace: what is read, in which order, and which check takes it.

The order makes it right beside roles that are at work. Stores are opened before the ends of their changelogs are asked
for, so none is ahead of what is read of its changelog; commits are asked for before the changelog, so everything
that is committed is in it; and dead letters and totals, which are published before or with the changes, come after.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from stream_app import tables, topics
from stream_app.audit.balance import EventCounter, Intake, Sums, judge_intake
from stream_app.audit.changelogs import Observer, PartitionFold
from stream_app.audit.dead_letters import DeadLetters
from stream_app.audit.findings import Check
from stream_app.audit.held import HeldCounts, newest_position, totals_position
from stream_app.audit.histories import LogFold
from stream_app.audit.lag import CatchUp, Place
from stream_app.audit.reading import Bounds, RunsReader
from stream_app.audit.repeats import Repeats, list_output, slice_output, slice_vector_output
from stream_app.audit.scratch import scratch_table
from stream_app.audit.stores import ChangelogPass, StoreComparison, StoreSnapshot, local_stores, open_snapshots
from stream_app.kafka import admin_client
from stream_app.lag import committed_offsets, group_name
from stream_app.records import StatusRecord
from stream_app.replay.report import Progress
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules, sequence_stage
from stream_app.stages.intake import read_record
from stream_app.wiring import store_folder

POLL_S: Final = 0.25
"""Pause between two looks at the committed offsets: roles commit as often."""

MAX_MARKS: Final = 1000
"""A partition that is behind by no more than this is read, to see whether anything but marks of transactions is left:
those have offsets but are never delivered, so nobody commits them."""

TABLE_ROLES: Final = {
    tables.USER_HISTORIES: "sequence",
    tables.ITEM_STATISTICS: "trend",
    tables.USER_MEMORY: "encode",
    tables.USER_VECTORS: "recommend",
}
"""The tables, and who keeps each."""

_STATUS: Final = msgspec.json.Decoder(StatusRecord)


@dataclass(frozen=True)
class AuditOptions:
    """What is checked: within how many seconds the lag must be worked off, and whether stores are compared."""

    bound_s: float = 60.0
    stores: bool = True


@dataclass(frozen=True)
class _Held:
    """What the `user-histories` changelog of one partition says."""

    fold: PartitionFold
    counts: HeldCounts


async def audit(settings: Settings, options: AuditOptions, show: Progress) -> list[Check]:
    """Check what is on the topics and in the stores of this machine.

    Returns:
        The outcome of each check.

    Raises:
        KafkaUnreachableError: The broker does not answer.
        TopicMismatchError: A topic does not exist, or lost records while it was read.
    """
    async with Auditor(settings, show) as auditor:
        await auditor.check_lag(options.bound_s)
        await auditor.check_changelogs(with_stores=options.stores)
        await auditor.check_events()
        await auditor.check_outputs()
        return auditor.checks


class Auditor:
    """Carries out the checks, in the order of its methods.

    Args:
        settings: The settings that the roles run with.
        show: Takes the progress.
    """

    def __init__(self, settings: Settings, show: Progress) -> None:
        self._settings = settings
        self._show = show
        self._open = AsyncExitStack()
        self._input = RunsReader(settings, "read_committed", show)
        self._reader = RunsReader(settings, "read_uncommitted", show)
        self._held: dict[int, _Held] = {}
        self._committed: dict[int, int] = {}
        self._lag = Check("lag", "every role works off its input, and no partition stands still")
        self._intake = Check("input", "events = applied + dead letters + drops; missing 0")
        self._histories = Check("histories", "the changelog of user-histories is the fold of the events")
        self._letters = Check("dead-letters", "every dead letter names its origin and holds its bytes")
        self._stores = Check("stores", "every store is the fold of its changelog")
        self._positions = Check("positions", "source positions and owner generations never go back")
        self._lists = Check("lists", "the same recommendation id, the same bytes")
        self._revisions = Check("revisions", "the same revision of a slice, the same content")

    @property
    def checks(self) -> list[Check]:
        """All checks."""
        first = [self._lag, self._intake, self._histories, self._letters]
        return [*first, self._stores, self._positions, self._lists, self._revisions]

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._input)
        await self._open.enter_async_context(self._reader)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    # ---------------------------------------------------------------- lag

    async def check_lag(self, bound_s: float) -> None:
        """Wait until every role has reached where its input ends now, for at most `bound_s`."""
        bounds: dict[Place, tuple[int, int]] = {}
        for role, name in ROLE_INPUTS.items():
            topic = self._name(name)
            for partition, ends in (await self._input.bounds(topic)).items():
                bounds[Place(role, topic, partition)] = ends
        started_s = time.monotonic()
        async with admin_client(self._settings) as admin:
            watch = CatchUp(bounds, await self._committed_places(admin))
            await self._pass_marks(watch)
            while (behind := watch.behind()) and time.monotonic() - started_s < bound_s:
                num_behind = sum(end - reached for reached, end in behind.values())
                self._show(f"waiting for the roles: {num_behind:,} records behind")
                await asyncio.sleep(POLL_S)
                watch.take(await self._committed_places(admin))
        await self._pass_marks(watch)
        watch.judge(self._lag, time.monotonic() - started_s)

    async def _committed_places(self, admin: object) -> dict[Place, int]:
        found: dict[Place, int] = {}
        for role, name in ROLE_INPUTS.items():
            topic = self._name(name)
            offsets = await committed_offsets(admin, group_name(self._settings, role))
            found |= {Place(role, topic, number): at for (seen, number), at in offsets.items() if seen == topic}
        return found

    async def _pass_marks(self, watch: CatchUp) -> None:
        for place, (reached, end) in watch.behind().items():
            if end - reached <= MAX_MARKS and not await self._has_records(place, reached, end):
                watch.reached(place)

    async def _has_records(self, place: Place, start: int, end: int) -> bool:
        runs = self._input.runs(place.topic, place.partition, start, end)
        return any([True async for _ in runs])

    # ---------------------------------------------------------------- changelogs and stores

    async def check_changelogs(self, *, with_stores: bool) -> None:
        """Fold all changelogs, and compare the stores of this machine with them."""
        if not with_stores:
            self._stores.leave_out("all stores", "left out by --no-store")
        for table in TABLE_ROLES:
            topic = topics.changelog_name(self._settings.prefix, table)
            await self._check_table(table, topic, with_stores=with_stores)
        facts = self._stores.facts
        self._stores.summary = f"{facts.get('stores', 0)} stores, {facts.get('keys', 0):,} keys"
        facts = self._positions.facts
        self._positions.summary = f"{facts.get('values', 0):,} values, {facts.get('marks', 0):,} owners' marks"

    async def _check_table(self, table: str, topic: str, *, with_stores: bool) -> None:
        role = TABLE_ROLES[table]
        stores = local_stores(store_folder(self._settings, role, 0).parent, role, table) if with_stores else {}
        if table == tables.USER_HISTORIES:
            await self._ask_committed()
        partitions = sorted(await self._reader.bounds(topic))
        for partition in partitions:
            counts = HeldCounts(self._positions, topic, partition)
            is_held = table == tables.USER_HISTORIES
            observers: Sequence[Observer] = [counts] if is_held else []
            fold = PartitionFold(self._positions, topic, partition, observers)
            with open_snapshots(stores.get(partition, []), self._stores) as opened:
                await self._fold(fold, opened)
            if is_held:
                counts.forget_users()
                self._held[partition] = _Held(fold, counts)
        if with_stores and (missing := [one for one in partitions if one not in stores]):
            self._stores.leave_out(f"{table}, partitions {missing}", "this machine has no store of them")

    async def _ask_committed(self) -> None:
        topic = self._name(topics.EVENTS)
        async with admin_client(self._settings) as admin:
            offsets = await committed_offsets(admin, group_name(self._settings, "sequence"))
        self._committed = {number: at for (seen, number), at in offsets.items() if seen == topic}

    async def _fold(self, fold: PartitionFold, opened: Sequence[StoreSnapshot]) -> None:
        begin, end = (await self._reader.bounds(fold.topic))[fold.partition]
        comparisons = []
        for store in opened:
            comparison = StoreComparison(self._stores, store, fold)
            if comparison.offset + 1 < begin:
                why = f"it stands at {comparison.offset}, but {fold.topic}[{fold.partition}] begins at {begin}"
                self._stores.leave_out(f"the store {store.path}", why)
            else:
                comparisons.append(comparison)
        changelog = ChangelogPass(fold, comparisons)
        async for run in self._reader.runs(fold.topic, fold.partition, begin, end):
            changelog.take(run)
        changelog.finish(end)
        self._stores.num_checked += len(comparisons)
        _add(self._stores, stores=len(comparisons), keys=sum(one.num_keys for one in comparisons))
        self._positions.num_checked += fold.num_values
        _add(self._positions, values=fold.num_values, marks=fold.generations.num_marks)

    # ---------------------------------------------------------------- events

    async def check_events(self) -> None:
        """Read the totals and the dead letters, then all events once, for everything that is compared with them."""
        statuses = await self._read_statuses()
        events = await self._input.bounds(self._name(topics.EVENTS))
        letters, letters_begin = await self._read_letters({number: end for number, (_, end) in events.items()})
        intakes = []
        for partition, bounds in sorted(events.items()):
            held, status = self._held.pop(partition, None), statuses.get(partition)
            intakes.append(await self._read_events(partition, bounds, held, status, letters, letters_begin))
        judge_intake(self._intake, intakes)
        num_keys = self._histories.facts.get("keys", 0)
        self._histories.summary = f"{num_keys:,} keys, {self._histories.num_breaches:,} differ"
        self._letters.summary = f"{letters.num_letters:,} dead letters"
        self._letters.facts = {"letters": letters.num_letters, "originals_removed": letters.num_removed}

    async def _read_statuses(self) -> dict[int, StatusRecord]:
        topic = self._name(topics.STATUS)
        newest: dict[int, StatusRecord] = {}
        for partition, (begin, end) in (await self._reader.bounds(topic)).items():
            async for run in self._reader.runs(topic, partition, begin, end):
                # Of each key the last one counts, so only that is decoded.
                last = {key: value for key, value in zip(run.keys, run.values, strict=True) if value is not None}
                for value in last.values():
                    status = _STATUS.decode(value)
                    newest[status.partition] = status
        return newest

    async def _read_letters(self, ends: Mapping[int, int]) -> tuple[DeadLetters, int]:
        topic = self._name(topics.DEAD_LETTER)
        letters = DeadLetters(self._letters, topic, self._name(topics.EVENTS), ends)
        bounds = await self._reader.bounds(topic)
        for partition, (begin, end) in bounds.items():
            async for run in self._reader.runs(topic, partition, begin, end):
                letters.take(run)
        return letters, max(begin for begin, _ in bounds.values())

    async def _read_events(
        self,
        partition: int,
        bounds: tuple[int, int],
        held: _Held | None,
        status: StatusRecord | None,
        letters: DeadLetters,
        letters_begin: int,
    ) -> Intake:
        topic, (begin, end) = self._name(topics.EVENTS), bounds
        sums = None if held is None else self._sums(partition, held)
        position = -1 if sums is None else sums.position
        letters_up_to = -1 if letters_begin else position
        asked = [position, *([] if status is None else [status.offset])]
        counter = EventCounter(asked)
        letters.skip_removed(partition, begin)
        with ExitStack() as stack:
            log_fold = self._log_fold(stack, partition, begin, held)
            up_to = max(*asked, letters.newest_origin(partition), -1 if log_fold is None else log_fold.end - 1)
            async for run in self._input.runs(topic, partition, begin, min(end, up_to + 1)):
                columns = zip(run.keys, run.values, run.timestamps_ms, run.headers, strict=True)
                contents = [read_record(*record, self._rules) for record in columns]
                counter.take(run.offsets, contents)
                letters.compare(run, contents, letters_up_to)
                if log_fold is not None:
                    log_fold.take(run, contents)
            if log_fold is not None:
                log_fold.finish()
        return Intake(
            topic=topic,
            partition=partition,
            begin=begin,
            committed=self._committed.get(partition),
            status=status,
            sums=sums,
            num_events={offset: counter.up_to(offset) for offset in asked},
            letters=letters.reasons(partition, position),
            letters_begin=letters_begin,
        )
