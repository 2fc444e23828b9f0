"""From a user and the trends to a ranked list: candidates of several sources, their features, one score each.

Shapes: C candidates, F features, H half-lives, D dimensions, S items near the user's newest ones,
X shares of each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream_app.records import RankedItem
from stream_app.stages.cotouch import COTOUCH, Cotouched, VectorsOf, cotouched
from stream_app.stages.learning import Scorer, scores
from stream_app.stages.scoring import NEAR_ITEMS, NEAR_SOURCES, half_life_name
from stream_app.stages.trend_view import TrendView

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RECENT_WEIGHTS = (1.0, 0.8, 0.64, 0.51, 0.41, 0.33, 0.26, 0.21, 0.17, 0.13)
"""How much what stands near the user's newest items counts, newest first."""

SHARE_FLOOR = 1e-3
"""A share below this is noise; it bounds the logarithm."""

VECTOR_FLOOR = -20.0
"""Lowest relative dot product that still makes a difference."""


@dataclass(frozen=True)
class Query:
    """What a list is made for.

    Args:
        seen: Items the user knows; they are never listed.
        recent: The user's newest items, newest first.
        user_vector: Shape (D,), or None.
        from_index: Candidates the index gave for the user vector.
        silent_ms: Time since the user's newest event, 0 for the list that answers it.
    """

    seen: Collection[str]
    recent: Sequence[str]
    user_vector: npt.NDArray[np.float32] | None = None
    from_index: Sequence[str] = ()
    silent_ms: int = 0


NUM_SHARES = len(NEAR_SOURCES) * len(NEAR_ITEMS)
"""X. For each of `NEAR_SOURCES`: near the user's newest item, and near the newest items by `RECENT_WEIGHTS`; each of
short and of long memory."""

ORDERING_SHARES = ("recent_short", "recent_long")
"""Of `NEAR_ITEMS`: the shares whose sum orders the items that a source brings."""


@dataclass(frozen=True)
class Shares:
    """How often items stood near the user's newest items.

    Args:
        rows_S: Their rows in the trends, int64, rising.
        shares_SX: float64; see `NUM_SHARES`.
        item_ids: The ids of all rows in the trends.
    """

    rows_S: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    shares_SX: Floats = field(default_factory=lambda: np.zeros((0, NUM_SHARES)))
    item_ids: Sequence[str] = ()

    def items_of(self, source: int) -> Iterator[str]:
        """The items that `NEAR_SOURCES[source]` brings, in no order."""
        return (self.item_ids[row] for row in self.brought(source)[0].tolist())

    def brought(self, source: int) -> tuple[Ints, Floats]:
        """Rows of the items that `NEAR_SOURCES[source]` brings, in no order, and the sums that it orders them by."""
        columns = [len(NEAR_ITEMS) * source + NEAR_ITEMS.index(name) for name in ORDERING_SHARES]
        totals_S = self.shares_SX[:, columns].sum(axis=1)
        return self.rows_S[totals_S > 0], totals_S[totals_S > 0]

    def of(self, rows_C: Ints) -> Floats:
        """The shares of items (C, X); nothing for others."""
        found_CX = np.zeros((len(rows_C), NUM_SHARES))
        if len(self.rows_S):
            places_C = np.minimum(np.searchsorted(self.rows_S, rows_C), len(self.rows_S) - 1)
            is_there_C = self.rows_S[places_C] == rows_C
            found_CX[is_there_C] = self.shares_SX[places_C[is_there_C]]
        return found_CX


@dataclass
class Candidates:
    """Candidate items with the sources that brought each; how often items stood near the user's newest ones; and what
    followed those nearest to the user's vector.
    """

    sources: dict[str, list[str]] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)
    cotouched: Cotouched = field(default_factory=Cotouched)


def gather(
    query: Query, trends: TrendView, num_each: int, available: Callable[[str], bool], vectors_of: VectorsOf
) -> Candidates:
    """Collect up to `num_each` unseen, available candidates from each source."""
    found = Candidates()
    _add_some(found, "index", query.from_index, query, num_each, available)
    for index, half_life_ms in enumerate(trends.rule.half_lives_ms):
        rows = trends.top(index, num_each + len(query.seen) + num_each)
        name = f"popular_{half_life_name(half_life_ms / 1000)}"
        _add_some(found, name, map(trends.item_ids.__getitem__, rows.tolist()), query, num_each, available)
    found.shares = _shares(query.recent, trends)
    for place, source in enumerate(NEAR_SOURCES):
        rows = trends.by_score(*found.shares.brought(place))
        _add_some(found, source, map(trends.item_ids.__getitem__, rows.tolist()), query, num_each, available)
    found.cotouched = cotouched(query.from_index, trends, vectors_of)
    rows = trends.by_score(found.cotouched.rows_S, found.cotouched.shares_S)
    _add_some(found, COTOUCH, map(trends.item_ids.__getitem__, rows.tolist()), query, num_each, available)
    return found


def features(query: Query, found: Candidates, trends: TrendView, vectors_of: VectorsOf) -> Floats:
    """The features of all candidates, shape (C, F), columns as `scoring.feature_names` says."""
    item_ids = list(found.sources)
    rows_C = trends.rows_of(item_ids)
    columns = [
        trends.popularity(rows_C),
        _share_features(found.shares.of(rows_C)),
        _vector_features(query, item_ids, vectors_of),
        trends.log_age(rows_C)[:, None],
        (rows_C < 0)[:, None].astype(np.float64),
        # The same for all candidates: they tell the scorer whom the list is for.
        np.full((len(item_ids), 1), np.log1p(len(query.seen))),
        np.full((len(item_ids), 1), np.log1p(query.silent_ms / 1000)),
    ]
    return np.concatenate(columns, axis=1)


def rank(found: Candidates, features_CF: Floats, scorer: Scorer, num_items: int) -> list[RankedItem]:
    """The best candidates, best first; scores to six decimals, ties by item id."""
    rounded = np.round(scores(scorer, features_CF), 6) + 0.0
    item_ids = list(found.sources)
    order = sorted(range(len(item_ids)), key=lambda place: (-rounded[place], item_ids[place]))
    return [
        RankedItem(item_id=item_ids[place], score=float(rounded[place]), sources=found.sources[item_ids[place]])
        for place in order[:num_items]
    ]


def _add_some(
    found: Candidates,
    source: str,
    item_ids: Iterable[str],
    query: Query,
    num_items: int,
    available: Callable[[str], bool],
) -> None:
    """Add the first `num_items` unseen, available items; `item_ids` names each item once."""
    sources, seen = found.sources, query.seen
    left = num_items
    for item_id in item_ids:
        if item_id in seen or not available(item_id):
            continue
        known = sources.get(item_id)
        if known is None:
            sources[item_id] = [source]
        else:
            known.append(source)
        left -= 1
        if not left:
            return


def _shares(recent: Sequence[str], trends: TrendView) -> Shares:
    """Sums in the order of the newest items: they do not depend on how items came into the trends."""
    newest = recent[: len(RECENT_WEIGHTS)]
    near = (trends.after(newest), trends.before(newest))
    rows_S, numbers = np.unique(np.concatenate([one.rows_K for one in near]), return_inverse=True)
    weights = np.array(RECENT_WEIGHTS)
    columns: list[Floats] = []
    for one, numbers_K in zip(near, np.split(numbers, [len(near[0].rows_K)]), strict=True):
        for weights_K in (one.places_K == 0, weights[one.places_K]):
            for shares_K in one.shares_KM.T:
                columns.append(np.bincount(numbers_K, weights_K * shares_K, minlength=len(rows_S)).astype(np.float64))
    return Shares(rows_S, np.stack(columns, axis=1), trends.item_ids)


def _share_features(shares_CX: Floats) -> Floats:
    return np.asarray(np.log(shares_CX + SHARE_FLOOR) - np.log(SHARE_FLOOR))


def _vector_features(query: Query, item_ids: list[str], vectors_of: VectorsOf) -> Floats:
    columns = np.zeros((len(item_ids), 2))
    if query.user_vector is None or not item_ids:
        return columns
    vectors_CD, found_C = vectors_of(item_ids)
    columns[:, 1] = ~found_C
    if found_C.any():
        # Summed per row in float64, so that a candidate's score does not depend on its companions.
        dots = np.einsum("cd,d->c", vectors_CD[found_C].astype(np.float64), query.user_vector.astype(np.float64))
        columns[found_C, 0] = np.maximum(dots - dots.max(), VECTOR_FLOOR)
    return columns
