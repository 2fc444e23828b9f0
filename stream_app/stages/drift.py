"""How far a user vector that was merged slice by slice is from that of a full re-encoding.

Shapes: I items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_app.stages.score_rule import HASH_RANGE, hash_of

Floats = npt.NDArray[np.float32]

NUM_TOP = 10
"""Items of a list that are compared."""


@dataclass(frozen=True)
class DriftCheck:
    """One user, checked once.

    Args:
        user_id: The user.
        num_slices: Slices that were encoded anew.
        cosine: Of the two user vectors, -1 to 1.
        overlap_10: Share of the ten best items by the one vector that are among the ten best by the other, 0 to 1.
    """

    user_id: str
    num_slices: int
    cosine: float
    overlap_10: float


@dataclass(frozen=True)
class DriftSummary:
    """Several checks together: how many, of how many users and slices, and the measures over all of them."""

    num_checks: int
    num_users: int
    num_slices: int
    mean_cosine: float
    min_cosine: float
    mean_overlap_10: float


def is_checked(user_key: bytes, users_share: float) -> bool:
    """Whether the user with this key is in the sample of `users_share` (0 to 1); the same everywhere and always."""
    # Salted, so that the sample does not depend on whose choices the scorer learns from.
    return hash_of(b"drift", user_key) < users_share * HASH_RANGE


def compare(user_id: str, num_slices: int, merged_D: Floats, full_D: Floats, items_ID: Floats) -> DriftCheck:
    """Compare a user vector that was merged slice by slice with that of a full re-encoding.

    Args:
        user_id: The user.
        num_slices: Slices that were encoded anew.
        merged_D: User vector as the stream has it.
        full_D: User vector from scratch.
        items_ID: Vectors of all items; may be none.
    """
    return DriftCheck(user_id, num_slices, cosine_of(merged_D, full_D), overlap_of(merged_D, full_D, items_ID))


def cosine_of(first_D: Floats, second_D: Floats) -> float:
    """Cosine of two vectors; 1 where both are zero, 0 where one is."""
    first, second = first_D.astype(np.float64), second_D.astype(np.float64)
    norms = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if 0.0 in norms:
        return float(norms[0] == norms[1])
    return float(np.clip(first @ second / (norms[0] * norms[1]), -1.0, 1.0))


def overlap_of(first_D: Floats, second_D: Floats, items_ID: Floats) -> float:
    """Share of the `NUM_TOP` items with the largest inner products that two vectors have in common; 1 without items.

    Of equal items the first in `items_ID` counts as better. O(I * D).
    """
    first, second = _top_rows(items_ID @ first_D), _top_rows(items_ID @ second_D)
    return len(first & second) / len(first) if first else 1.0


def _top_rows(scores_I: Floats) -> set[int]:
    num_top = min(NUM_TOP, len(scores_I))
    if not num_top:
        return set()
    least = np.partition(scores_I, -num_top)[-num_top]
    rows = np.flatnonzero(scores_I >= least)
    best_first = np.argsort(-scores_I[rows], kind="stable")
    return set(rows[best_first[:num_top]].tolist())


def summary_of(checks: Sequence[DriftCheck]) -> DriftSummary:
    """Several checks (at least one) in a few numbers."""
    cosines = [check.cosine for check in checks]
    return DriftSummary(
        num_checks=len(checks),
        num_users=len({check.user_id for check in checks}),
        num_slices=sum(check.num_slices for check in checks),
        mean_cosine=sum(cosines) / len(cosines),
        min_cosine=min(cosines),
        mean_overlap_10=sum(check.overlap_10 for check in checks) / len(checks),
    )
