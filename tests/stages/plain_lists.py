"""Lists made one item after the other, by id: the slow oracle of `stages.ranking`.

Shapes: C candidates, F features, D dimensions, X shares.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stream_app.records import RankedItem
from stream_app.stages.cotouch import COTOUCH, NUM_NEAREST
from stream_app.stages.learning import Scorer, scores
from stream_app.stages.ranking import NUM_SHARES, RECENT_WEIGHTS, SHARE_FLOOR, VECTOR_FLOOR, Query
from stream_app.stages.scoring import NEAR_SOURCES, half_life_name
from stream_app.stages.trend_view import Neighbours, TrendView

Floats = npt.NDArray[np.float64]
Vectors = Mapping[str, npt.NDArray[np.floating]]

NO_SHARES = (0.0,) * NUM_SHARES


def plain_sources(
    query: Query, trends: TrendView, num_each: int, is_available: Callable[[str], bool], vectors: Vectors
) -> dict[str, list[str]]:
    """The candidates, in the order in which they are found, with the sources of each."""
    sources: dict[str, list[str]] = {}

    def add(source: str, item_ids: Iterable[str]) -> None:
        kept = [item_id for item_id in item_ids if item_id not in query.seen and is_available(item_id)]
        for item_id in kept[:num_each]:
            sources.setdefault(item_id, []).append(source)

    add("index", query.from_index)
    for index, half_life_ms in enumerate(trends.rule.half_lives_ms):
        rows = trends.top(index, len(trends))
        add(f"popular_{half_life_name(half_life_ms / 1000)}", [trends.item_ids[row] for row in rows.tolist()])
    shares = plain_shares(query.recent, trends)
    for place, source in enumerate(NEAR_SOURCES):
        totals = {item: of[4 * place + 2] + of[4 * place + 3] for item, of in shares.items()}
        add(source, in_order({item: total for item, total in totals.items() if total > 0}, trends))
    add(COTOUCH, in_order(_cotouched(query, trends, vectors), trends))
    return sources


def plain_shares(recent: Sequence[str], trends: TrendView) -> dict[str, list[float]]:
    """How often items stood near the newest ones: X sums by item id."""
    shares: dict[str, list[float]] = defaultdict(lambda: [0.0] * NUM_SHARES)
    newest = recent[: len(RECENT_WEIGHTS)]
    for source, near in enumerate((trends.after(newest), trends.before(newest))):
        for place, item_id, (short, long) in _by_item(near, trends):
            of, first = shares[item_id], 4 * source
            if place == 0:
                of[first] += short
                of[first + 1] += long
            of[first + 2] += RECENT_WEIGHTS[place] * short
            of[first + 3] += RECENT_WEIGHTS[place] * long
    return dict(shares)


def plain_features(query: Query, item_ids: Sequence[str], trends: TrendView, vectors: Vectors) -> Floats:
    """The features (C, F) of items, one after the other."""
    shares = plain_shares(query.recent, trends)
    dots = _dots(query, item_ids, vectors)
    rows = []
    for item_id in item_ids:
        row = trends.rows_of([item_id])
        behind = 0.0 if item_id not in dots else max(dots[item_id] - max(dots.values()), VECTOR_FLOOR)
        shares_X = np.array(shares.get(item_id, NO_SHARES))
        parts = [
            trends.popularity(row)[0].tolist(),
            (np.log(shares_X + SHARE_FLOOR) - np.log(SHARE_FLOOR)).tolist(),
            [behind, float(query.user_vector is not None and item_id not in vectors)],
            [float(trends.log_age(row)[0]), float(row[0] < 0)],
            [float(np.log1p(len(query.seen))), float(np.log1p(query.silent_ms / 1000))],
        ]
        rows.append([value for part in parts for value in part])
    return np.array(rows).reshape(len(item_ids), len(trends.rule.half_lives_ms) + NUM_SHARES + 6)


def plain_rank(
    sources: Mapping[str, list[str]], features_CF: Floats, scorer: Scorer, num_items: int
) -> list[RankedItem]:
    """All candidates sorted, and cut."""
    rounded = [float(np.round(score, 6)) + 0.0 for score in scores(scorer, features_CF)]
    ordered = sorted(zip(rounded, sources, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return [
        RankedItem(item_id=item_id, score=score, sources=sources[item_id]) for score, item_id in ordered[:num_items]
    ]


def in_order(totals: Mapping[str, float], trends: TrendView) -> list[str]:
    """Item ids, greatest total first."""
    rows_C = trends.rows_of(totals)
    return [trends.item_ids[row] for row in trends.by_score(rows_C, np.array(list(totals.values()))).tolist()]


def _cotouched(query: Query, trends: TrendView, vectors: Vectors) -> dict[str, float]:
    totals: dict[str, float] = {}
    for _, item_id, (short, long) in _by_item(trends.after(query.from_index[:NUM_NEAREST]), trends):
        if item_id not in vectors:
            totals[item_id] = totals.get(item_id, 0.0) + (short + long)
    return totals


def _by_item(near: Neighbours, trends: TrendView) -> list[tuple[int, str, list[float]]]:
    ids = [trends.item_ids[row] for row in near.rows_K.tolist()]
    return list(zip(near.places_K.tolist(), ids, near.shares_MK.T.tolist(), strict=True))


def _dots(query: Query, item_ids: Sequence[str], vectors: Vectors) -> dict[str, float]:
    """Inner products with the user's vector of those that have one."""
    if query.user_vector is None:
        return {}
    vector_D = query.user_vector.astype(np.float64)
    return {
        item_id: float(np.einsum("d,d->", vectors[item_id].astype(np.float32).astype(np.float64), vector_D))
        for item_id in item_ids
        if item_id in vectors
    }
