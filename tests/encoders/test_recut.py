"""Slice borders moved at random where a count alone decided them, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encoders.histories import TrainingHistories, next_targets, recut
from encoders.sampling import BatchSampler, SliceReader
from tests.encoders.cases import histories_of

SLICE_EVENTS = 4
HOUR_MS = 3_600_000


def lengths(histories: TrainingHistories) -> list[list[int]]:
    """The slice lengths of every user."""
    slices = histories.slice_lengths().tolist()
    starts = histories.user_starts_U1.tolist()
    return [slices[first:end] for first, end in pairwise(starts)]


def cut(lengths_of_users: list[list[int]], *, gap_ms: int = 10, pause_ms: int = HOUR_MS) -> TrainingHistories:
    """Slices of these lengths; an event every `gap_ms`, and a pause after every slice that is not full."""
    users = []
    for of_user in lengths_of_users:
        ts_ms, slices = 0, []
        for length in of_user:
            slices.append([(2, ts_ms + place * gap_ms) for place in range(length)])
            ts_ms += length * gap_ms + (0 if length == SLICE_EVENTS else pause_ms)
        users.append(slices)
    return histories_of(users)


any_lengths = st.lists(st.lists(st.integers(1, SLICE_EVENTS), min_size=1, max_size=8), min_size=1, max_size=5)


@given(any_lengths, st.integers(0, 1000))
def test_events_stay_and_slices_stay_short(lengths_of_users: list[list[int]], seed: int) -> None:
    histories = cut(lengths_of_users)
    moved = recut(histories, SLICE_EVENTS, np.random.default_rng(seed))
    assert moved.ts_ms_E is histories.ts_ms_E and moved.item_rows_E is histories.item_rows_E
    assert np.array_equal(moved.users_of_events(), histories.users_of_events())
    assert moved.slice_lengths().max() <= SLICE_EVENTS


@given(any_lengths, st.integers(0, 1000))
def test_borders_in_time_stay(lengths_of_users: list[list[int]], seed: int) -> None:
    histories = cut(lengths_of_users)
    moved = recut(histories, SLICE_EVENTS, np.random.default_rng(seed))
    after_pause_E = np.flatnonzero((histories.gaps_ms_E >= HOUR_MS) | (histories.gaps_ms_E < 0))
    assert set(after_pause_E.tolist()) <= set(moved.slice_starts_S1.tolist())


def test_every_phase_comes_up_and_only_ends_are_short() -> None:
    found = set()
    for seed in range(60):
        (of_user,) = lengths(recut(cut([[4, 4, 4, 2]]), SLICE_EVENTS, np.random.default_rng(seed)))
        assert sum(of_user) == 14 and all(length == 4 for length in of_user[1:-1])
        found.add(tuple(of_user))
    assert found == {(4, 4, 4, 2), (1, 4, 4, 4, 1), (2, 4, 4, 4), (3, 4, 4, 3)}


def test_a_full_slice_before_a_pause_is_no_place_to_cut() -> None:
    """The first slice is full and its gap long at once; the pause is longer than any gap within a slice."""
    histories = cut([[4, 4], [2]])
    later = np.arange(10) >= 4
    paused = replace(
        histories,
        ts_ms_E=np.where(later & (np.arange(10) < 8), histories.ts_ms_E + HOUR_MS, histories.ts_ms_E),
        gaps_ms_E=np.where(np.arange(10) == 4, HOUR_MS, histories.gaps_ms_E),
    )
    for seed in range(20):
        assert lengths(recut(paused, SLICE_EVENTS, np.random.default_rng(seed))) == [[4, 4], [2]]


def test_no_slice_spans_longer_than_any_did() -> None:
    """Events 0 to 3 ms and 1,000 to 1,003 ms: a slice over both would span 1,000 ms, where 900 is the longest."""
    quick = [[(2, ts_ms) for ts_ms in (0, 1, 2, 3)], [(2, ts_ms) for ts_ms in (700, 701, 702, 703)]]
    slow = [[(3, 0), (3, 600)]]
    for seed in range(20):
        assert lengths(recut(histories_of([quick, slow]), SLICE_EVENTS, np.random.default_rng(seed))) == [[4, 4], [2]]
    found = {
        str(lengths(recut(histories_of([quick, [[(3, 0), (3, 900)]]]), SLICE_EVENTS, np.random.default_rng(seed))))
        for seed in range(40)
    }
    assert found == {"[[4, 4], [2]]", "[[1, 4, 3], [2]]", "[[2, 4, 2], [2]]", "[[3, 4, 1], [2]]"}


@given(any_lengths, st.integers(1, 12), st.integers(1, 4))
def test_processes_share_an_epoch_evenly(lengths_of_users: list[list[int]], batch_events: int, num_ranks: int) -> None:
    histories = cut(lengths_of_users)
    targets_E = next_targets(histories, skip_repeats=False)
    if not targets_E.any():
        return
    sampler = BatchSampler(SliceReader(histories, (1000,), 4), targets_E, max_slices=3, batch_events=batch_events)
    whole = [batch.target_rows_SL.tolist() for batch in sampler.epoch(np.random.default_rng(0), 0.0)]
    shares = [
        [
            batch.target_rows_SL.tolist()
            for batch in sampler.epoch(np.random.default_rng(0), 0.0, rank=rank, num_ranks=num_ranks)
        ]
        for rank in range(num_ranks)
    ]
    assert len({len(share) for share in shares}) == 1 and len(shares[0]) <= sampler.num_batches(num_ranks)
    dealt = [share[step] for step in range(len(shares[0])) for share in shares]
    assert dealt[: len(whole)] == whole and all(batch in whole for batch in dealt)
