"""A small linear scorer over candidates' features, fitted so that what people took ranks above the rest.

Shapes: C candidates of all groups, F features, G groups (one group is one list shown or one choice made).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.contract import Float64Array, Int64Array, TooLittleDataError

# A feature that hardly varies says nothing; dividing by its spread would only magnify rounding.
MIN_SPREAD = 1e-9
MIN_GROUPS = 2
# Of the norm of a group's mean gradient; far below what changes an order.
GRADIENT_TOLERANCE = 1e-7


@dataclass(frozen=True)
class ScorerWeights:
    """A fitted scorer: the score of a candidate is ``features · weights_F``, in the features' own units.

    Args:
        weights_F: float64.
        loss: mean cross-entropy per group after fitting, in nats, without the penalty.
        loss_before: the same for equal scores, so what the fit is worth is the difference.
        num_groups: G, groups fitted on.
    """

    weights_F: Float64Array
    loss: float
    loss_before: float
    num_groups: int


def fit_listwise(
    features_CF: np.typing.NDArray[np.floating[Any]],
    group_starts_G1: Int64Array,
    positives_G: Int64Array,
    *,
    l2: float = 1e-3,
    seed: int = 0,
    epochs: int = 100,
) -> ScorerWeights:
    """Fit weights by the listwise softmax cross-entropy of the positive among its group.

    The loss is ``mean over groups of (logsumexp of the group's scores - the positive's score) + l2 · |w|²``
    with w the weights of standardised features. Standardisation is folded into the weights returned; its
    shift is the same for all candidates of a group and so falls out. The problem is convex: the start
    given by the seed decides only the last digits.

    Args:
        features_CF: floats, finite; group after group.
        group_starts_G1: int64 offsets, 0 to C; no group is empty.
        positives_G: int64 place of the positive *within* its group. Groups without one are the caller's to
            leave out.
        l2: penalty.
        seed: of the starting weights.
        epochs: L-BFGS iterations at most.

    Raises:
        TooLittleDataError: with fewer than `MIN_GROUPS` groups.
        ValueError: if offsets, positives or features do not fit each other.

    Source: the top-one case of ListNet (Cao et al. 2007), which is McFadden's conditional logit.
    """
    _check(features_CF, group_starts_G1, positives_G)
    spread_F = features_CF.std(axis=0, dtype=np.float64)
    varies_F = spread_F > MIN_SPREAD
    spread_F = np.where(varies_F, spread_F, 1.0)
    shifted_CF = (features_CF - features_CF.mean(axis=0, dtype=np.float64)) / spread_F * varies_F
    inputs_CF = torch.from_numpy(shifted_CF.astype(np.float64))
    groups_C = torch.from_numpy(np.repeat(np.arange(len(positives_G)), np.diff(group_starts_G1)))
    positives = torch.from_numpy(group_starts_G1[:-1] + positives_G)
    generator = torch.Generator().manual_seed(seed)
    weights_F = torch.randn(inputs_CF.shape[1], generator=generator, dtype=torch.float64) * 1e-3
    weights_F.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [weights_F], max_iter=epochs, tolerance_grad=GRADIENT_TOLERANCE, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = _group_loss(inputs_CF @ weights_F, groups_C, positives) + l2 * weights_F.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    fitted_F = weights_F.detach()
    return ScorerWeights(
        fitted_F.numpy() / spread_F * varies_F,
        _group_loss(inputs_CF @ fitted_F, groups_C, positives).item(),
        float(np.log(np.diff(group_starts_G1)).mean()),
        len(positives_G),
    )


def _group_loss(scores_C: Tensor, groups_C: Tensor, positives_G: Tensor) -> Tensor:
    """Mean over groups of logsumexp minus the positive's score."""
    num_groups = len(positives_G)
    tops_G = scores_C.new_full((num_groups,), -torch.inf)
    tops_G = tops_G.scatter_reduce(0, groups_C, scores_C.detach(), "amax")
    masses_G = scores_C.new_zeros(num_groups).index_add(0, groups_C, (scores_C - tops_G[groups_C]).exp())
    return (masses_G.log() + tops_G - scores_C[positives_G]).mean()


def _check(
    features_CF: np.typing.NDArray[np.floating[Any]],
    group_starts_G1: Int64Array,
    positives_G: Int64Array,
) -> None:
    sizes_G = np.diff(group_starts_G1)
    if len(positives_G) < MIN_GROUPS:
        raise TooLittleDataError(
            f"{len(positives_G)} groups with a positive, expected at least {MIN_GROUPS}; "
            f"collect more lists that somebody took something from"
        )
    if features_CF.ndim != 2 or not np.isfinite(features_CF).all():
        raise ValueError(f"features_CF has shape {features_CF.shape}; expected 2 axes of finite numbers")
    fits = group_starts_G1[0] == 0 and group_starts_G1[-1] == len(features_CF) and (sizes_G > 0).all()
    if not fits or len(sizes_G) != len(positives_G):
        raise ValueError(
            f"group_starts_G1 must rise strictly from 0 to {len(features_CF)} over {len(positives_G)} groups"
        )
    if ((positives_G < 0) | (positives_G >= sizes_G)).any():
        raise ValueError("positives_G must lie within their groups: 0 to the group's size less one")
