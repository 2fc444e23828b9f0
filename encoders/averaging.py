"""A moving average of the weights, whose memory grows with the training.

Source: the power-law profile of arXiv 2312.02696 (section 3.1): with a half-life of a share s of the steps so far,
step j weighs about ``j ** (ln 2 / s - 1)`` in the average, whatever the length of the training.
"""

from __future__ import annotations

import copy
import math

import torch

from encoders.transformer import SliceModel


def new_weight_share(num_steps: int, half_life_share: float) -> float:
    """Share of the newest weights in the average, after `num_steps` steps.

    >>> new_weight_share(100, 0.01), round(new_weight_share(100, 0.1), 3)
    (0.5, 0.067)
    """
    return 1.0 - math.exp2(-1.0 / (half_life_share * max(1, num_steps)))


class WeightAverage:
    """The average of a model's weights, as a model of its own to be judged and kept.

    Args:
        model: whose weights are averaged; the average starts equal to it.
        half_life_share: half-life as a share of the steps so far, above 0.
    """

    def __init__(self, model: SliceModel, half_life_share: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._half_life_share = half_life_share

    @torch.no_grad()
    def take(self, model: SliceModel, num_steps: int) -> None:
        """Take in the weights after a step; buffers are copied. O(weights)."""
        torch._foreach_lerp_(
            list(self.model.parameters()),
            [weight.detach() for weight in model.parameters()],
            new_weight_share(num_steps, self._half_life_share),
        )
        for own, other in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(other)
