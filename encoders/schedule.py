"""How far a training is, and the learning rate there: by steps, or by time where time is limited."""

from __future__ import annotations

import math

RESTING_SHARE = 0.01
"""Share of the full rate that is left at the end: not zero, so that the last steps still count."""


def progress_share(num_steps: int, num_planned: int, elapsed_s: float, time_budget_s: float | None) -> float:
    """Share of the training that is over after `num_steps` steps: by steps or by time, whichever is further.

    >>> progress_share(5, 20, 30.0, None), progress_share(5, 20, 30.0, 60.0), progress_share(5, 20, 90.0, 60.0)
    (0.25, 0.5, 1.0)
    """
    by_steps = num_steps / num_planned
    by_time = elapsed_s / time_budget_s if time_budget_s else 0.0
    return min(1.0, max(by_steps, by_time))


def rate_share(progress: float, warmup_share: float) -> float:
    """Share of the full learning rate: linear warm-up, then half a cosine down to `RESTING_SHARE`.

    Args:
        progress: share of the training that is over, 0 to 1.
        warmup_share: share of the training that the rate rises in, below 1.

    >>> [round(rate_share(progress, 0.1), 2) for progress in (0.01, 0.1, 0.55, 1.0)]
    [0.1, 1.0, 0.5, 0.01]
    """
    if progress < warmup_share:
        return progress / warmup_share
    fallen = (progress - warmup_share) / (1 - warmup_share)
    return RESTING_SHARE + (1 - RESTING_SHARE) * 0.5 * (1 + math.cos(math.pi * fallen))
