"""Reading the events once, for everything that is compared with them: the counts, the dead letters, the histories.

It comes after the changelogs: dead letters are published before the changes that count them, and totals with them.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import msgspec

from stream_app.audit.balance import EventCounter, Intake, Sums, judge_intake
from stream_app.audit.dead_letters import DeadLetters
from stream_app.audit.findings import Check
from stream_app.audit.held import newest_position, totals_position
from stream_app.audit.histories import LogFold
from stream_app.audit.read_changelogs import Held
from stream_app.audit.reading import RunsReader
from stream_app.audit.scratch import scratch_table
from stream_app.faustkit.run import Run
from stream_app.records import StatusRecord
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules, sequence_stage
from stream_app.stages.clean import CleanRules
from stream_app.stages.intake import read_record
from stream_app.topics import DEAD_LETTER, EVENTS, ITEM_VECTORS, ITEMS, STATUS, prefixed

_STATUS = msgspec.json.Decoder(StatusRecord)


@dataclass
class EventOutcome:
    """The checks that events are read for."""

    input: Check = field(default_factory=lambda: Check("input", "events = applied + dead letters + drops; missing 0"))
    histories: Check = field(
        default_factory=lambda: Check("histories", "the changelog of user-histories is the fold of the events")
    )
    letters: Check = field(
        default_factory=lambda: Check("dead-letters", "every dead letter names its origin and holds its bytes")
    )
    num_keys: int = 0


class EventsPass:
    """Hands each run of one partition of `events` to all that look at it.

    Args:
        rules: By which events are cleaned.
        counter: Counts events.
        letters: Compares dead letters with their originals.
        letters_up_to: Up to this offset every refused event must have a letter.
        log_fold: Folds the log; None where it cannot be folded.
    """

    def __init__(
        self,
        rules: CleanRules,
        counter: EventCounter,
        letters: DeadLetters,
        letters_up_to: int,
        log_fold: LogFold | None,
    ) -> None:
        self._rules = rules
        self._counter = counter
        self._letters = letters
        self._letters_up_to = letters_up_to
        self._log_fold = log_fold

    def take(self, run: Run) -> None:
        """Take consecutive records."""
        columns = zip(run.keys, run.values, run.timestamps_ms, run.headers, strict=True)
        contents = [read_record(*record, self._rules) for record in columns]
        self._counter.take(run.offsets, contents)
        self._letters.compare(run, contents, self._letters_up_to)
        if self._log_fold is not None:
            self._log_fold.take(run, contents)

    def finish(self) -> None:
        """Everything that is needed was taken."""
        if self._log_fold is not None:
            self._log_fold.finish()


class EventReader:
    """Reads totals, dead letters and events of one namespace.

    Args:
        settings: The settings that the roles run with.
        reader: Reads what was committed.
        held: What the sequence role keeps, by partition.
    """

    def __init__(self, settings: Settings, reader: RunsReader, held: dict[int, Held]) -> None:
        self._settings = settings
        self._reader = reader
        self._held = held
        self._events = prefixed(settings.prefix, EVENTS)
        self._rules = clean_rules(settings)
        self._outcome = EventOutcome()

    async def check(self) -> EventOutcome:
        """Carry out the checks.

        Raises:
            KafkaUnreachableError: The broker does not answer.
            TopicMismatchError: A topic does not exist, or lost records while it was read.
        """
        outcome = self._outcome
        statuses = await self._statuses()
        letters_topic = prefixed(self._settings.prefix, DEAD_LETTER)
        letters_bounds = await self._reader.bounds(letters_topic)
        events = await self._reader.bounds(self._events)
        others = [prefixed(self._settings.prefix, name) for name in (ITEMS, ITEM_VECTORS)]
        ends = {partition: end for partition, (_, end) in events.items()}
        letters = DeadLetters(outcome.letters, letters_topic, self._events, ends, others)
        for partition, (begin, end) in letters_bounds.items():
            async for run in self._reader.runs(letters_topic, partition, begin, end):
                letters.take(run)
        letters_begin = max(begin for begin, _ in letters_bounds.values())
        intakes = []
        for partition, (begin, end) in events.items():
            known = Intake(
                topic=self._events,
                partition=partition,
                begin=begin,
                status=statuses.get(partition),
                letters_begin=letters_begin,
            )
            intakes.append(await self._read(known, end, self._held.pop(partition, None), letters))
        judge_intake(outcome.input, intakes)
        outcome.histories.facts = {"keys": outcome.num_keys}
        outcome.histories.summary = f"{outcome.num_keys:,} keys, {outcome.histories.num_breaches:,} differ"
        outcome.letters.facts = {"letters": letters.num_letters, "originals_removed": letters.num_removed}
        outcome.letters.summary = f"{letters.num_letters:,} dead letters"
        return outcome

    async def _statuses(self) -> dict[int, StatusRecord]:
        topic = prefixed(self._settings.prefix, STATUS)
        newest: dict[int, StatusRecord] = {}
        for partition, (begin, end) in (await self._reader.bounds(topic)).items():
            async for run in self._reader.runs(topic, partition, begin, end):
                # Of each key the last one counts, so only that is decoded.
                last = {key: value for key, value in zip(run.keys, run.values, strict=True) if value is not None}
                statuses = [_STATUS.decode(value) for value in last.values()]
                newest.update((status.partition, status) for status in statuses)
        return newest

    async def _read(self, known: Intake, end: int, held: Held | None, letters: DeadLetters) -> Intake:
        """Read one partition of the events as far as anything is known of it."""
        sums = None if held is None else _sums(held)
        position = -1 if sums is None else sums.position
        counter = EventCounter([position, -1 if known.status is None else known.status.offset])
        letters.skip_removed(known.partition, known.begin)
        with ExitStack() as stack:
            log_fold = self._log_fold(stack, known, held)
            letters_up_to = -1 if known.letters_begin else position
            events = EventsPass(self._rules, counter, letters, letters_up_to, log_fold)
            up_to = max(counter.newest, letters.newest_origin(known.partition), log_fold.newest if log_fold else -1)
            async for run in self._reader.runs(self._events, known.partition, known.begin, min(end, up_to + 1)):
                events.take(run)
            events.finish()
        return replace(
            known,
            committed=None if held is None else held.committed,
            sums=sums,
            num_events=counter.counts(),
            letters=letters.reasons(known.partition, position),
        )

    def _log_fold(self, stack: ExitStack, known: Intake, held: Held | None) -> LogFold | None:
        check = self._outcome.histories
        if held is None:
            return None
        if known.begin:
            why = f"the log begins at offset {known.begin}, and can be folded from its first event only"
            check.leave_out(f"{known.topic}[{known.partition}]", why)
            return None
        self._outcome.num_keys += len(held.fold.entries)
        table = stack.enter_context(scratch_table())
        stage = sequence_stage(self._settings, known.partition)
        return LogFold(check, stage, table, held.fold.topic, held.fold.entries, held.committed or 0)


def _sums(held: Held) -> Sums | None:
    """What the kept values add up to; None where nothing is kept."""
    counts, position = held.counts, totals_position(held.fold)
    if counts.totals is None:
        return None
    return Sums(
        position=position,
        applied=counts.applied + counts.totals.applied,
        dead_lettered=counts.totals.dead_lettered,
        dropped=+(counts.dropped + Counter(counts.totals.dropped)),
        is_settled=held.committed == position + 1 and newest_position(held.fold) <= position,
    )
