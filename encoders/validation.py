"""Ranking quality of a model on events after the split: NDCG@10 over all items the user has not touched.

Shapes: E events, S slices, T validation targets, J slices of the users judged, U users, K slices of
the longest, D dimensions, R rows of a memory, I named items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from encoders.contract import BoolArray, Float32Array, Int64Array
from encoders.histories import TrainingHistories, next_targets
from encoders.sampling import SliceReader
from encoders.transformer import SliceModel
from encoders.vocabulary import FIRST_NAME_ROW

NDCG_DEPTH = 10
# Slices encoded, and targets ranked, at a time: 20,000 items make 20 MB of scores.
ROWS_AT_A_TIME = 256
# Pairs of slices whose shares of a memory are held at a time, for each half-life: 4 MB.
MERGED_AT_A_TIME = 1_000_000


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


def validation_ndcg(model: SliceModel, plan: ValidationPlan) -> float:
    """NDCG@10 of a model over a plan's targets; the model is left in evaluation mode."""
    return ndcg_at_10(validation_ranks(model, plan))


@torch.inference_mode()
def validation_ranks(model: SliceModel, plan: ValidationPlan) -> Int64Array:
    """(T,) int64 rank of each of a plan's targets among the items new to its user; ties count against it.

    Users are walked whole, with the memory of all their earlier slices however many there are: what the
    model will do in service, not the cut runs it is trained on. O(slices of the users judged).
    """
    model.eval()
    device = model.device
    named_ID = model.item_table()[FIRST_NAME_ROW:]
    locals_TD, merged_TRD, has_merged_T = _judged_inputs(model, plan)
    ranks: list[Int64Array] = []
    for start in range(0, len(plan.events_T), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        merged, has_merged, local_states = (
            torch.from_numpy(values[rows]).to(device) for values in (merged_TRD, has_merged_T, locals_TD)
        )
        users = model.user_vectors(local_states, model.memory_vectors(merged, has_merged))
        scores = (users @ named_ID.T).cpu().numpy()
        ranks.append(_ranks(scores, plan, np.arange(start, start + len(scores))))
    return np.concatenate(ranks)


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


def _judged_inputs(model: SliceModel, plan: ValidationPlan) -> tuple[Float32Array, Float32Array, BoolArray]:
    """Local states, merged memory and its presence for every target of the plan."""
    histories = plan.reader.histories
    slices_T = _slices_of(histories, plan.events_T)
    users_S = histories.users_of_slices()
    judged_U = np.zeros(histories.num_users, dtype=np.bool_)
    judged_U[users_S[slices_T]] = True
    slices_J = np.flatnonzero(judged_U[users_S])
    place_of_S = np.full(histories.num_slices, -1, dtype=np.int64)
    place_of_S[slices_J] = np.arange(len(slices_J))
    ranks_S = np.arange(histories.num_slices) - histories.user_starts_U1[users_S]
    states, codes_JD = _encoded(model, plan.reader, slices_J)
    merged_JRD = memory_before(model, plan.reader, slices_J, codes_JD)
    if model.memory_enters:
        states, _ = _encoded(model, plan.reader, slices_J, merged_JRD, ranks_S[slices_J] > 0)
    offsets_J = np.concatenate([[0], np.cumsum(plan.reader.lengths_S[slices_J])])
    places_T = plan.events_T - histories.slice_starts_S1[slices_T]
    locals_TD = states[offsets_J[place_of_S[slices_T]] + places_T]
    return locals_TD, merged_JRD[place_of_S[slices_T]], ranks_S[slices_T] > 0


def _encoded(
    model: SliceModel,
    reader: SliceReader,
    slices_J: Int64Array,
    merged_JRD: Float32Array | None = None,
    has_merged_J: BoolArray | None = None,
) -> tuple[Float32Array, Float32Array]:
    """States of all events of the slices, one after the other, and the slices' codes."""
    lengths_J = reader.lengths_S[slices_J]
    offsets_J = np.cumsum(lengths_J) - lengths_J
    states = np.empty((int(lengths_J.sum()), model.dims.dim), dtype=np.float32)
    codes_JD = np.empty((len(slices_J), model.dims.dim), dtype=np.float32)
    by_length = np.argsort(lengths_J, kind="stable")  # so that short slices are padded by little
    for start in range(0, len(slices_J), ROWS_AT_A_TIME):
        rows = by_length[start : start + ROWS_AT_A_TIME]
        padded = reader.padded(slices_J[rows]).to(model.device)
        memory = [
            None if values is None else torch.from_numpy(values[rows]).to(model.device)
            for values in (merged_JRD, has_merged_J)
        ]
        states_SLD, tokens_SLD, raw_SLD = model.states(padded, *memory)
        pooled, _ = model.pooled(tokens_SLD if model.memory_enters else states_SLD, raw_SLD, padded.lengths_S)
        places_L = np.arange(states_SLD.shape[1])
        real_SL = places_L < lengths_J[rows, None]
        states[(offsets_J[rows, None] + places_L)[real_SL]] = states_SLD.cpu().numpy()[real_SL]
        codes_JD[rows] = model.codes(pooled)[0].cpu().numpy()
    return states, codes_JD


def memory_before(model: SliceModel, reader: SliceReader, slices_J: Int64Array, codes_JD: Float32Array) -> Float32Array:
    """(J, R, D) memory before each slice, by the merge as it is trained.

    Args:
        model: in evaluation mode.
        reader: of the histories.
        slices_J: all slices of some users, rising.
        codes_JD: their codes.
    """
    users_J = reader.histories.users_of_slices()[slices_J]
    starts_U = np.flatnonzero(np.concatenate([[True], np.diff(users_J) != 0]))[: len(users_J)]
    nums_U = np.diff(np.append(starts_U, len(users_J)))
    merged_JRD = np.zeros((len(slices_J), model.dims.num_memory_rows, model.dims.dim), dtype=np.float32)
    by_length = np.argsort(nums_U, kind="stable")
    while len(by_length):
        # As many users as fit, the longest first: merging them costs their number times the square of that length.
        longest = int(nums_U[by_length[-1]])
        num_users = max(1, MERGED_AT_A_TIME // longest**2)
        chosen_U, by_length = by_length[-num_users:], by_length[:-num_users]
        places_UK = starts_U[chosen_U, None] + np.minimum(np.arange(longest), nums_U[chosen_U, None] - 1)
        slices_UK = slices_J[places_UK]
        inputs = (codes_JD[places_UK], np.log(reader.weights_S[slices_UK]), reader.ends_ms_S[slices_UK])
        merged_UKRD = model.merge(*(torch.from_numpy(values).to(model.device) for values in inputs))
        real_UK = np.arange(longest) < nums_U[chosen_U, None]
        merged_JRD[places_UK[real_UK]] = merged_UKRD.cpu().numpy()[real_UK]
    return merged_JRD
