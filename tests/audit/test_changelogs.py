"""Folding changelogs: recovery is the oracle; what goes back is named."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.audit.changelogs import PartitionFold
from stream_app.audit.held import HeldCounts, newest_position, totals_position
from stream_app.faustkit.changelog import OWNER_HEADER, ChangelogFold
from stream_app.faustkit.ownership import OWNER_KEY
from stream_app.faustkit.store import PartitionStore, StoreMemory
from stream_app.stages.sequence import PartitionTotals
from stream_app.stages.slicing import UserHistory
from stream_app.tables import PARTITION_KEY, encode_value
from tests.audit.cases import CHANGELOG, Record, entries, new_check, new_fold, run, values

Change = tuple[bytes, int | None, bytes]

KEYS = st.sampled_from([b"a", b"b", b"c"])
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.integers(0, 20), st.binary(max_size=3)), min_size=1, max_size=25)


def mark(offset: int, epoch: int, producer_id: int = 7, header: bytes | None = None) -> Record:
    """The record by which an owner claims the partition."""
    value = b'{"producer_id":%d,"epoch":%d}' % (producer_id, epoch)
    return Record(offset, OWNER_KEY, value, [(OWNER_HEADER, b"%d" % epoch if header is None else header)])


@settings(deadline=None)  # each example opens a store
@given(CHANGES)
def test_the_fold_is_what_recovery_makes_of_it(changes: list[Change]) -> None:
    fold = new_fold()
    fold.take(values(changes))
    with tempfile.TemporaryDirectory() as folder:
        store = PartitionStore(Path(folder) / "0", StoreMemory(1024 * 1024))
        ChangelogFold(store).apply(values(changes))
        held = dict(store.items())
        store.close()
    assert fold.entries == entries(held)


@given(CHANGES)
def test_every_position_that_goes_back_is_named_and_nothing_else(changes: list[Change]) -> None:
    greatest: dict[bytes, int] = {}
    expected = []
    for offset, (key, position, _) in enumerate(changes):
        if position is None:
            greatest.pop(key, None)
        elif position < greatest.get(key, 0):
            expected.append((offset, repr(key.decode())))
        else:
            greatest[key] = position
    check = new_check()
    new_fold(check).take(values(changes))
    assert check.num_breaches == len(expected)
    assert [(breach.offset, breach.key) for breach in check.breaches] == expected[:10]


def test_marks_are_no_values_and_growing_generations_pass() -> None:
    check = new_check()
    fold = new_fold(check)
    fold.take(run([mark(0, 0), mark(1, 1), mark(2, 4), mark(3, 0, producer_id=9), mark(4, 1, producer_id=9)]))
    assert (check.num_breaches, fold.entries, fold.generations.num_marks) == (0, {}, 5)


@pytest.mark.parametrize(
    ("records", "offset"),
    [
        ([mark(0, 3), mark(1, 2)], 1),
        ([mark(0, 3), mark(1, 0, producer_id=9), mark(2, 4)], 2),
        ([mark(0, 3, header=b"2")], 0),
        ([Record(0, OWNER_KEY, b"{", [(OWNER_HEADER, b"1")])], 0),
        ([Record(5, None, b"12345678")], 5),
        ([Record(5, b"k", b"1234567")], 5),
    ],
)
def test_what_no_owner_writes_is_named(records: list[Record], offset: int) -> None:
    check = new_check()
    new_fold(check).take(run(records, CHANGELOG))
    (breach,) = check.breaches
    assert (breach.topic, breach.partition, breach.offset) == (CHANGELOG, 0, offset)


def history(applied: int, next_seq: int = 1, **dropped: int) -> bytes:
    """The bytes of a history with these counts."""
    return encode_value(UserHistory(next_seq=next_seq, applied=applied, dropped=dropped))


def test_counts_are_summed_over_the_newest_histories() -> None:
    check = new_check()
    counts = HeldCounts(check, CHANGELOG, 0)
    fold = PartitionFold(check, CHANGELOG, 0, [counts])
    totals = encode_value(PartitionTotals(dead_lettered={"not_json": 2}))
    fold.take(
        values(
            [
                (b"a", 1, history(1)),
                (b"b", 2, history(1, duplicate=1)),
                (b"a", 4, history(3, late_too_old=1)),
                (b"b", 4, history(1, duplicate=3)),
                (PARTITION_KEY, 5, totals),
                (b"c", 3, history(7)),
                (b"c", None, b""),
            ]
        )
    )
    assert (check.num_breaches, counts.applied, +counts.dropped) == (0, 4, {"duplicate": 3, "late_too_old": 1})
    assert counts.totals == PartitionTotals(dead_lettered={"not_json": 2})
    assert (totals_position(fold), newest_position(fold)) == (5, 5)


@pytest.mark.parametrize("later", [history(1), history(2, next_seq=0), history(2, duplicate=1), b"\xc1"])
def test_counts_that_go_back_are_named(later: bytes) -> None:
    check = new_check()
    fold = PartitionFold(check, CHANGELOG, 0, [HeldCounts(check, CHANGELOG, 0)])
    fold.take(values([(b"a", 1, history(2, duplicate=2)), (b"a", 4, later)]))
    (breach,) = check.breaches
    assert (breach.offset, breach.key) == (1, "'a'")
