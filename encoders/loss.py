"""Training objectives over the tied output layer: full softmax for small vocabularies, sampled ones for large.

Shapes: N places, T targets of a place, D dimensions, V rows of the item table, M sampled negatives, P pairs of a place
and one of its targets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.vocabulary import FIRST_NAME_ROW

# 512 rows of logits over 50,000 items are 100 MB: the most that is held at any time.
LOGIT_ROWS = 512
# Logit of what takes no part.
HIDDEN = -1e30


class _FullSoftmax(torch.autograd.Function):
    """Cross-entropy whose gradient is made in the forward pass, so that logits live for one block only.

    The products with all items are taken in the dtype given; whatever is summed over blocks or items is float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users_ND: Tensor,
        items_VD: Tensor,
        targets_NT: Tensor,
        weights_NT: Tensor,
        seen_X2: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        num_places = users_ND.shape[0]
        # The targets' own part is taken apart, so that no more than three passes over the logits are needed.
        own_ND = torch.einsum("nt,ntd->nd", weights_NT, items_VD[targets_NT])
        total = -(users_ND * own_ND).sum(dtype=torch.float64)
        grad_users_ND = -own_ND
        shares_NTD = weights_NT[:, :, None] * users_ND[:, None]
        grad_items_VD = torch.zeros_like(items_VD).index_add_(0, targets_NT.flatten(), -shares_NTD.flatten(0, 1))
        items_VD = items_VD.to(dtype)
        # One buffer for all blocks, worked on in place: fresh pages would cost as much as the products.
        buffer = items_VD.new_empty((min(LOGIT_ROWS, num_places), items_VD.shape[0]))
        for start in range(0, num_places, LOGIT_ROWS):
            users = users_ND[start : start + LOGIT_ROWS]
            logits = torch.mm(users.to(dtype), items_VD.T, out=buffer[: users.shape[0]])
            logits[_seen_in(seen_X2, start, users.shape[0])] = HIDDEN
            top = logits.amax(1, keepdim=True)
            powers = logits.sub_(top).exp_()
            mass = powers.sum(1, keepdim=True, dtype=torch.float32)
            total += (mass.log() + top).sum()
            grad_users_ND[start : start + LOGIT_ROWS] += (powers @ items_VD) / mass
            grad_items_VD += powers.T @ (users / mass).to(dtype)
        ctx.save_for_backward(grad_users_ND, grad_items_VD)
        ctx.num_places = num_places
        return (total / num_places).float()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_users_ND, grad_items_VD = ctx.saved_tensors
        scale = grad_outputs[0] / ctx.num_places
        return grad_users_ND * scale, grad_items_VD * scale, None, None, None, None


def _seen_in(seen_X2: Tensor, start: int, num_places: int) -> tuple[Tensor, Tensor]:
    """Places, from `start` on, and items of the seen pairs of a block of places."""
    bounds = torch.searchsorted(
        seen_X2[:, 0].contiguous(), torch.tensor([start, start + num_places]).to(seen_X2.device)
    )
    part_X2 = seen_X2[bounds[0] : bounds[1]]
    return part_X2[:, 0] - start, part_X2[:, 1]


def full_softmax_loss(
    users_ND: Tensor, item_table_VD: Tensor, target_rows_NT: Tensor, seen_X2: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the targets among all named items; padding and unknown cannot be predicted.

    Under autocast its products are taken in bfloat16.

    Args:
        users_ND: float32 user vectors, N at least 1.
        item_table_VD: float32, the whole item table.
        target_rows_NT: int64 rows of the table, or 0 for none; each place has one at least. Several targets of a
            place count as one between them.
        seen_X2: int64 pairs of a place, rising, and the row of an item that does not compete there: one that the user
            has touched, which no list would offer. Never a place's own target.

    Returns:
        A scalar. O(N·V·D) time, O(V·D) memory: see `LOGIT_ROWS`.
    """
    device_type = users_ND.device.type
    dtype = torch.bfloat16 if torch.is_autocast_enabled(device_type) else torch.float32
    with torch.autocast(device_type, enabled=False):
        loss: Tensor = _FullSoftmax.apply(
            users_ND.float(),
            item_table_VD[FIRST_NAME_ROW:].float(),
            (target_rows_NT - FIRST_NAME_ROW).clamp_min(0),
            target_weights(target_rows_NT),
            target_rows_NT.new_zeros((0, 2)) if seen_X2 is None else seen_X2 - seen_X2.new_tensor([0, FIRST_NAME_ROW]),
            dtype,
        )
    return loss


def target_weights(target_rows_NT: Tensor) -> Tensor:
    """(N, T) float32: the targets of a place share a weight of 1 evenly; 0 where there is none."""
    has_target_NT = target_rows_NT > 0
    return has_target_NT / has_target_NT.sum(1, keepdim=True)


def proposal_shares(target_counts_V: Tensor) -> Tensor:
    """How often each row is drawn as a negative: half by popularity to the power 0.75, half evenly.

    Args:
        target_counts_V: float64 counts of the targets by row of the item table.

    Returns:
        (V,) float64 that sums to one; zero for padding and unknown.

    Source: popularity to the power 0.75 from word2vec (arXiv 1310.4546); the even half keeps items that
    were never a target from drifting.
    """
    powered_V = target_counts_V.clamp_min(0).pow(0.75)
    even_V = torch.ones_like(powered_V)
    for shares in (powered_V, even_V):
        shares[:FIRST_NAME_ROW] = 0
    return 0.5 * powered_V / powered_V.sum() + 0.5 * even_V / even_V.sum()


def sampled_softmax_loss(
    users_ND: Tensor, item_table_VD: Tensor, target_rows_NT: Tensor, negative_rows_M: Tensor, log_shares_V: Tensor
) -> Tensor:
    """Mean cross-entropy of each target among shared negatives, with log-q correction.

    Args:
        users_ND: float32 user vectors, N at least 1.
        item_table_VD: float32, the whole item table.
        target_rows_NT: as for `full_softmax_loss`.
        negative_rows_M: int64 rows drawn with the shares given; a negative that is the target itself is left out of
            its sum.
        log_shares_V: float32 logarithm of the share with which a row is drawn.

    Returns:
        A scalar. O(N·T·M·D).

    Source: Bengio & Senécal 2008 (adaptive importance sampling); with the target kept apart as in
    arXiv 2507.09331, its own logit is not corrected.
    """
    pairs = _pairs(users_ND, item_table_VD, target_rows_NT, negative_rows_M)
    log_expected_M = log_shares_V[negative_rows_M] + math.log(len(negative_rows_M))
    negative_PM = (pairs.negative_PM - log_expected_M).masked_fill(pairs.is_own_PM, HIDDEN)
    logits = torch.cat([pairs.positive_P[:, None], negative_PM], dim=1)
    losses_P = logits.logsumexp(1) - pairs.positive_P
    return (losses_P * pairs.weights_P).sum() / len(users_ND)


def calibrated_bce_loss(
    users_ND: Tensor, item_table_VD: Tensor, target_rows_NT: Tensor, negative_rows_M: Tensor, calibration: float
) -> Tensor:
    """Generalised binary cross-entropy (gBCE) of each target against shared negatives.

    With a share a of the other items drawn as negatives and ``b = 1 - t (1 - a)``, the loss of a target is
    ``-(b log s(x) + sum over its negatives of log (1 - s(y))) / (1 + number of negatives)``, where s is the logistic
    function, x the logit of the target and y that of a negative.

    Args:
        users_ND: float32 user vectors, N at least 1.
        item_table_VD: float32, the whole item table.
        target_rows_NT: as for `full_softmax_loss`.
        negative_rows_M: int64 rows drawn evenly; a negative that is the target itself is left out.
        calibration: t, from 0 (plain binary cross-entropy) to 1 (as if nothing had been left out).

    Returns:
        A scalar. O(N·T·M·D).

    Source: gSASRec, arXiv 2308.07192, equations 10 and 13.
    """
    pairs = _pairs(users_ND, item_table_VD, target_rows_NT, negative_rows_M)
    share = min(1.0, len(negative_rows_M) / (len(item_table_VD) - FIRST_NAME_ROW - 1))
    power = 1.0 - calibration * (1.0 - share)
    negatives_P = (F.softplus(pairs.negative_PM) * ~pairs.is_own_PM).sum(1)
    losses_P = (power * F.softplus(-pairs.positive_P) + negatives_P) / (1 + (~pairs.is_own_PM).sum(1))
    return (losses_P * pairs.weights_P).sum() / len(users_ND)


@dataclass(frozen=True)
class _Pairs:
    """Logits of each place's targets, one pair after the other (P), and of the negatives (M) beside each."""

    positive_P: Tensor
    negative_PM: Tensor
    is_own_PM: Tensor
    weights_P: Tensor


def _pairs(users_ND: Tensor, item_table_VD: Tensor, target_rows_NT: Tensor, negative_rows_M: Tensor) -> _Pairs:
    places_P, columns_P = torch.nonzero(target_rows_NT, as_tuple=True)
    targets_P = target_rows_NT[places_P, columns_P]
    return _Pairs(
        (users_ND[places_P] * item_table_VD[targets_P]).sum(1).float(),
        (users_ND @ item_table_VD[negative_rows_M].T).float()[places_P],
        negative_rows_M[None] == targets_P[:, None],
        target_weights(target_rows_NT)[places_P, columns_P],
    )
