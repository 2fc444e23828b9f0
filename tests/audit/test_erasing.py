"""The audit of users who were erased: counted, gone from what is kept, and with a history of their own afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.audit.held import HeldCounts
from stream_app.audit.repeats import Repeats, slice_output
from stream_app.audit.runs import cut_after
from stream_app.audit.stores import StoreComparison
from stream_app.faustkit import Stored
from stream_app.faustkit.run import Run, part_of
from stream_app.records import ErasedRecord, Erasure, Event, SliceEvent, SliceRecord, encode
from stream_app.settings_rules import clean_rules
from stream_app.tables import PARTITION_KEY, SEQUENCE_TOTALS
from tests.audit.cases import (
    CHANGELOG,
    SETTINGS,
    Record,
    SequenceRole,
    audited,
    new_check,
    new_fold,
    run,
    values,
)
from tests.examples import examples
from tests.stages.cases import Entry, Erase, Tick
from tests.stages.test_erasing import logs_with_erasures

RULES = clean_rules(SETTINGS)
CUTS = st.sets(st.integers(0, 40))


def log_of(made: Sequence[Entry | Erase]) -> Run:
    """The records of a log; what is no event of it is a dead letter. Times are in seconds."""
    records = []
    for offset, entry in enumerate(made):
        value, key = b"{", b"u"
        if isinstance(entry, Event):
            event = Event(user_id=entry.user_id, item_id=entry.item_id, type="click", ts=entry.ts * 1000)
            key, value = entry.user_id.encode(), encode(event)
        elif isinstance(entry, Erase):
            key, value = entry.user_id.encode(), encode(Erasure(user_id=entry.user_id, ts=5))
        records.append(Record(offset, key, value))
    return run(records)


LOGS = (
    logs_with_erasures()
    .filter(lambda made: any(isinstance(entry, Erase) for entry in made))
    .map(lambda made: log_of([entry for entry in made if not isinstance(entry, Tick)]))
)


def held_after(log: Run, cuts: set[int]) -> dict[bytes, Stored]:
    """What the role keeps."""
    role = SequenceRole()
    for part in cut_after(log, cuts):
        role.take(part)
    return role.held


@pytest.mark.slow
@examples(50)  # each example opens a store
@given(LOGS, CUTS, CUTS)
def test_what_was_erased_is_not_missed(log: Run, role_cuts: set[int], cuts: set[int]) -> None:
    held = held_after(log, role_cuts)
    assert audited(log, held, log.next_offset, cuts).breaches == []


def test_a_history_that_outlived_its_erasure_is_named() -> None:
    event, erase = Event(user_id="a", item_id="p", type="click", ts=1), Erase("a")
    log = log_of([event, erase, Event(user_id="b", item_id="p", type="click", ts=2)])
    held, before = held_after(log, set()), held_after(part_of(log, 0, 1), set())
    assert b"a" not in held
    check = audited(log, {**held, b"a": before[b"a"]}, log.next_offset, set())
    assert any("where the user was erased" in breach.expected for breach in check.breaches)
    lost = audited(log, {key: kept for key, kept in held.items() if key != b"b"}, log.next_offset, set())
    assert [breach.seen for breach in lost.breaches] == ["nothing"]


@given(LOGS, CUTS)
def test_kept_counts_and_totals_still_add_up(log: Run, cuts: set[int]) -> None:
    role, counts = SequenceRole(), HeldCounts(new_check(), CHANGELOG, 0)
    for part in cut_after(log, cuts):
        before = dict(role.held)
        changes = role.take(part)
        for key, stored in changes.items():
            counts.take(key, stored.payload, 0)
        for key in before.keys() - role.held.keys():
            counts.take(key, None, 0)
    assert counts.totals is not None
    totals = SEQUENCE_TOTALS.decode(role.held[PARTITION_KEY].payload)
    dropped = sum(counts.dropped.values()) + sum(totals.dropped.values())
    assert counts.applied + totals.applied + dropped + sum(totals.dead_lettered.values()) == len(log)
    assert counts.num_users == len(role.held) - 1


def slice_at(offset: int, item_id: str) -> bytes:
    """The first revision of a user's first slice."""
    event = SliceEvent(item_id, "click", 5, -1)
    return encode(
        SliceRecord(
            user_id="a", seq=0, revision=1, closed=False, fresh=True, events=[event], partition=0, offset=offset
        )
    )


def test_slice_0_behind_an_erasure_is_another_one() -> None:
    erased = encode(ErasedRecord(user_id="a", partition=0, offset=5))

    def breaches(*told: bytes) -> int:
        check = new_check()
        Repeats(check, slice_output).take(run([Record(offset, b"a", value) for offset, value in enumerate(told)]))
        return check.num_breaches

    assert breaches(slice_at(3, "p"), erased, slice_at(7, "q"), erased, slice_at(7, "q")) == 0
    assert breaches(slice_at(3, "p"), slice_at(7, "q"), erased) == 1
    assert breaches(slice_at(3, "p"), erased, slice_at(7, "q"), slice_at(8, "r")) == 1


@dataclass
class Kept:
    """A store with one user, which reflects the changelog up to an offset."""

    changelog_offset: int
    path: Path = Path("store")

    def items(self) -> Iterator[tuple[bytes, Stored]]:
        yield b"a", Stored(1, b"x")

    def get(self, key: bytes) -> Stored | None:
        return dict(self.items()).get(key)


def test_a_store_may_be_behind_a_removal() -> None:
    check, fold = new_check(), new_fold()
    comparison = StoreComparison(check, Kept(0), fold)
    # Compaction has left of the value nothing but its removal.
    comparison.compare()
    fold.take(values([(b"a", None, b"")]))
    comparison.finish()
    assert check.num_breaches == 0


def test_a_store_that_holds_what_the_changelog_removed_is_named() -> None:
    check, fold = new_check(), new_fold()
    comparison = StoreComparison(check, Kept(1), fold)
    fold.take(values([(b"a", 1, b"x"), (b"a", None, b"")]))
    comparison.compare()
    comparison.finish()
    assert [breach.expected for breach in check.breaches] == ["none: the changelog removed it"]
