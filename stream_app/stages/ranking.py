"""From a user and the trends to a ranked list: candidates of several sources, their features, one score each.

Shapes: C candidates, F features, H half-lives, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream_app.records import RankedItem
from stream_app.stages.learning import Scorer, scores
from stream_app.stages.scoring import half_life_name
from stream_app.stages.trend_view import TrendView

Floats = npt.NDArray[np.float64]

RECENT_WEIGHTS = (1.0, 0.8, 0.64, 0.51, 0.41, 0.33, 0.26, 0.21, 0.17, 0.13)
"""How much the transitions from the user's newest items count, newest first."""

SHARE_FLOOR = 1e-3
"""A transition share below this is noise; it bounds the logarithm."""

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


Shares = tuple[float, float, float, float]
"""How often an item followed, of short and long memory: the newest item, and the newest items by `RECENT_WEIGHTS`."""

NO_SHARES: Shares = (0.0, 0.0, 0.0, 0.0)


@dataclass
class Candidates:
    """Candidate items with the sources that brought each, and how often they followed the user's newest items."""

    sources: dict[str, list[str]] = field(default_factory=dict)
    shares: dict[str, Shares] = field(default_factory=dict)


VectorsOf = Callable[[list[str]], tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]
"""Gives the vectors (C, D) of items and whether each has one (C,)."""


def gather(query: Query, trends: TrendView, num_each: int, available: Callable[[str], bool]) -> Candidates:
    """Collect up to `num_each` unseen, available candidates from each source."""
    found = Candidates()
    _add_some(found, "index", query.from_index, query, num_each, available)
    for index, half_life_ms in enumerate(trends.rule.half_lives_ms):
        rows = trends.top(index, num_each + len(query.seen) + num_each)
        name = f"popular_{half_life_name(half_life_ms / 1000)}"
        _add_some(found, name, map(trends.item_ids.__getitem__, rows.tolist()), query, num_each, available)
    found.shares = _shares(query.recent, trends)
    by_share = sorted(found.shares, key=lambda item: (-(found.shares[item][2] + found.shares[item][3]), item))
    _add_some(found, "transition", by_share, query, num_each, available)
    return found


def features(query: Query, found: Candidates, trends: TrendView, vectors_of: VectorsOf) -> Floats:
    """The features of all candidates, shape (C, F), columns as `scoring.feature_names` says."""
    item_ids = list(found.sources)
    rows_C = trends.rows_of(item_ids)
    columns = [
        trends.popularity(rows_C),
        _share_features(item_ids, found.shares),
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


def _shares(recent: Sequence[str], trends: TrendView) -> dict[str, Shares]:
    shares: dict[str, Shares] = {}
    for place, (item_id, weight) in enumerate(zip(recent, RECENT_WEIGHTS, strict=False)):
        for other, short, long in trends.successors(item_id):
            known = shares.get(other, NO_SHARES)
            newest = (short, long) if place == 0 else known[:2]
            shares[other] = (*newest, known[2] + weight * short, known[3] + weight * long)
    return shares


def _share_features(item_ids: list[str], shares: dict[str, Shares]) -> Floats:
    shares_CX = np.array([shares.get(item_id, NO_SHARES) for item_id in item_ids]).reshape(-1, len(NO_SHARES))
    logs_CX: Floats = np.log(shares_CX + SHARE_FLOOR) - np.log(SHARE_FLOOR)
    return logs_CX


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
