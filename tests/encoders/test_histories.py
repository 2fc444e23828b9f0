"""Histories, targets, batches and the validation plan, on cases small enough to check by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from encoders.contract import MergeKind
from encoders.forward import batch_outputs, later_targets
from encoders.histories import (
    TrainingHistories,
    first_touches,
    initial_half_lives_ms,
    next_targets,
)
from encoders.sampling import BatchSampler, SliceReader, runs_of_slices
from encoders.validation import ndcg_at_10, plan_validation, validation_ndcg
from encoders.vocabulary import FIRST_NAME_ROW
from tests.encoders.cases import histories_of, made_up_model
from tests.examples import examples

EDGES_MS = (1000, 2000)


def two_users() -> TrainingHistories:
    return histories_of(
        [
            [[(2, 0), (3, 10), (2, 20)], [(4, 1500)]],
            [[(5, 5), (1, 15)], [(5, 25), (6, 35)]],
        ]
    )


@st.composite
def any_histories(draw: st.DrawFn) -> TrainingHistories:
    one_slice = st.lists(st.tuples(st.integers(1, 51), st.integers(0, 50)), min_size=1, max_size=5)
    drawn = draw(st.lists(st.lists(one_slice, min_size=1, max_size=6), min_size=1, max_size=5))
    users = []
    for user in drawn:
        ts_ms = 0
        slices = []
        for one in user:
            events = []
            for row, gap_ms in one:
                ts_ms += gap_ms
                events.append((row, ts_ms))
            slices.append(events)
        users.append(slices)
    return histories_of(users)


def test_targets_by_hand() -> None:
    # Last events predict nothing; item 1 is unknown; 2 and 5 come a second time.
    assert next_targets(two_users(), skip_repeats=True).tolist() == [3, 0, 4, 0, 0, 0, 6, 0]
    assert next_targets(two_users(), skip_repeats=False).tolist() == [3, 2, 4, 0, 0, 5, 6, 0]


@given(any_histories())
def test_first_touches_equal_a_plain_walk(histories: TrainingHistories) -> None:
    seen: set[tuple[int, int]] = set()
    expected = []
    for pair in zip(histories.users_of_events().tolist(), histories.item_rows_E.tolist(), strict=True):
        expected.append(pair not in seen)
        seen.add(pair)
    assert first_touches(histories).tolist() == expected


@given(any_histories(), st.integers(0, 300))
def test_before_keeps_exactly_what_came_before(histories: TrainingHistories, split_ms: int) -> None:
    past = histories.before(split_ms)
    kept_E = histories.ts_ms_E < split_ms
    assert past.item_rows_E.tolist() == histories.item_rows_E[kept_E].tolist()
    users, slices = (
        histories.users_of_events()[kept_E],
        np.repeat(np.arange(histories.num_slices), histories.slice_lengths())[kept_E],
    )
    assert past.num_users == len(set(users.tolist())) and past.num_slices == len(set(slices.tolist()))
    assert np.array_equal(np.unique(users, return_inverse=True)[1], past.users_of_events())
    assert past.before(split_ms).ts_ms_E.tolist() == past.ts_ms_E.tolist()


def test_before_cuts_a_crossing_slice_and_drops_a_later_user() -> None:
    past = two_users().before(5)
    assert (past.num_users, past.num_slices, past.item_rows_E.tolist()) == (1, 1, [2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ts_ms_E": np.array([0, 10, 20, 15, 5, 15, 25, 35])}, "falls within a user's history"),
        ({"event_weights_E": np.zeros(8, dtype=np.float32)}, "expected weights above zero, got 0.0"),
        ({"slice_starts_S1": np.array([0, 3, 3, 6, 8])}, "slice_starts_S1 must rise strictly"),
        ({"user_starts_U1": np.array([0, 2, 5])}, "user_starts_U1 must start at 0 and end at 4"),
        ({"gaps_ms_E": np.zeros(3, dtype=np.int64)}, "gaps_ms_E has 3 events, item_rows_E 8"),
    ],
)
def test_contradictions_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(two_users(), **change)


def test_half_lives_start_at_the_gaps_between_slices() -> None:
    ends_ms = np.cumsum([0, *([10_000] * 40), *([100_000] * 40), *([1_000_000] * 40)]).tolist()
    histories = histories_of([[[(2, ts_ms)] for ts_ms in ends_ms]])
    half_lives_ms = initial_half_lives_ms(histories, 4)
    assert half_lives_ms[:3] == [10_000.0, 100_000.0, 1_000_000.0]
    assert half_lives_ms[3] > 1e12
    assert len(initial_half_lives_ms(histories, 1)) == 1
    lonely = initial_half_lives_ms(histories_of([[[(2, 0)]]]), 4)
    assert all(later >= 2 * earlier for earlier, later in pairwise(lonely))


@given(any_histories(), st.integers(1, 4))
def test_runs_cover_every_slice_once_within_users(histories: TrainingHistories, max_slices: int) -> None:
    runs = runs_of_slices(histories, max_slices).tolist()
    assert [one for first, end in runs for one in range(first, end)] == list(range(histories.num_slices))
    users_S = histories.users_of_slices()
    assert all(0 < end - first <= max_slices and users_S[first] == users_S[end - 1] for first, end in runs)


@settings(deadline=None)
@given(any_histories(), st.integers(1, 30))
def test_an_epoch_asks_for_every_target_once(histories: TrainingHistories, batch_events: int) -> None:
    targets_E = next_targets(histories, skip_repeats=False)
    sampler = BatchSampler(SliceReader(histories, EDGES_MS, 5), targets_E, max_slices=3, batch_events=batch_events)
    if not (targets_E > 0).any():
        assert len(sampler.runs_R2) == 0
        return
    batches = list(sampler.epoch(np.random.default_rng(0), 0.0))
    asked = torch.cat([batch.target_rows_SL[batch.target_rows_SL > 0] for batch in batches])
    assert sorted(asked.tolist()) == sorted(targets_E[targets_E > 0].tolist())
    for batch in batches:
        padded = torch.arange(batch.slices.item_rows_SL.shape[1]) >= batch.slices.lengths_S[:, None]
        assert not batch.slices.item_rows_SL[padded].any() and not batch.target_rows_SL[padded].any()
        assert (batch.slices.item_rows_SL[~padded] > 0).all()


def test_padded_slices_by_hand() -> None:
    padded = SliceReader(two_users(), EDGES_MS, 16).padded(np.array([1, 0]))
    assert padded.item_rows_SL.tolist() == [[4, 0, 0], [2, 3, 2]]
    assert padded.gap_rows_SL.tolist() == [[2, 0, 0], [0, 1, 1]]
    assert padded.lengths_S.tolist() == [1, 3]


def test_contexts_by_hand() -> None:
    # Two events before at most; the second user's first slice has none of the first user's.
    padded = SliceReader(two_users(), EDGES_MS, 16, 2).padded(np.array([0, 1, 2, 3]))
    histories = two_users()
    starts = histories.slice_starts_S1.tolist()
    rows = histories.item_rows_E.tolist()
    first_of_second = starts[int(histories.user_starts_U1[1])]
    expected = []
    for start in starts[:-1]:
        first = first_of_second if start >= first_of_second else 0
        before = rows[max(first, start - 2) : start]
        expected.append([0] * (2 - len(before)) + before)
    assert padded.context_item_rows_SC.tolist() == expected
    assert ((padded.context_type_rows_SC > 0) == (padded.context_item_rows_SC > 0)).all()


def test_later_targets_by_hand() -> None:
    histories = two_users()
    targets_E = next_targets(histories, skip_repeats=False)
    sampler = BatchSampler(SliceReader(histories, EDGES_MS, 5), targets_E, max_slices=9, batch_events=100)
    (batch,) = sampler.epoch(np.random.default_rng(0), 0.0)
    found = later_targets(batch, 3)
    assert found[:, :, 0].tolist() == batch.target_rows_SL.tolist()
    # Users' targets are 3 2 4 0 (sic, nothing behind the last) and 0 5 6 0; the runs are shuffled.
    real_SL = torch.arange(found.shape[1]) < batch.slices.lengths_S[:, None]
    rows = [row.tolist() for row in found[real_SL]]
    first, second = [[3, 2, 4], [2, 4, 0], [4, 0, 0], [0, 0, 0]], [[0, 5, 6], [5, 6, 0], [6, 0, 0], [0, 0, 0]]
    assert rows in (first + second, second + first)


@given(any_histories(), st.integers(1, 40))
def test_the_seen_of_each_target_are_what_its_user_touched_before(
    histories: TrainingHistories, batch_events: int
) -> None:
    targets_E = next_targets(histories, skip_repeats=True)
    assume((targets_E > 0).any())
    sampler = BatchSampler(SliceReader(histories, EDGES_MS, 5), targets_E, max_slices=3, batch_events=batch_events)
    found: list[tuple[int, tuple[int, ...]]] = []
    for batch in sampler.epoch(np.random.default_rng(0), 0.5):
        targets_N = batch.target_rows_SL[batch.target_rows_SL > 0].tolist()
        places_X, rows_X = batch.seen_X2.numpy().T
        assert (np.diff(places_X) >= 0).all()
        found += [(target, tuple(sorted(rows_X[places_X == place]))) for place, target in enumerate(targets_N)]
    users_E = histories.users_of_events()
    expected = []
    for event in np.flatnonzero(targets_E):
        past = histories.item_rows_E[: event + 1][users_E[: event + 1] == users_E[event]]
        expected.append((int(targets_E[event]), tuple(sorted(past[past >= FIRST_NAME_ROW]))))
    assert sorted(found) == sorted(expected)


def test_unknown_items_replace_inputs_but_no_targets() -> None:
    histories = two_users()
    targets_E = next_targets(histories, skip_repeats=True)
    sampler = BatchSampler(SliceReader(histories, EDGES_MS, 16), targets_E, max_slices=24, batch_events=100)
    (batch,) = sampler.epoch(np.random.default_rng(0), 1.0)
    assert set(batch.slices.item_rows_SL.flatten().tolist()) == {0, 1}
    assert sorted(batch.target_rows_SL[batch.target_rows_SL > 0].tolist()) == [3, 4, 6]
    assert set(histories.item_rows_E.tolist()) == {1, 2, 3, 4, 5, 6}


def test_validation_judges_new_items_after_the_split_only() -> None:
    reader = SliceReader(two_users(), EDGES_MS, 16)
    plan = plan_validation(reader, 30, 100, seed=0)
    assert plan.events_T.tolist() == [2, 6] and plan.target_rows_T.tolist() == [4, 6]
    assert plan_validation(reader, 5_000, 100, seed=0).events_T.tolist() == []
    assert len(plan_validation(reader, 0, 2, seed=0).events_T) == 2


def test_ndcg_by_hand() -> None:
    assert ndcg_at_10(np.array([1])) == 1.0
    assert ndcg_at_10(np.array([3, 11])) == pytest.approx((1 / 2 + 0) / 2)


@pytest.mark.parametrize("merge", ["decayed", "concat", "tokens"])
@examples(15)
@given(histories=any_histories())
def test_validation_equals_a_plain_ranking(merge: MergeKind, histories: TrainingHistories) -> None:
    """The incremental, length-sorted walk against the training path's own vectors, ranked one by one."""
    model = made_up_model(seed=3, merge=merge).model
    # Ages from minutes to days, where the model's half-lives lie.
    histories = replace(histories, ts_ms_E=histories.ts_ms_E * 1_000_000)
    reader = SliceReader(histories, model.dims.gap_edges_ms, 16, 16)
    plan = plan_validation(reader, 0, 10_000, seed=0)
    if not len(plan.events_T):
        return
    targets_E = next_targets(histories, skip_repeats=True)
    sampler = BatchSampler(reader, targets_E, max_slices=1000, batch_events=1)
    gains: list[float] = []
    with torch.inference_mode():
        for first, end in sampler.runs_R2.tolist():
            batch = sampler._batch(np.array([[first, end]]), np.random.default_rng(0), 0.0)
            users_ND, targets_NT, _ = batch_outputs(model, batch)
            start, stop = histories.slice_starts_S1[[first, end]].tolist()
            asked = [event for event in range(start, stop) if targets_E[event]]
            for user_D, target, event in zip(users_ND, targets_NT[:, 0].tolist(), asked, strict=True):
                scores = {row: float(user_D @ model.items.weight[row]) for row in range(2, 52)}
                unseen = set(scores) - set(histories.item_rows_E[start : event + 1].tolist())
                rank = sum(scores[row] >= scores[target] for row in unseen)
                gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    assert validation_ndcg(model, plan) == pytest.approx(float(np.mean(gains)), abs=1e-6)
