"""Ranking quality of a model on events after the split: NDCG@10 over all items the user has not touched.

Shapes: E events, S slices, T validation targets, D dimensions, H half-lives, I named items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from encoders.contract import Float32Array, Float64Array, Int64Array
from encoders.histories import TrainingHistories, next_targets
from encoders.sampling import SliceReader
from encoders.transformer import SliceModel
from encoders.vocabulary import FIRST_NAME_ROW

NDCG_DEPTH = 10
# Slices encoded, and targets ranked, at a time: 20,000 items make 20 MB of scores.
ROWS_AT_A_TIME = 256


@dataclass(frozen=True)
class ValidationPlan:
    """What is judged after every epoch; made once, the same for all epochs.

    Args:
        reader: of whole histories, before and after the split.
        events_T: int64 events whose next item is to be predicted, rising.
        target_rows_T: int64 rows of those next items.
    """

    reader: SliceReader
    events_T: Int64Array
    target_rows_T: Int64Array


def plan_validation(reader: SliceReader, split_ms: int, max_targets: int, seed: int) -> ValidationPlan:
    """Choose the validation targets: next items at or after the split that are new to their user.

    Args:
        reader: of the whole histories.
        split_ms: targets from here on are judged, in milliseconds.
        max_targets: a larger number of targets is sampled down to this one.
        seed: of that sample.
    """
    histories = reader.histories
    targets_E = next_targets(histories, skip_repeats=True)
    events_T = np.flatnonzero((targets_E > 0) & (np.roll(histories.ts_ms_E, -1) >= split_ms))
    if len(events_T) > max_targets:
        generator = np.random.default_rng(seed)
        events_T = np.sort(generator.choice(events_T, max_targets, replace=False))
    return ValidationPlan(reader, events_T, targets_E[events_T])


def ndcg_at_10(ranks_T: Int64Array) -> float:
    """Mean of 1 / log2(rank + 1) over targets ranked 1 to 10, others counting 0; there is one target each.

    >>> ndcg_at_10(np.array([1, 3, 11]))
    0.5
    """
    gains_T = np.where(ranks_T <= NDCG_DEPTH, 1.0 / np.log2(ranks_T + 1.0), 0.0)
    return float(gains_T.mean())


@torch.inference_mode()
def validation_ndcg(model: SliceModel, plan: ValidationPlan) -> float:
    """NDCG@10 of a model over a plan's targets; the model is left in evaluation mode.

    Users are walked whole, with the memory of all their earlier slices however many there are: what the
    model will do in service, not the cut runs it is trained on. O(slices of the users judged).
    """
    model.eval()
    locals_TD, merged_THD, has_merged_T = _judged_inputs(model, plan)
    ranks: list[Int64Array] = []
    for start in range(0, len(plan.events_T), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        memory = model.memory_vectors(torch.from_numpy(merged_THD[rows]), torch.from_numpy(has_merged_T[rows]))
        users = model.user_vectors(torch.from_numpy(locals_TD[rows]), memory)
        scores = (users @ model.items.weight[FIRST_NAME_ROW:].T).numpy()
        ranks.append(_ranks(scores, plan, np.arange(start, start + len(scores))))
    return ndcg_at_10(np.concatenate(ranks))


def _ranks(scores_RI: Float32Array, plan: ValidationPlan, targets_R: Int64Array) -> Int64Array:
    """Rank of each target among the items its user has not touched; ties count against the target."""
    histories = plan.reader.histories
    slices_R = _slices_of(histories, plan.events_T[targets_R])
    users_R = np.searchsorted(histories.user_starts_U1, slices_R, side="right") - 1
    first_R = histories.slice_starts_S1[histories.user_starts_U1[users_R]]
    for row, (first, event) in enumerate(zip(first_R, plan.events_T[targets_R], strict=True)):
        seen = histories.item_rows_E[first : event + 1]
        scores_RI[row, seen[seen >= FIRST_NAME_ROW] - FIRST_NAME_ROW] = -np.inf
    columns_R = plan.target_rows_T[targets_R] - FIRST_NAME_ROW
    own_R1 = scores_RI[np.arange(len(scores_RI)), columns_R][:, None]
    return np.asarray((scores_RI >= own_R1).sum(axis=1), dtype=np.int64)


def _slices_of(histories: TrainingHistories, events: Int64Array) -> Int64Array:
    return np.searchsorted(histories.slice_starts_S1, events, side="right") - 1


def _judged_inputs(
    model: SliceModel, plan: ValidationPlan
) -> tuple[Float32Array, Float32Array, np.typing.NDArray[np.bool_]]:
    """Local states, merged memory and its presence for every target of the plan."""
    histories = plan.reader.histories
    slices_T = _slices_of(histories, plan.events_T)
    users_S = histories.users_of_slices()
    judged_U = np.zeros(histories.num_users, dtype=np.bool_)
    judged_U[users_S[slices_T]] = True
    slices_J = np.flatnonzero(judged_U[users_S])
    place_of_S = np.full(histories.num_slices, -1, dtype=np.int64)
    place_of_S[slices_J] = np.arange(len(slices_J))
    states, codes_JD = _encoded(model, plan.reader, slices_J)
    offsets_J = np.concatenate([[0], np.cumsum(plan.reader.lengths_S[slices_J])])
    places_T = plan.events_T - histories.slice_starts_S1[slices_T]
    locals_TD = states[offsets_J[place_of_S[slices_T]] + places_T]
    half_lives_ms = model.half_lives_ms().numpy().astype(np.float64)
    ranks_S = np.arange(histories.num_slices) - histories.user_starts_U1[users_S]
    merged_JHD = _merged_before(histories, slices_J, ranks_S[slices_J], codes_JD, half_lives_ms)
    return locals_TD, merged_JHD[place_of_S[slices_T]], ranks_S[slices_T] > 0


def _encoded(model: SliceModel, reader: SliceReader, slices_J: Int64Array) -> tuple[Float32Array, Float32Array]:
    """States of all events of the slices, one after the other, and the slices' codes."""
    lengths_J = reader.lengths_S[slices_J]
    offsets_J = np.cumsum(lengths_J) - lengths_J
    states = np.empty((int(lengths_J.sum()), model.dims.dim), dtype=np.float32)
    codes_JD = np.empty((len(slices_J), model.dims.dim), dtype=np.float32)
    by_length = np.argsort(lengths_J, kind="stable")  # so that short slices are padded by little
    for start in range(0, len(slices_J), ROWS_AT_A_TIME):
        rows = by_length[start : start + ROWS_AT_A_TIME]
        padded = reader.padded(slices_J[rows])
        states_SLD, raw_SLD = model.states(padded.item_rows_SL, padded.type_rows_SL, padded.gap_rows_SL)
        pooled, _ = model.pooled(states_SLD, raw_SLD, padded.lengths_S)
        places_L = np.arange(states_SLD.shape[1])
        real_SL = places_L < lengths_J[rows, None]
        states[(offsets_J[rows, None] + places_L)[real_SL]] = states_SLD.numpy()[real_SL]
        codes_JD[rows] = model.codes(pooled)[0].numpy()
    return states, codes_JD


def _merged_before(
    histories: TrainingHistories,
    slices_J: Int64Array,
    ranks_J: Int64Array,
    codes_JD: Float32Array,
    half_lives_ms: Float64Array,
) -> Float32Array:
    """(J, H, D) memory before each slice, by the incremental rule, all users' k-th slices at once."""
    num_slices, dim = codes_JD.shape
    sums_JHD = np.zeros((num_slices, len(half_lives_ms), dim), dtype=np.float32)
    masses_JH = np.zeros((num_slices, len(half_lives_ms)), dtype=np.float32)
    ends_ms_J = histories.slice_ends_ms()[slices_J]
    weights_J = histories.slice_weights_S[slices_J]
    before_JHD = np.zeros_like(sums_JHD)
    by_rank = np.argsort(ranks_J, kind="stable")
    borders = np.flatnonzero(np.diff(ranks_J[by_rank])) + 1
    for same_rank in np.split(by_rank, borders):
        if ranks_J[same_rank[0]]:
            earlier = same_rank - 1
            before_JHD[same_rank] = sums_JHD[earlier] / masses_JH[earlier][:, :, None]
            ages_ms = (ends_ms_J[same_rank] - ends_ms_J[earlier])[:, None]
            keep = np.exp2(-ages_ms / half_lives_ms).astype(np.float32)
            sums_JHD[same_rank] = sums_JHD[earlier] * keep[:, :, None]
            masses_JH[same_rank] = masses_JH[earlier] * keep
        sums_JHD[same_rank] += (weights_J[same_rank, None] * codes_JD[same_rank])[:, None, :]
        masses_JH[same_rank] += weights_J[same_rank, None]
    return before_JHD
