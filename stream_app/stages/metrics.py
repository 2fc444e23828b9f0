"""Quality of ranked lists with one right answer each, and their spread over users.

With the right item at rank r (from 1) of a list cut at k:

- HR@k = 1 if r <= k, else 0: was it there?
- NDCG@k = 1 / log2(r + 1) if r <= k, else 0: how high? (one relevant item, so the ideal is 1)
- MRR@k = 1 / r if r <= k, else 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

METRICS = ("HR@10", "NDCG@10", "MRR@10", "HR@20")


def metrics_of(rank: int | None) -> tuple[float, float, float, float]:
    """HR@10, NDCG@10, MRR@10 and HR@20 for the right item at `rank` (from 1; None: not listed)."""
    if rank is None or rank > 20:
        return 0.0, 0.0, 0.0, 0.0
    if rank > 10:
        return 0.0, 0.0, 0.0, 1.0
    return 1.0, 1.0 / math.log2(rank + 1), 1.0 / rank, 1.0


@dataclass(frozen=True)
class Quality:
    """Means over targets, and the standard error of NDCG@10 by resampling users."""

    means: Mapping[str, float]
    ndcg10_standard_error: float
    num_targets: int


def quality(ranks: Sequence[int | None], users: Sequence[str], *, num_resamples: int = 200, seed: int = 0) -> Quality:
    """Quality of many lists.

    Args:
        ranks: For each target the rank of the right item, None where it was not listed.
        users: The user of each target.
        num_resamples: Bootstrap samples of users.
        seed: Of the resampling.
    """
    values = np.array([metrics_of(rank) for rank in ranks]).reshape(-1, len(METRICS))
    means = values.mean(axis=0) if len(values) else np.zeros(len(METRICS))
    error = _standard_error(values[:, 1], users, num_resamples, seed) if len(values) else 0.0
    return Quality(dict(zip(METRICS, means.tolist(), strict=True)), error, len(values))


def _standard_error(values: np.ndarray, users: Sequence[str], num_resamples: int, seed: int) -> float:
    numbers = {user: number for number, user in enumerate(dict.fromkeys(users))}
    users_T = np.array([numbers[user] for user in users])
    sums = np.bincount(users_T, weights=values)
    counts = np.bincount(users_T)
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(num_resamples):
        drawn = generator.integers(0, len(sums), len(sums))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    return float(np.std(means))
