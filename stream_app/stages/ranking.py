"""From a user and the trends to a ranked list: candidates of several sources, their features, one score each.

Candidates are rows of the trends from source to score; an item's id is looked up for what stands in the list. Items
from the index that nobody touched yet have the numbers behind the last row.

Shapes: C candidates (N of several lists), F features, H half-lives, D dimensions, S items near the user's newest ones,
X shares of each, O sources, K rows that a source brings.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from stream_app.records import RankedItem
from stream_app.stages.cotouch import COTOUCH, cotouched
from stream_app.stages.item_columns import ItemColumns, ViewColumns
from stream_app.stages.learning import Scorer, scores
from stream_app.stages.row_numbers import RowNumbers
from stream_app.stages.scoring import NEAR_ITEMS, NEAR_SOURCES, half_life_name
from stream_app.stages.trend_view import TrendView

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RECENT_WEIGHTS = (1.0, 0.8, 0.64, 0.51, 0.41, 0.33, 0.26, 0.21, 0.17, 0.13)
"""How much what stands near the user's newest items counts, newest first."""

_RECENT_WEIGHTS: Floats = np.array(RECENT_WEIGHTS)

SHARE_FLOOR = 1e-3
"""A share below this is noise; it bounds the logarithm."""

VECTOR_FLOOR = -20.0
"""Lowest relative dot product that still makes a difference."""

INDEX = "index"
"""The source of items near the user's vector."""


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
        rows_S: Their rows in the trends, int64, each once.
        shares_XS: float64; see `NUM_SHARES`.
        numbers: Those of the trends.
    """

    rows_S: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    shares_XS: Floats = field(default_factory=lambda: np.zeros((NUM_SHARES, 0)))
    numbers: RowNumbers = field(default_factory=RowNumbers)

    def brought(self, source: int) -> tuple[Ints, Floats]:
        """Rows of the items that `NEAR_SOURCES[source]` brings, in no order, and the sums that it orders them by."""
        short, long = (len(NEAR_ITEMS) * source + NEAR_ITEMS.index(name) for name in ORDERING_SHARES)
        totals_S = self.shares_XS[short] + self.shares_XS[long]
        is_brought_S = totals_S > 0
        return self.rows_S[is_brought_S], totals_S[is_brought_S]

    def of(self, rows_C: Ints) -> Floats:
        """The shares of items (C, X); nothing for others."""
        places_C, is_there_C = self.numbers.find(rows_C, self.rows_S)
        if not is_there_C.any():
            return np.zeros((len(rows_C), NUM_SHARES))
        found_XC = self.shares_XS.take(places_C, axis=1)
        found_XC[:, ~is_there_C] = 0.0
        return found_XC.T


@dataclass(frozen=True)
class Offer:
    """What a source brings: rows of items, best first; or in no order, with the scores that order them."""

    source: str
    rows_K: Ints
    scores_K: Floats | None = None

    def first(self, num_items: int, is_kept_K: Bools, trends: TrendView) -> Ints:
        """The best of those that are kept, best first."""
        rows_K = self.rows_K[is_kept_K]
        if self.scores_K is None:
            return rows_K[:num_items]
        return trends.best(rows_K, self.scores_K[is_kept_K], num_items)


@dataclass(frozen=True)
class Candidates:
    """Candidate items with the sources that brought each, and how often items stood near the user's newest ones.

    Args:
        rows_C: Rows in the trends; from `num_rows` on they stand for `new_ids`.
        brought_CO: Which source brought which.
        source_names: Of the sources.
        item_ids: The ids of all rows in the trends.
        num_rows: How many rows there were when these were gathered.
        new_ids: Items that nobody touched yet.
        shares: Of all items that stood near the newest ones.
    """

    rows_C: Ints
    brought_CO: Bools
    source_names: Sequence[str]
    item_ids: Sequence[str]
    num_rows: int
    new_ids: Sequence[str] = ()
    shares: Shares = field(default_factory=Shares)

    def __len__(self) -> int:
        return len(self.rows_C)

    @cached_property
    def ids(self) -> list[str]:
        """The ids of all."""
        look_up = self.id_of if self.new_ids else self.item_ids.__getitem__
        return list(map(look_up, self.rows_C.tolist()))

    def place_of(self, item_id: str) -> int:
        """The place of an item; -1 where it is none of them."""
        return self.ids.index(item_id) if item_id in self.ids else -1

    def id_of(self, row: int) -> str:
        """The id of a row."""
        return self.item_ids[row] if row < self.num_rows else self.new_ids[row - self.num_rows]

    def sources_at(self, places: Ints) -> list[list[str]]:
        """The sources that brought each of some of them."""
        return [
            [name for name, is_brought in zip(self.source_names, brought_O, strict=True) if is_brought]
            for brought_O in self.brought_CO.take(places, axis=0).tolist()
        ]


def gather(query: Query, trends: TrendView, num_each: int, items: ItemColumns) -> Candidates:
    """Collect up to `num_each` unseen, available candidates from each source."""
    is_seen_N = seen_rows(query, trends)
    columns = items.of(trends)
    index_rows, new_ids = _of_index(query, trends, num_each, columns, is_seen_N)
    shares = near_shares(query.recent, trends)
    brought, is_kept_K = kept_offers(query, trends, num_each, shares, columns, is_seen_N)
    kept, end = [index_rows], 0
    for offer in brought:
        start, end = end, end + len(offer.rows_K)
        kept.append(offer.first(num_each, is_kept_K[start:end], trends))
    rows_C, numbers_K = trends.numbers.distinct(np.concatenate(kept))
    brought_CO = np.zeros((len(rows_C), len(kept)), dtype=np.bool_)
    brought_CO[numbers_K, np.arange(len(kept)).repeat(list(map(len, kept)))] = True
    names = [INDEX, *(offer.source for offer in brought)]
    return Candidates(rows_C, brought_CO, names, trends.item_ids, len(trends), new_ids, shares)


def seen_rows(query: Query, trends: TrendView) -> Bools:
    """Whether the user has seen the item of each row (N + 1,); the last place is for what was never touched, which has
    the row -1.
    """
    is_seen_N = np.zeros(len(trends) + 1, dtype=np.bool_)
    is_seen_N[trends.rows_of(query.seen)] = True
    return is_seen_N


def _popular(trends: TrendView, reach: int) -> list[Offer]:
    """The `reach` most popular at each half-life."""
    return [
        Offer(f"popular_{half_life_name(half_life_ms / 1000)}", trends.top(index, reach))
        for index, half_life_ms in enumerate(trends.rule.half_lives_ms)
    ]


def _near_and_cold(query: Query, trends: TrendView, shares: Shares, columns: ViewColumns) -> list[Offer]:
    """What the user's own items and those of the index lead to."""
    near = [Offer(source, *shares.brought(place)) for place, source in enumerate(NEAR_SOURCES)]
    cold = cotouched(query.from_index, trends, columns)
    return [*near, Offer(COTOUCH, cold.rows_S, cold.shares_S)]


def kept_offers(
    query: Query, trends: TrendView, num_each: int, shares: Shares, columns: ViewColumns, is_seen_N: Bools
) -> tuple[list[Offer], Bools]:
    """What all sources but the index bring, and which rows of it, one source after the other, may be listed.

    More than `num_each` of the most popular are looked at, since some are seen; and more still where hardly any of
    those is available.
    """
    others = _near_and_cold(query, trends, shares, columns)
    reach = num_each + len(query.seen) + num_each
    while True:
        popular = _popular(trends, reach)
        brought = [*popular, *others]
        rows_K = np.concatenate([offer.rows_K for offer in brought])
        is_kept_K = columns.available(rows_K) & ~is_seen_N.take(rows_K)
        if not _leaves_some(popular, is_kept_K, reach, num_each):
            return brought, is_kept_K
        reach *= 2


def _leaves_some(popular: Sequence[Offer], is_kept_K: Bools, reach: int, num_each: int) -> bool:
    """Whether fewer than `num_each` of the most popular are kept, and there are more of them than were looked at."""
    end = 0
    for offer in popular:
        start, end = end, end + len(offer.rows_K)
        if end - start == reach and np.count_nonzero(is_kept_K[start:end]) < num_each:
            return True
    return False


def features(query: Query, found: Candidates, trends: TrendView, items: ItemColumns) -> Floats:
    """The features of all candidates, shape (C, F), columns as `scoring.feature_names` says."""
    return features_together([query], [found], trends, items)


def features_together(
    queries: Sequence[Query], found: Sequence[Candidates], trends: TrendView, items: ItemColumns
) -> Floats:
    """The features (N, F) of the candidates of several lists, list after list; each as if it were alone."""
    rows_N = np.concatenate([one.rows_C for one in found])
    is_new_N = rows_N >= len(trends)
    touched_N = np.where(is_new_N, -1, rows_N)
    lengths = [len(one) for one in found]
    columns = [
        trends.popularity(touched_N),
        _share_features(np.concatenate([one.shares.of(one.rows_C) for one in found])),
        _vector_features(queries, found, touched_N, trends, items),
        trends.log_age(touched_N)[:, None],
        is_new_N[:, None],
        # The same for all candidates: they tell the scorer whom the list is for.
        np.repeat([np.log1p(len(query.seen)) for query in queries], lengths)[:, None],
        np.repeat([np.log1p(query.silent_ms / 1000) for query in queries], lengths)[:, None],
    ]
    return np.concatenate(columns, axis=1)


def rank(found: Candidates, features_CF: Floats, scorer: Scorer, num_items: int) -> list[RankedItem]:
    """The best candidates, best first; scores to six decimals, ties by item id."""
    return ranked(found, scores(scorer, features_CF), num_items)


def ranked(found: Candidates, scores_C: Floats, num_items: int) -> list[RankedItem]:
    """The same by scores."""
    rounded_C = scores_C.round(6) + 0.0
    places = np.arange(len(rounded_C))
    if len(rounded_C) > num_items:
        # All that tie with the last place: ids decide between them.
        place = len(rounded_C) - num_items
        places = np.flatnonzero(rounded_C >= np.partition(rounded_C, place)[place])
    ids = map(found.id_of, found.rows_C.take(places).tolist())
    ordered = sorted(zip((-rounded_C.take(places)).tolist(), ids, places.tolist(), strict=True))[:num_items]
    sources = found.sources_at(np.array([place for _, _, place in ordered], dtype=np.int64))
    return [
        RankedItem(item_id=item_id, score=-negated + 0.0, sources=names)
        for (negated, item_id, _), names in zip(ordered, sources, strict=True)
    ]


def near_shares(recent: Sequence[str], trends: TrendView) -> Shares:
    """What stood near the newest items. Sums in the order of these: they do not depend on how items came into the
    trends.
    """
    near = trends.near(recent[: len(RECENT_WEIGHTS)])
    rows_S, numbers_K = trends.numbers.distinct(np.concatenate([one.rows_K for one in near]))
    shares_XS = np.zeros((NUM_SHARES, len(rows_S)))
    parts = numbers_K[: len(near[0].rows_K)], numbers_K[len(near[0].rows_K) :]
    for source, (one, numbers) in enumerate(zip(near, parts, strict=True)):
        num_last = int(np.searchsorted(one.places_K, 1))
        weights_K = _RECENT_WEIGHTS.take(one.places_K)
        for memory, shares_K in enumerate(one.shares_MK):
            last, recent_items = len(NEAR_ITEMS) * source + memory, len(NEAR_ITEMS) * source + 2 + memory
            shares_XS[last] = _sums(numbers[:num_last], shares_K[:num_last], len(rows_S))
            shares_XS[recent_items] = _sums(numbers, weights_K * shares_K, len(rows_S))
    return Shares(rows_S, shares_XS, trends.numbers)


def _sums(numbers_K: Ints, values_K: Floats, num_rows: int) -> Floats:
    return np.bincount(numbers_K, values_K, minlength=num_rows).astype(np.float64, copy=False)


def _of_index(
    query: Query, trends: TrendView, num_each: int, columns: ViewColumns, is_seen_N: Bools
) -> tuple[Ints, list[str]]:
    """Rows of what the index brings, and the ids of those that are new to the trends."""
    rows_K = trends.rows_of(query.from_index)
    new = np.flatnonzero(rows_K < 0)
    if not len(new):
        is_kept_K = columns.available(rows_K) & ~is_seen_N.take(rows_K)
        return rows_K[is_kept_K][:num_each], []
    known = np.flatnonzero(rows_K >= 0)
    is_kept_K = ~is_seen_N.take(rows_K)
    is_kept_K[known] &= columns.available(rows_K.take(known))
    ids = list(map(query.from_index.__getitem__, new.tolist()))
    is_kept_K[new] = [item_id not in query.seen and columns.is_available(item_id) for item_id in ids]
    places = np.flatnonzero(is_kept_K)[:num_each]
    rows = rows_K.take(places)
    new_ids = [query.from_index[place] for place in places[rows < 0].tolist()]
    rows[rows < 0] = len(trends) + np.arange(len(new_ids))
    trends.numbers.reserve(len(trends) + len(new_ids))
    return rows, new_ids


def _share_features(shares_CX: Floats) -> Floats:
    return np.asarray(np.log(shares_CX + SHARE_FLOOR) - np.log(SHARE_FLOOR))


def _vector_features(
    queries: Sequence[Query], found: Sequence[Candidates], touched_N: Ints, trends: TrendView, items: ItemColumns
) -> Floats:
    """How far behind the best inner product, and whether there is no vector: (N, 2)."""
    numbers_N = _vector_numbers(found, touched_N, trends, items)
    has_vector_N = numbers_N >= 0
    columns_N2 = np.zeros((len(touched_N), 2))
    ends_N = np.concatenate([[0], has_vector_N.cumsum()])
    vectors_VD = items.vectors.vectors_at(numbers_N[has_vector_N]).astype(np.float64)
    end = 0
    for query, one in zip(queries, found, strict=True):
        start, end = end, end + len(one)
        if query.user_vector is None:
            continue
        columns_N2[start:end, 1] = ~has_vector_N[start:end]
        own_VD = vectors_VD[ends_N[start] : ends_N[end]]
        if len(own_VD):
            # Summed per row in float64, so that a candidate's score does not depend on its companions.
            dots = np.einsum("cd,d->c", own_VD, query.user_vector.astype(np.float64))
            columns_N2[start:end, 0][has_vector_N[start:end]] = np.maximum(dots - dots.max(), VECTOR_FLOOR)
    return columns_N2


def _vector_numbers(found: Sequence[Candidates], touched_N: Ints, trends: TrendView, items: ItemColumns) -> Ints:
    """The numbers of the candidates' vectors (N,), -1 where there is none."""
    if not any(one.new_ids for one in found):
        return items.of(trends).numbers(touched_N)
    numbers_N = np.empty(len(touched_N), dtype=np.int64)
    touched = np.flatnonzero(touched_N >= 0)
    numbers_N[touched] = items.of(trends).numbers(touched_N.take(touched))
    new_ids = [one.id_of(row) for one in found for row in one.rows_C[one.rows_C >= one.num_rows].tolist()]
    numbers_N[touched_N < 0] = items.vectors.numbers_of(new_ids)
    return numbers_N
