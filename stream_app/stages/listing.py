"""What the recommend role does with slice vectors: whom a list is due to, what it is made for, and the list itself.

Pure: the index is asked by whoever holds it, between `search_of` and `queries_of`.

Shapes: U users, D dimensions, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from stream_app.records import Recommendation, SliceVectorRecord
from stream_app.stages.item_columns import ItemColumns
from stream_app.stages.learning import Scorer, scores
from stream_app.stages.profile import UserProfile, recent_items, take_slice_vector
from stream_app.stages.ranking import Candidates, Query, features_together, gather, ranked
from stream_app.stages.score_rule import ScoreRule
from stream_app.stages.trend_view import TrendView

MAX_SEARCH = 1000
"""Most items asked of the index for one user: candidates plus what the user has seen."""


LISTS_AT_ONCE = 8
"""Lists made together: what numpy asks for each call is shared, some 100 kB of vectors each stay in the cache, and an
event loop is held for a few milliseconds."""


@dataclass(frozen=True)
class ListRule:
    """What lists are made with.

    Args:
        events: Full name of the events topic, part of each list's id.
        release: The release whose vectors are accepted.
        scorer: The model's own scorer, for lists before any choice was learned from.
        score: Scorer-epochs.
        list_items: Length of a list.
        candidates: Candidates of each source.
    """

    events: str
    release: str
    scorer: Scorer
    score: ScoreRule
    list_items: int
    candidates: int


@dataclass(frozen=True)
class ScorerInForce:
    """What ranks a list: a scorer, and the scorer-epoch it was learned up to (-1: it is the model's own)."""

    scorer: Scorer
    epoch: int = -1


@dataclass(frozen=True)
class KnownItems:
    """The items as a list may use them.

    Args:
        version: Names what is in the index.
        columns: Which of them may be listed, and their vectors.
    """

    version: str
    columns: ItemColumns


@dataclass(frozen=True)
class Search:
    """What the index is asked for: users, their vectors (U, D), and how many items each one may get."""

    users: Sequence[str]
    vectors_UD: npt.NDArray[np.float32]
    limits: Sequence[int]


def take_vectors(
    records: Iterable[SliceVectorRecord], profiles: dict[str, UserProfile], release: str
) -> list[SliceVectorRecord]:
    """Bring the profiles up to date (changed in place; new users are added).

    Returns:
        Of each user with a new event the record that the next list answers. Records of other releases are left out.
    """
    asked: dict[str, SliceVectorRecord] = {}
    for record in records:
        if record.release != release:
            continue
        profile = profiles.setdefault(record.user_id, UserProfile())
        if take_slice_vector(profile, record) and record.fresh and record.offset > profile.answered:
            profile.answered = record.offset
            asked[record.user_id] = record
    return list(asked.values())


def by_epoch(asked: Sequence[SliceVectorRecord]) -> list[tuple[int | None, list[SliceVectorRecord]]]:
    """Records by the epoch they need, oldest first; those that take the newest come last."""
    groups: dict[int | None, list[SliceVectorRecord]] = {}
    for record in asked:
        groups.setdefault(record.join_epoch, []).append(record)
    return sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or 0))


def search_of(users: Sequence[str], profiles: Mapping[str, UserProfile], candidates: int) -> Search:
    """What to ask the index for these users (at least one), all of whom have a profile with a vector."""
    vectors = [np.frombuffer(profiles[user_id].user_vector, dtype="<f4") for user_id in users]
    limits = [min(MAX_SEARCH, candidates + len(profiles[user_id].seen)) for user_id in users]
    return Search(users, np.stack(vectors), limits)


def queries_of(search: Search, profiles: Mapping[str, UserProfile], found: Sequence[Sequence[str]]) -> dict[str, Query]:
    """What each user's list is made for, with the items that the index gave; of those each user gets the own number.

    What a user gets must not depend on who else was asked for at the same time.
    """
    return {
        user_id: Query(frozenset(profile.seen), recent_items(profile), vector_D, ids[:limit])
        for user_id, vector_D, ids, limit in zip(search.users, search.vectors_UD, found, search.limits, strict=True)
        for profile in [profiles[user_id]]
    }


def offered(
    query: Query, trends: TrendView, items: KnownItems, candidates: int
) -> tuple[Candidates, npt.NDArray[np.float64]]:
    """The candidates for a query, and their features (C, F) in the same order."""
    return offered_each([query], trends, items, candidates)[0]


def offered_each(
    queries: Sequence[Query], trends: TrendView, items: KnownItems, candidates: int
) -> list[tuple[Candidates, npt.NDArray[np.float64]]]:
    """The same for each of some queries (one to `LISTS_AT_ONCE`), each as if alone."""
    found, features_NF = _offered_together(queries, trends, items, candidates)
    return [(one, features_NF[rows]) for one, rows in zip(found, _rows_of_each(found), strict=True)]


def _offered_together(
    queries: Sequence[Query], trends: TrendView, items: KnownItems, candidates: int
) -> tuple[list[Candidates], npt.NDArray[np.float64]]:
    """The candidates for each, and the features (N, F) of all of them, query after query."""
    found = [gather(query, trends, candidates, items.columns) for query in queries]
    return found, features_together(queries, found, trends, items.columns)


def _rows_of_each(found: Sequence[Candidates]) -> list[slice]:
    """Where the candidates for each query stand among those of all."""
    ends = np.cumsum([len(one) for one in found]).tolist()
    return [slice(end - len(one), end) for one, end in zip(found, ends, strict=True)]


def make_lists(
    records: Sequence[SliceVectorRecord],
    queries: Mapping[str, Query],
    trends: TrendView,
    items: KnownItems,
    rule: ListRule,
    in_force: ScorerInForce,
) -> list[Recommendation]:
    """The lists that answer the events of `records` (one to `LISTS_AT_ONCE`), each as if alone, with the trends as they
    are; `queries` by user id.
    """
    found, features_NF = _offered_together(
        [queries[record.user_id] for record in records], trends, items, rule.candidates
    )
    scores_N = scores(in_force.scorer, features_NF)
    return [
        Recommendation(
            recommendation_id=recommendation_id(rule, record, items.version, trends.epoch, in_force.epoch),
            user_id=record.user_id,
            event_ts=record.last_ts,
            partition=record.partition,
            offset=record.offset,
            release=rule.release,
            index_version=items.version,
            epoch=trends.epoch,
            has_vector=True,
            items=ranked(one, scores_N[rows], rule.list_items),
            scorer_epoch=in_force.epoch,
        )
        for record, one, rows in zip(records, found, _rows_of_each(found), strict=True)
    ]


def make_list(
    record: SliceVectorRecord,
    query: Query,
    trends: TrendView,
    items: KnownItems,
    rule: ListRule,
    in_force: ScorerInForce,
) -> Recommendation:
    """The list that answers the event of `record`, with the trends as they are."""
    return make_lists([record], {record.user_id: query}, trends, items, rule, in_force)[0]


def recommendation_id(
    rule: ListRule, record: SliceVectorRecord, index_version: str, epoch: int, scorer_epoch: int
) -> str:
    """The id of a list: a hash of everything it is a function of."""
    parts = (rule.events, record.partition, record.offset, rule.release, index_version, epoch, scorer_epoch)
    return blake2b("\x00".join(map(str, parts)).encode(), digest_size=12).hexdigest()


def index_version(release: str, num_items: int) -> str:
    """Names what is in an index, the same for the same content."""
    return f"{release}/{num_items}"
