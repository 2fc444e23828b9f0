"""Items without a vector of their own, placed by the users who touch them.

Such an item lies where its predecessors lie, the items that its users touched before it: its *co-touch vector* is their
mean, weighted by how often they stood there. It is near a user's vector where it follows the items nearest to that, and
those the index has found already. So no vector is added up, and nothing is kept: what follows an item is known from the
trends. An item is found after a single touch by somebody with a past, every further touch moves it, and a replay comes
to the same.

Shapes: S items found, K neighbours of items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream_app.stages.item_columns import ViewColumns
from stream_app.stages.trend_view import TrendView

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COTOUCH = "cotouch"
"""The source that these items are brought by."""

NUM_NEAREST = 10
"""Items nearest to the user's vector that others may have followed: as many as a list looks back on for transitions."""


@dataclass(frozen=True)
class Cotouched:
    """Items without a vector that followed the items nearest to a user's vector.

    Args:
        rows_S: Their rows in the trends, int64, each once.
        shares_S: How often, as sums of shares of the touches of those, of short and of long memory: float64.
    """

    rows_S: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    shares_S: Floats = field(default_factory=lambda: np.zeros(0))


def cotouched(nearest: Sequence[str], trends: TrendView, items: ViewColumns) -> Cotouched:
    """What users touched after the items nearest to a user's vector, as far as it has no vector itself.

    Args:
        nearest: What the index gave, best first; `NUM_NEAREST` of them count.
        trends: The trends.
        items: Tells which items have a vector.
    """
    near = trends.after(nearest[:NUM_NEAREST], lambda rows_K: items.numbers(rows_K) < 0)
    rows_S, numbers_K = trends.numbers.distinct(near.rows_K)
    # Added up in the order of the nearest, so that sums do not depend on how items came into the trends.
    sums_S = np.bincount(numbers_K, near.shares_MK[0] + near.shares_MK[1], minlength=len(rows_S))
    return Cotouched(rows_S, sums_S.astype(np.float64, copy=False))
