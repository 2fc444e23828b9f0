"""Inspecting a user of a log file, with the same records, ticks and stages as a replay without a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from encoders.contract import SliceEncoder
from stream_app.inspection.catalogue import Catalogue, file_records
from stream_app.inspection.choice import Recommender
from stream_app.inspection.question import Question, check_found, offsets_without
from stream_app.inspection.report import NOTHING_PUBLISHED, Inspection, Snapshot, snapshot_of, without_event
from stream_app.inspection.trace import Trace, trace
from stream_app.inspection.user_log import UserLog
from stream_app.kafka import partition_of
from stream_app.models import list_rule, load_encoder, served_model
from stream_app.offline_entries import EntryReader
from stream_app.offline_roles import Entry, OfflineRoles
from stream_app.offline_scoring import OfflineScoring
from stream_app.replay.planning import PlannedRecord, ReplayPlan
from stream_app.replay.readers import EventLog, Row
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules
from stream_app.stages.encoding import newest_revisions
from stream_app.stages.item_columns import ItemColumns
from stream_app.stages.listing import KnownItems, ScorerInForce, index_version, take_vectors

OnRead = Callable[[str], None]
"""Told of progress."""

BY_OWN_EPOCH = "the last epoch before the event's own, as in a replay"


@dataclass(frozen=True)
class LogFile:
    """A log and how its rows become records.

    Args:
        path: The file, for messages.
        log: The log.
        settings: How the stream is cut, partitioned and ranked.
        type_map: Our event type by the log's.
    """

    path: Path
    log: EventLog
    settings: Settings
    type_map: Mapping[str, str] = field(default_factory=dict)

    def chunks(self, left_out: frozenset[int]) -> Iterator[list[tuple[int, Row]]]:
        """The rows with their numbers, chunk by chunk, but for those left out."""
        number = 0
        for chunk in self.log.iter_chunks():
            yield [one for one in enumerate(chunk, start=number) if one[0] not in left_out]
            number += len(chunk)

    def plan(self) -> ReplayPlan:
        """A fresh plan from rows to records."""
        settings = self.settings
        return ReplayPlan(settings.partitions, settings.epoch_ms, type_map=self.type_map, fields=settings.fields)


@dataclass(frozen=True)
class _FoundUser:
    """A user's log, and the number of the row behind each of the user's offsets."""

    log: UserLog
    traced: Trace
    row_of: Mapping[int, int]


def inspect_file(
    file: LogFile, question: Question, *, items: Path | None = None, on_read: OnRead = lambda _: None
) -> tuple[Inspection, Catalogue]:
    """Explain a user of a log.

    Args:
        file: The log.
        question: Whom and when.
        items: A catalogue (NDJSON), known before the first event.
        on_read: Told of progress.

    Returns:
        The inspection, and the catalogue with titles.

    Raises:
        SliceflowError: The user is unknown, or the time is before the first event.
        UsageError: There is no such event to leave out.
        LogFormatError: The log or the catalogue cannot be read.
        ModelError: The model is missing, damaged, or trained for other settings.
    """
    settings = file.settings
    encoder = load_encoder(settings)
    catalogue = Catalogue()
    catalogue.take([] if items is None else file_records(items))
    partition = partition_of(question.user_id.encode("utf-8", "surrogatepass"), settings.partitions)
    found = _find_user(file, question, partition, frozenset(), on_read)
    check_found(question, found.log, str(file.path))
    snapshot, recommender = _snapshot(file, found, frozenset(), encoder, catalogue, on_read)
    without = None
    if question.without is not None:
        offsets = offsets_without(question.without, found.traced.events)
        left_out = frozenset(found.row_of[offset] for offset in offsets)
        # Everything anew, ticks and trends included: as if the rows had never been in the file.
        changed = _find_user(file, question, partition, left_out, on_read)
        after, _ = _snapshot(file, changed, left_out, encoder, catalogue, on_read)
        without = without_event(sorted(offsets), snapshot, after)
    return Inspection(
        user_id=question.user_id,
        source=str(file.path),
        partition=partition,
        at_ms=question.at_ms,
        release=encoder.release,
        half_lives_ms=encoder.half_lives_ms.tolist(),
        weights=recommender.weights,
        snapshot=snapshot,
        without=without,
        notes=[],
    ), catalogue


def _find_user(
    file: LogFile, question: Question, partition: int, left_out: frozenset[int], on_read: OnRead
) -> _FoundUser:
    log = UserLog(question.user_id, clean_rules(file.settings), question.at_ms)
    plan, row_of, offset = file.plan(), dict[int, int](), 0
    for chunk in file.chunks(left_out):
        for number, row in chunk:
            for record in _of_partition(plan.records_of([row]), partition):
                if log.take(offset, record.key, record.value, record.timestamp_ms, record.headers):
                    row_of[offset] = number
                offset += 1
        on_read(f"{plan.counted.num_events:,} rows read for the user")
        if log.is_over:
            break
    else:
        for record in _of_partition(plan.last_ticks(), partition):
            log.take(offset, record.key, record.value, record.timestamp_ms, record.headers)
            offset += 1
    return _FoundUser(log, trace(question.user_id, partition, log.entries, file.settings), row_of)


def _of_partition(records: Iterable[PlannedRecord], partition: int) -> Iterator[PlannedRecord]:
    return (record for record in records if record.partition == partition)


def _snapshot(
    file: LogFile,
    found: _FoundUser,
    left_out: frozenset[int],
    encoder: SliceEncoder,
    catalogue: Catalogue,
    on_read: OnRead,
) -> tuple[Snapshot, Recommender]:
    settings, answered = file.settings, found.traced.answered
    roles = OfflineRoles(settings, encoder, settings.partitions)
    roles.take_availability(catalogue.available)
    rule = list_rule(settings, served_model(settings))
    scoring = OfflineScoring(settings, rule, roles, settings.partitions)
    version = index_version(rule.release, len(roles.index))
    items = KnownItems(version, ItemColumns(roles.index, catalogue.is_available))
    trends, scorer = None, ScorerInForce(rule.scorer)
    if answered is not None:
        assert answered.join_epoch is not None, "every event of a replay is strict"
        walk = _Walk(file, roles, scoring, items, rule.release)
        walk.go_up_to(answered.join_epoch, left_out, on_read)
        trends = roles.trends_at(answered.join_epoch)
        scorer = scoring.in_force(rule.score.joined(answered.join_epoch))
    recommender = Recommender(settings, encoder, roles.index, rule, catalogue.is_available, scorer, version)
    return snapshot_of(found.traced, trends, BY_OWN_EPOCH, recommender, NOTHING_PUBLISHED), recommender


class _Walk:
    """The whole log through the roles, but no list is made."""

    def __init__(
        self, file: LogFile, roles: OfflineRoles, scoring: OfflineScoring, items: KnownItems, release: str
    ) -> None:
        self._file = file
        self._roles = roles
        self._scoring = scoring
        self._items = items
        self._release = release
        self._entries = EntryReader(file.settings.partitions, clean_rules(file.settings))

    def go_up_to(self, epoch: int, left_out: frozenset[int], on_read: OnRead) -> None:
        """Take the log until the trends of `epoch` are complete, and with them what the scorer had learned by then."""
        plan = self._file.plan()
        for chunk in self._file.chunks(left_out):
            self._take(plan.records_of(row for _, row in chunk))
            on_read(f"{plan.counted.num_events:,} rows taken for trends and scorer")
            # Taken in as they are complete, so that few wait in memory.
            if self._roles.trends_at(epoch).epoch >= epoch:
                return
        self._take(plan.last_ticks())

    def _take(self, records: Iterable[PlannedRecord]) -> None:
        for part in self._entries.parts(records):
            self._take_part(part)

    def _take_part(self, entries: Mapping[int, Sequence[Entry]]) -> None:
        roles = self._roles
        cut = [roles.cut(partition, listed) for partition, listed in entries.items()]
        roles.count(record for effects in cut for record in effects.activity)
        vectors = roles.encode(newest_revisions(record for effects in cut for record in effects.slices))
        progress = [effects.progress for effects in cut if effects.progress is not None]
        self._scoring.take(vectors, progress, self._items)
        take_vectors(vectors, roles.profiles, self._release)
