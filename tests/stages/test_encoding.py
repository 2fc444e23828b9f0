"""From slice records to arrays and user vectors: nothing that asks for a list is lost on the way."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import SliceEvent, SliceRecord, unpack_vector
from stream_app.stages.encoding import arrays_of, merge, newest_revisions, slice_weight, unpacked, vector_record
from stream_app.stages.merging import DecayedSums, UserMemory
from tests.stages.cases import Entry, Worker, asked, logs, newest

WEIGHTS = {"buy": 3.0}
DIM = 2
DECAYED = DecayedSums(np.array([20.0, 500.0]), DIM)


def record(seq: int, revision: int, offset: int, *, fresh: bool = False, **changes: object) -> SliceRecord:
    """A slice record in few words."""
    made = SliceRecord(
        user_id="a",
        seq=seq,
        revision=revision,
        closed=False,
        fresh=fresh,
        events=[SliceEvent("p", "click", 10 * offset, -1)],
        partition=0,
        offset=offset,
    )
    return msgspec.structs.replace(made, **changes)


def codes_of(records: list[SliceRecord]) -> npt.NDArray[np.float32]:
    """A stand-in for the encoder: a code that is a function of the events alone, shape (S, D)."""
    codes = [[sum(event.ts for event in r.events) / 100, float(len(r.events))] for r in records]
    return np.array(codes, dtype=np.float32).reshape(-1, DIM)


def test_the_newest_revision_keeps_asking_for_the_list_an_older_one_asked_for() -> None:
    # The event of revision 1 asks; revision 2 only closes the slice, and comes in the same run.
    kept = newest_revisions([record(0, 1, 5, fresh=True, join_epoch=7), record(0, 2, 5, closed=True), record(1, 1, 4)])
    assert [(r.seq, r.revision, r.closed, r.fresh, r.join_epoch) for r in kept] == [
        (1, 1, False, False, None),
        (0, 2, True, True, 7),
    ]


def test_a_newer_revision_that_asks_itself_says_by_which_epoch() -> None:
    older, newer = record(0, 1, 5, fresh=True, join_epoch=7), record(0, 2, 8, fresh=True, join_epoch=9)
    assert newest_revisions([older, newer]) == [newer]
    assert newest_revisions([newer, older, older]) == [newer]


def test_users_do_not_hide_each_other() -> None:
    records = [record(0, 2, 5), record(0, 1, 6, user_id="b")]
    assert newest_revisions(records) == records
    assert newest_revisions([]) == []


@given(logs(), st.sets(st.integers(1, 29), max_size=8), st.sets(st.integers(1, 60), max_size=8))
def test_coalescing_loses_neither_slices_nor_lists(log: list[Entry], cuts: set[int], more: set[int]) -> None:
    slices = Worker().run_all(log, cuts).slices
    bounds = [0, *sorted(cut for cut in more if cut < len(slices)), len(slices)]
    kept = [part for start, end in pairwise(bounds) for part in newest_revisions(slices[start:end])]
    assert newest(kept) == newest(slices)
    assert asked(kept) == asked(slices)


def memories_after(slices: list[SliceRecord], bounds: list[int]) -> dict[str, UserMemory]:
    """The memories after the slices, read in runs."""
    memories: dict[str, UserMemory] = {}
    for start, end in pairwise(bounds):
        run = newest_revisions(slices[start:end])
        codes_SD = codes_of(run)
        merge(run, codes_SD, -codes_SD, memories, WEIGHTS, DECAYED)
    return memories


@given(logs(), st.sets(st.integers(1, 29), max_size=8), st.sets(st.integers(1, 60), max_size=8))
def test_the_merged_vectors_do_not_depend_on_runs(log: list[Entry], cuts: set[int], more: set[int]) -> None:
    one_by_one, in_runs = Worker().run_all(log, range(30)).slices, Worker().run_all(log, cuts).slices
    straight = memories_after(one_by_one, list(range(len(one_by_one) + 1)))
    bounds = [0, *sorted(cut for cut in more if cut < len(in_runs)), len(in_runs)]
    coalesced = memories_after(in_runs, bounds)
    assert coalesced.keys() == straight.keys()
    for user_id, memory in straight.items():
        other = coalesced[user_id]
        # The code is a function of the slice: revisions that only close it have the same one.
        assert memory.newest is not None and other.newest is not None
        assert other.newest.seq == memory.newest.seq
        assert other.newest.code == memory.newest.code
        assert other.num_merged == memory.num_merged
        merged, expected = DECAYED.read(other.state), DECAYED.read(memory.state)
        np.testing.assert_allclose(merged, expected, rtol=1e-3, atol=1e-3)


def test_merging_gives_the_state_after_each_slice_and_leaves_repeats_out() -> None:
    records = [record(0, 1, 1), record(1, 1, 2), record(0, 1, 1)]
    codes_SD = np.array([[1.0, 2.0], [5.0, 6.0], [1.0, 2.0]], dtype=np.float32)
    memories: dict[str, UserMemory] = {}
    users = merge(records, codes_SD, -codes_SD, memories, WEIGHTS, DECAYED)
    assert [user.record.seq for user in users] == [0, 1]
    assert users[0].merged_RD.tolist() == [[0.0, 0.0]] * 2
    assert users[1].merged_RD.tolist() == [[1.0, 2.0]] * 2
    assert [user.num_merged for user in users] == [0, 1]
    assert [user.local_D.tolist() for user in users] == [[-1.0, -2.0], [-5.0, -6.0]]
    made = vector_record(users[1], np.array([7.0, 8.0], dtype=np.float32), "r1")
    assert unpack_vector(made.slice_vector).tolist() == [5.0, 6.0]
    assert unpack_vector(made.user_vector).tolist() == [7.0, 8.0]
    assert (made.items, made.last_ts, made.offset, made.num_slices_merged) == (["p"], 20, 2, 1)


def rows_of(texts: list[str]) -> npt.NDArray[np.int64]:
    """A row for each text: its length."""
    return np.array([len(text) for text in texts], dtype=np.int64)


def numbered(numbers: range) -> list[SliceEvent]:
    """Events that tell their number: n + 1 is the item's row, n + 2 the type's, 100 + n the gap."""
    return [SliceEvent("i" * (n + 1), "t" * (n + 2), n, 100 + n) for n in numbers]


@pytest.mark.parametrize("context_events", [0, 3])
@given(sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=5))
def test_arrays_hold_the_newest_events_and_those_before_them(context_events: int, sizes: list[tuple[int, int]]) -> None:
    records = [
        record(seq, 1, seq, before=numbered(range(num)), events=numbered(range(num, num + length)))
        for seq, (num, length) in enumerate(sizes)
    ]
    arrays = arrays_of(records, 4, context_events, rows_of, rows_of)
    assert arrays.lengths_S.tolist() == [min(4, length) for _, length in sizes]
    for place, (num, length) in enumerate(sizes):
        own = list(range(num + length))[num:][-4:]
        before = list(range(own[0]))[max(0, own[0] - context_events) :]
        behind, front = [0] * (4 - len(own)), [0] * (context_events - len(before))
        assert arrays.item_rows_SL[place].tolist() == [n + 1 for n in own] + behind
        assert arrays.type_rows_SL[place].tolist() == [n + 2 for n in own] + behind
        assert arrays.gaps_ms_SL[place].tolist() == [100 + n for n in own] + behind
        assert arrays.context_item_rows_SC[place].tolist() == front + [n + 1 for n in before]
        assert arrays.context_type_rows_SC[place].tolist() == front + [n + 2 for n in before]
        assert arrays.context_gaps_ms_SC[place].tolist() == front + [100 + n for n in before]
    again = unpacked(arrays.packed(), 4, context_events)
    assert all(np.array_equal(value, vars(arrays)[name]) for name, value in vars(again).items())


def test_a_slice_weighs_what_its_events_weigh() -> None:
    events = [SliceEvent("p", "buy", 1, -1), SliceEvent("q", "look", 2, 1)]
    assert slice_weight(record(0, 1, 1, events=events), WEIGHTS) == pytest.approx(4.0)
