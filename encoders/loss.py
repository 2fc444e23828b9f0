"""Training objectives over the tied output layer: full softmax for small vocabularies, sampled for large.

Shapes: N targets, D dimensions, V rows of the item table, M sampled negatives.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.vocabulary import FIRST_NAME_ROW

# 512 rows of logits over 50,000 items are 100 MB: the most that is held at any time.
LOGIT_ROWS = 512


class _FullSoftmax(torch.autograd.Function):
    """Cross-entropy whose gradient is made in the forward pass, so that logits live for one block only."""

    @staticmethod
    def forward(ctx: Any, users_ND: Tensor, items_VD: Tensor, targets_N: Tensor) -> Tensor:
        num_targets = users_ND.shape[0]
        total = users_ND.new_zeros(())
        grad_users_ND = torch.empty_like(users_ND)
        grad_items_VD = torch.zeros_like(items_VD)
        # One buffer for all blocks, worked on in place: fresh pages would cost as much as the products.
        buffer = users_ND.new_empty((min(LOGIT_ROWS, num_targets), items_VD.shape[0]))
        for start in range(0, num_targets, LOGIT_ROWS):
            users = users_ND[start : start + LOGIT_ROWS]
            targets = targets_N[start : start + LOGIT_ROWS, None]
            logits = torch.mm(users, items_VD.T, out=buffer[: users.shape[0]])
            logits.sub_(logits.amax(1, keepdim=True))
            own = logits.gather(1, targets)
            shares = logits.exp_()
            mass = shares.sum(1, keepdim=True)
            total += (mass.log() - own).sum()
            shares.div_(mass).scatter_add_(1, targets, torch.full_like(mass, -1.0))
            grad_users_ND[start : start + LOGIT_ROWS] = shares @ items_VD
            grad_items_VD.addmm_(shares.T, users)
        ctx.save_for_backward(grad_users_ND, grad_items_VD)
        ctx.num_targets = num_targets
        return total / num_targets

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_users_ND, grad_items_VD = ctx.saved_tensors
        scale = grad_outputs[0] / ctx.num_targets
        return grad_users_ND * scale, grad_items_VD * scale, None


def full_softmax_loss(users_ND: Tensor, item_table_VD: Tensor, target_rows_N: Tensor) -> Tensor:
    """Mean cross-entropy of the target among all named items; padding and unknown cannot be predicted.

    Args:
        users_ND: float32 user vectors, N at least 1.
        item_table_VD: float32, the whole item table.
        target_rows_N: int64 rows of the table, each `FIRST_NAME_ROW` or above.

    Returns:
        A scalar. O(N·V·D) time, O(V·D) memory: see `LOGIT_ROWS`.
    """
    named_items = item_table_VD[FIRST_NAME_ROW:]
    loss: Tensor = _FullSoftmax.apply(users_ND, named_items, target_rows_N - FIRST_NAME_ROW)
    return loss


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
    users_ND: Tensor,
    item_table_VD: Tensor,
    target_rows_N: Tensor,
    negative_rows_M: Tensor,
    log_shares_V: Tensor,
) -> Tensor:
    """Mean cross-entropy of the target among shared negatives, with log-q correction.

    Args:
        users_ND: float32 user vectors, N at least 1.
        item_table_VD: float32, the whole item table.
        target_rows_N: int64 rows of the table.
        negative_rows_M: int64 rows drawn with the shares given; a negative that is the row's own target is
            left out of its sum.
        log_shares_V: float32 logarithm of the share with which a row is drawn.

    Returns:
        A scalar. O(N·M·D).

    Source: Bengio & Senécal 2008 (adaptive importance sampling); with the target kept apart as in
    arXiv 2507.09331, its own logit is not corrected.
    """
    positive_N1 = (users_ND * item_table_VD[target_rows_N]).sum(1, keepdim=True)
    log_expected_M = log_shares_V[negative_rows_M] + torch.log(
        torch.tensor(float(len(negative_rows_M)), device=users_ND.device)
    )
    negative_NM = users_ND @ item_table_VD[negative_rows_M].T - log_expected_M
    own_NM = negative_rows_M[None, :] == target_rows_N[:, None]
    negative_NM = negative_NM.masked_fill(own_NM, torch.finfo(users_ND.dtype).min)
    logits = torch.cat([positive_N1, negative_NM], dim=1)
    return F.cross_entropy(logits, torch.zeros_like(target_rows_N))
