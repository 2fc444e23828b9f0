"""Made-up records for the checks of the audit, and a sequence role over them without Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stream_app.agents.sequence import SequenceProcessor, SequenceTopics
from stream_app.audit.changelogs import Entries, PartitionFold, entry_of
from stream_app.audit.findings import Check
from stream_app.audit.histories import LogFold
from stream_app.audit.runs import cut_after
from stream_app.audit.scratch import scratch_table
from stream_app.faustkit import OutRecord, Stored
from stream_app.faustkit.run import Run, run_of
from stream_app.faustkit.store import seal
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules, sequence_stage
from stream_app.stages.intake import read_record

EVENTS = "events"
LETTERS = "events-dead-letter"
CHANGELOG = "user-histories-changelog"
SETTINGS = Settings(slice_events=3, slice_gap_s=10.0, slice_span_s=20.0, history_events=9, allowed_lateness_s=4.0)
TOPICS = SequenceTopics("slices", "item-activity", LETTERS, "status", 1)


class Record(NamedTuple):
    """A record as a run is made of it."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp: int = 2_000_000_000_000


def run(records: Sequence[Record], topic: str = EVENTS, partition: int = 0) -> Run:
    """Records in one run."""
    return run_of(topic, partition, records)


def values(changes: Iterable[tuple[bytes, int | None, bytes]], topic: str = CHANGELOG) -> Run:
    """Changelog records at offsets 0, 1, ...: key, position (None: a deletion) and payload."""
    records = [
        Record(offset, key, None if position is None else seal(position, payload))
        for offset, (key, position, payload) in enumerate(changes)
    ]
    return run(records, topic)


def new_check() -> Check:
    """A check without any finding."""
    return Check("check", "a promise")


def new_fold(check: Check | None = None) -> PartitionFold:
    """A fold that has taken nothing."""
    return PartitionFold(check or new_check(), CHANGELOG, 0)


def entries(held: Mapping[bytes, Stored]) -> Entries:
    """What a fold knows of these values."""
    return {key: entry_of(stored) for key, stored in held.items()}


@dataclass
class SequenceRole:
    """The processor of the sequence role over one partition, with a table in memory."""

    settings: Settings = SETTINGS
    held: dict[bytes, Stored] = field(default_factory=dict)
    outputs: list[OutRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._processor = SequenceProcessor(sequence_stage(self.settings, 0), clean_rules(self.settings), TOPICS)
        self._processor.restore([])

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """The values of `keys`."""
        return [self.held.get(key) for key in keys]

    def take(self, taken: Run) -> dict[bytes, Stored]:
        """Process a run and keep what it changes; the changes."""
        effects = asyncio.run(self._processor.process(taken, self))
        self.held.update(effects.changes)
        for key in effects.removed:
            self.held.pop(key, None)
        self.outputs += effects.outputs
        return dict(effects.changes)

    def letters(self) -> list[Record]:
        """The dead letters so far, as they lie on their topic."""
        letters = [one for one in self.outputs if one.topic == LETTERS]
        return [Record(offset, one.key, one.value, one.headers) for offset, one in enumerate(letters)]


def audited(log: Run, held: dict[bytes, Stored], committed: int, cuts: Iterable[int]) -> Check:
    """The findings about what a role held after a log of `events`."""
    check, rules = new_check(), clean_rules(SETTINGS)
    with scratch_table() as table:
        fold = LogFold(check, sequence_stage(SETTINGS, 0), table, CHANGELOG, entries(held), committed)
        for part in cut_after(log, cuts):
            columns = zip(part.keys, part.values, part.timestamps_ms, part.headers, strict=True)
            fold.take(part, [read_record(*record, rules) for record in columns])
        fold.finish()
    return check
