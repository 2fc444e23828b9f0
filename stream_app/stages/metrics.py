"""Ranking quality: how high the items that users then took stand in the lists made before.

Shapes: T targets (items that were taken), L lists, U users, R resamples, M measured columns.

A list has one relevant item where each event is judged for itself, several where a user's whole future is. `r` is the
rank of a relevant item, from 1; with n relevant items in the list's candidates and h of them among its first k:

- HR@k = 1 if h > 0 else 0: does the list hit at all?
- Recall@k = h / n: how much of what was taken is listed?
- Precision@k = h / k: how much of what is listed was taken?
- F1@k = 2 P R / (P + R), 0 where h = 0: both at once.
- Accuracy@1 = 1 if the first item was taken, else 0.
- NDCG@k = sum of 1 / log2(r + 1) over hits, over the same sum for a perfect list (ranks 1 to min(n, k)).
- MRR@k = 1 / r of the first hit, 0 without one.
- MAP@k = sum over hits of (hits so far / r), over n.
- AUC = share of the pairs (relevant, other candidate) in which the relevant item stands higher. It needs the rank among
  *all* candidates. An item that is ranked nowhere counts as if the unranked candidates stood in random order behind the
  ranked ones; an item that nobody knew yet is no candidate, and counts as 0 (all others stand higher).

With one relevant item HR = Recall and MRR = MAP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DEPTHS = (10, 20)
"""The k of measures that are cut off."""

PRECISION_METRICS = ("HR", "Recall", "Precision", "F1", "NDCG", "MRR", "MAP")
"""Measured at each depth."""

ALL_METRICS = (*(f"{name}@{depth}" for depth in DEPTHS for name in PRECISION_METRICS), "Accuracy@1", "AUC")
"""The columns of `measures`, in order."""


@dataclass(frozen=True)
class Judged:
    """The targets of many lists under one method.

    Args:
        ranks_T: float64 rank of each target among the list's candidates, from 1; NaN where it was not ranked.
        lists_T: int64 number of the list each target belongs to, 0 to L - 1, never falling; every list has a target.
        num_ranked_L: int64, how many candidates the method put in an order.
        num_candidates_L: int64, how many candidates there were; targets that nobody knew are not among them.
        known_T: bool, whether the target was among the candidates.
    """

    ranks_T: Floats
    lists_T: Ints
    num_ranked_L: Ints
    num_candidates_L: Ints
    known_T: npt.NDArray[np.bool_]

    def only(self, chosen_T: npt.NDArray[np.bool_]) -> Judged:
        """The same with some targets only; lists that lose all of theirs are left out."""
        lists, lists_T = np.unique(self.lists_T[chosen_T], return_inverse=True)
        return Judged(
            self.ranks_T[chosen_T],
            lists_T.astype(np.int64),
            self.num_ranked_L[lists],
            self.num_candidates_L[lists],
            self.known_T[chosen_T],
        )


def measures(judged: Judged) -> Floats:
    """Every measure of every list, shape (L, M), columns as `ALL_METRICS`. O(T log T)."""
    num_lists = len(judged.num_candidates_L)
    # Hits of a list one after the other, best first; ties keep their places.
    order = np.lexsort((np.nan_to_num(judged.ranks_T, nan=np.inf), judged.lists_T))
    ranks_T = judged.ranks_T[order]
    lists_T = judged.lists_T[order]
    starts_L = np.searchsorted(lists_T, np.arange(num_lists))
    places_T = np.arange(len(lists_T)) - starts_L[lists_T] + 1
    num_relevant_L = np.bincount(lists_T, minlength=num_lists)
    columns = [column for depth in DEPTHS for column in _at_depth(ranks_T, lists_T, places_T, num_relevant_L, depth)]
    columns.append(np.bincount(lists_T, weights=ranks_T == 1, minlength=num_lists).clip(max=1.0))
    columns.append(_auc(judged, order, places_T))
    return np.stack(columns, axis=1)


def _at_depth(ranks_T: Floats, lists_T: Ints, places_T: Ints, num_relevant_L: Ints, depth: int) -> list[Floats]:
    """The columns of `PRECISION_METRICS` at one depth, each (L,)."""
    num_lists = len(num_relevant_L)
    hit_T = ranks_T <= depth
    shown_T = np.where(hit_T, ranks_T, 1.0)

    def summed(values_T: Floats) -> Floats:
        return np.bincount(lists_T, weights=np.where(hit_T, values_T, 0.0), minlength=num_lists).astype(np.float64)

    hits_L = summed(np.ones(len(ranks_T)))
    recall_L, precision_L = hits_L / num_relevant_L, hits_L / depth
    gains_D = 1.0 / np.log2(np.arange(1, depth + 1) + 1.0)
    ideal_L = np.cumsum(gains_D)[np.minimum(num_relevant_L, depth) - 1]
    return [
        (hits_L > 0).astype(np.float64),
        recall_L,
        precision_L,
        2.0 * hits_L / (depth + num_relevant_L),  # 2 P R / (P + R), with P = h / k and R = h / n put in
        summed(1.0 / np.log2(shown_T + 1.0)) / ideal_L,
        summed(np.where(places_T == 1, 1.0 / shown_T, 0.0)),
        summed(places_T / shown_T) / num_relevant_L,
    ]


def _auc(judged: Judged, order: Ints, places_T: Ints) -> Floats:
    """(L,) mean over each list's targets of the share of other candidates that stand below."""
    lists_T, ranks_T, known_T = judged.lists_T[order], judged.ranks_T[order], judged.known_T[order]
    num_lists = len(judged.num_candidates_L)
    known_L = np.bincount(lists_T, weights=known_T, minlength=num_lists)
    ranked_T = ~np.isnan(ranks_T)
    ranked_relevant_L = np.bincount(lists_T, weights=ranked_T, minlength=num_lists)
    others_L = judged.num_candidates_L - known_L
    ranked_others_L = judged.num_ranked_L - ranked_relevant_L
    above_T = np.where(ranked_T, ranks_T - places_T, (ranked_others_L + (others_L - ranked_others_L) / 2)[lists_T])
    with np.errstate(invalid="ignore", divide="ignore"):
        share_T = 1.0 - above_T / others_L[lists_T]
    # Without any other candidate there is nothing to be mistaken about.
    share_T = np.where(others_L[lists_T] > 0, share_T, 1.0)
    share_T = np.where(known_T, share_T.clip(0.0, 1.0), 0.0)
    return np.bincount(lists_T, weights=share_T, minlength=num_lists) / np.bincount(lists_T, minlength=num_lists)


@dataclass(frozen=True)
class Interval:
    """A mean, and the 95% interval of the same mean over resampled users."""

    mean: float
    low: float
    high: float
    standard_error: float


def user_bootstrap(values_LM: Floats, users: Sequence[str], *, num_resamples: int = 1000, seed: int = 0) -> Floats:
    """Column means over lists of resampled users, shape (R, M).

    Whole users are drawn, with all their lists, since the lists of one user resemble each other. The same seed and
    users give the same draws, so that the rows of two methods can be subtracted.

    Source: Efron & Tibshirani 1993, chapter 8 (the bootstrap over clusters).
    """
    numbers = {user: number for number, user in enumerate(dict.fromkeys(users))}
    users_L = np.array([numbers[user] for user in users], dtype=np.int64)
    sums_UM = np.stack([np.bincount(users_L, weights=column) for column in values_LM.T], axis=1)
    counts_U = np.bincount(users_L)
    generator = np.random.default_rng(seed)
    means_RM = np.empty((num_resamples, values_LM.shape[1]))
    for row in range(num_resamples):
        draws_U = np.bincount(generator.integers(0, len(counts_U), len(counts_U)), minlength=len(counts_U))
        means_RM[row] = draws_U @ sums_UM / (draws_U @ counts_U)
    return means_RM


def interval_of(mean: float, resampled_R: Floats) -> Interval:
    """The interval between the 2.5% and the 97.5% quantile of resampled means."""
    low, high = np.quantile(resampled_R, [0.025, 0.975]).tolist()
    return Interval(mean, low, high, float(np.std(resampled_R)))


def ndcg10_of(rank: float) -> float:
    """NDCG@10 of a list with one relevant item at `rank` (from 1; NaN: not ranked).

    >>> ndcg10_of(3.0), ndcg10_of(11.0)
    (0.5, 0.0)
    """
    return 1.0 / math.log2(rank + 1.0) if rank <= DEPTHS[0] else 0.0
