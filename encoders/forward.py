"""The forward pass of training: user vectors at every place that has something to predict.

Shapes: S slices of a batch, L events, U runs, K slices of the longest run, N places with targets, T targets of a
place, D dimensions, R rows of a memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.padded import PaddedSlices
from encoders.sampling import TrainBatch
from encoders.transformer import SliceModel


def batch_outputs(model: SliceModel, batch: TrainBatch, num_targets: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """User vectors (N, D) at every place with a target, `later_targets` (N, T) there, and the reconstruction loss."""
    slices = batch.slices
    if model.memory_enters:
        tokens_SLD, raw_SLD = model.tokens(slices.item_rows_SL, slices.type_rows_SL, slices.gap_rows_SL)
        codes_SD, summary_SX, merged_SRD = _merged(model, batch, tokens_SLD, raw_SLD)
        states_SLD, _ = _states_by_length(model, slices, merged_SRD, batch.ranks_S > 0)
    else:
        states_SLD, raw_SLD = _states_by_length(model, slices)
        codes_SD, summary_SX, merged_SRD = _merged(model, batch, states_SLD, raw_SLD)
    memory_SD = model.memory_vectors(merged_SRD, batch.ranks_S > 0)
    slices_N, places_N = torch.nonzero(batch.target_rows_SL, as_tuple=True)
    memory_ND = None if memory_SD is None else memory_SD[slices_N]
    users_ND = model.user_vectors(states_SLD[slices_N, places_N], memory_ND)
    targets_NT = later_targets(batch, num_targets)[slices_N, places_N]
    return users_ND, targets_NT, model.reconstruction_loss(codes_SD, summary_SX)


def later_targets(batch: TrainBatch, num_targets: int) -> Tensor:
    """(S, L, T) int64 targets of each place and of the T - 1 places after it in the same run; 0 for none.

    Source: the dense all-action objective of PinnerFormer (arXiv 2205.04507), over the next actions only.
    """
    num_places = batch.target_rows_SL.shape[1]
    places_L = torch.arange(num_places, device=batch.target_rows_SL.device)
    real_SL = places_L < batch.slices.lengths_S[:, None]
    own_E = batch.target_rows_SL[real_SL]
    runs_E = batch.runs_S[:, None].expand(-1, num_places)[real_SL]
    columns_TE = [own_E]
    for step in range(1, num_targets):
        ahead_E = F.pad(own_E, (0, step))[step:]
        columns_TE.append(ahead_E * (F.pad(runs_E, (0, step), value=-1)[step:] == runs_E))
    targets_SLT = own_E.new_zeros(*real_SL.shape, num_targets)
    targets_SLT[real_SL] = torch.stack(columns_TE, dim=1)
    return targets_SLT


def _merged(model: SliceModel, batch: TrainBatch, inner_SLD: Tensor, raw_SLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (S, D), summaries (S, X), and the memory before each slice (S, R, D)."""
    pooled, _ = model.pooled(inner_SLD, raw_SLD, batch.slices.lengths_S)
    codes_SD, summary_SX = model.codes(pooled)
    codes_UKD = codes_SD.new_zeros((*batch.ends_ms_UK.shape, codes_SD.shape[1]))
    codes_UKD = codes_UKD.index_put((batch.runs_S, batch.ranks_S), codes_SD)
    merged_UKRD = model.merge(codes_UKD, batch.log_weights_UK, batch.ends_ms_UK)
    return codes_SD, summary_SX, merged_UKRD[batch.runs_S, batch.ranks_S]


def _states_by_length(
    model: SliceModel, slices: PaddedSlices, merged_SRD: Tensor | None = None, has_merged_S: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`SliceModel.states` and raw item embeddings, without paying for the padding of short slices: lengths 1, 2-4 and
    the rest apart.

    Where sessions are short nearly all slices hold one event; padded to 16 they would cost sixteen times.
    """
    num_places = slices.item_rows_SL.shape[1]
    bounds = sorted({min(bound, num_places) for bound in (1, 4, num_places)})
    group_S = torch.searchsorted(torch.tensor(bounds, device=slices.lengths_S.device), slices.lengths_S)
    parts: list[tuple[Tensor, Tensor]] = []
    for group, bound in enumerate(bounds):
        rows_S = group_S == group
        memory = [None if values is None else values[rows_S] for values in (merged_SRD, has_merged_S)]
        states, _, raw = model.states(slices.some(rows_S, bound), *memory)
        missing = (0, 0, 0, num_places - bound)
        parts.append((F.pad(states, missing), F.pad(raw, missing)))
    back_S = torch.argsort(torch.argsort(group_S, stable=True))
    states_SLD, raw_SLD = (torch.cat(values)[back_S] for values in zip(*parts, strict=True))
    return states_SLD, raw_SLD
