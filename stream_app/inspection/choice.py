"""How a list was chosen: every candidate with its sources, features and score, and what a rule kept out.

Nothing is decided here: the stages are called as the recommend role calls them, and watched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from encoders.contract import SliceEncoder
from index.contract import ItemIndex
from stream_app.inspection.vectors import EncodedUser
from stream_app.item_search import nearest_items
from stream_app.records import RankedItem, Recommendation
from stream_app.settings import Settings
from stream_app.stages.item_columns import ItemColumns
from stream_app.stages.learning import network_parts
from stream_app.stages.listing import (
    KnownItems,
    ListRule,
    ScorerInForce,
    make_list,
    queries_of,
    search_of,
)
from stream_app.stages.ranking import INDEX, Query, features, gather, kept_offers, near_shares, rank, seen_rows
from stream_app.stages.trend_view import TrendView

SEEN, UNAVAILABLE = "seen", "unavailable"
"""Rules that keep an item out before it is scored."""


class InspectedCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate; `features` are by name, and the score is the sum of each times the scorer's weight for it, plus what
    the scorer's `network` adds.

    `is_listed` is false below the length of a list.
    """

    rank: int
    item_id: str
    score: float
    sources: list[str]
    features: dict[str, float]
    network: float
    is_listed: bool


class RemovedItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item that a source offered and a rule kept out."""

    item_id: str
    rule: str
    sources: list[str]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A list made now, with all that was chosen from."""

    recommendation: Recommendation
    candidates: list[InspectedCandidate]
    removed: list[RemovedItem]


class ListChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two lists: items only in the second, only in the first, and [item, rank before, after]."""

    items_in: list[str]
    items_out: list[str]
    moved: list[tuple[str, int, int]]


@dataclass(frozen=True)
class Recommender:
    """What lists are made with, besides users and trends.

    Args:
        settings: The settings.
        encoder: The trained encoder.
        index: The index of all its items.
        rule: What lists are made with.
        is_available: Whether an item may be listed.
        scorer: The scorer in force.
        version: Names what is in the index.
    """

    settings: Settings
    encoder: SliceEncoder
    index: ItemIndex
    rule: ListRule
    is_available: Callable[[str], bool]
    scorer: ScorerInForce
    version: str

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the scorer in force by feature."""
        return dict(zip(self.scorer.scorer.feature_names, self.scorer.scorer.weights, strict=True))

    def choose(self, user: EncodedUser, trends: TrendView) -> Choice:
        """Make the list of a user with these trends, and tell everything that led to it."""
        user_id = user.asked.user_id
        profiles = {user_id: user.profile}
        search = search_of([user_id], profiles, self.rule.candidates)
        query = queries_of(search, profiles, nearest_items(self.index, search))[user_id]
        items = ItemColumns(self.index, self.is_available)
        made = make_list(user.asked, query, trends, KnownItems(self.version, items), self.rule, self.scorer)
        # The index leaves out by itself what is not available: here it is asked for everything.
        everything = self.index.search(search.vectors_UD, max(search.limits)).ids
        offered = queries_of(search, profiles, everything)[user_id]
        return Choice(
            recommendation=made,
            candidates=self._candidates(query, trends, items),
            removed=self._removed(offered, trends, items),
        )

    def _removed(self, query: Query, trends: TrendView, items: ItemColumns) -> list[RemovedItem]:
        """What rules keep out of everything that sources bring for a query."""
        brought = _brought(query, trends, items, self.rule.candidates)
        removed = {SEEN: dict[str, None](), UNAVAILABLE: dict[str, None]()}
        for ids in brought.values():
            num_left = self.rule.candidates
            for item_id in ids:
                if item_id in query.seen:
                    removed[SEEN][item_id] = None
                elif not self.is_available(item_id):
                    removed[UNAVAILABLE][item_id] = None
                else:
                    num_left -= 1
                if not num_left:
                    break
        return [
            RemovedItem(item_id=item_id, rule=rule, sources=[name for name, ids in brought.items() if item_id in ids])
            for rule, ids in removed.items()
            for item_id in ids
        ]

    def _candidates(self, query: Query, trends: TrendView, items: ItemColumns) -> list[InspectedCandidate]:
        found = gather(query, trends, self.rule.candidates, items)
        features_CF = features(query, found, trends, items)
        ranked = rank(found, features_CF, self.scorer.scorer, len(found))
        rows = dict(zip(found.ids, features_CF.tolist(), strict=True))
        network = dict(zip(found.ids, network_parts(self.scorer.scorer, features_CF).tolist(), strict=True))
        return [
            InspectedCandidate(
                rank=place,
                item_id=item.item_id,
                score=item.score,
                sources=item.sources,
                features=dict(zip(self.weights, rows[item.item_id], strict=True)),
                network=network[item.item_id],
                is_listed=place <= self.rule.list_items,
            )
            for place, item in enumerate(ranked, start=1)
        ]


def list_changes(before: Sequence[str], after: Sequence[str]) -> ListChanges:
    """What differs between two lists of item ids; an item has moved where its rank differs, counted from 1."""
    old = {item_id: place for place, item_id in enumerate(before, start=1)}
    new = {item_id: place for place, item_id in enumerate(after, start=1)}
    return ListChanges(
        items_in=[item_id for item_id in new if item_id not in old],
        items_out=[item_id for item_id in old if item_id not in new],
        moved=[(item_id, old[item_id], place) for item_id, place in new.items() if old.get(item_id, place) != place],
    )


def differences(published: Recommendation, made: Recommendation) -> list[str]:
    """What differs between a published list and the same made anew; empty where they are equal, item by item."""
    fields = ("release", "index_version", "epoch", "scorer_epoch", "event_ts")
    found = [
        f"{name} is {getattr(made, name)}, published was {getattr(published, name)}"
        for name in fields
        if getattr(made, name) != getattr(published, name)
    ]
    if len(made.items) != len(published.items):
        found.append(f"{len(made.items)} items, published were {len(published.items)}")
    for place, (one, other) in enumerate(zip(made.items, published.items, strict=False), start=1):
        if one != other:
            found.append(f"rank {place} is {_said(one)}, published was {_said(other)}")
    return found


def _said(item: RankedItem) -> str:
    return f"{item.item_id} ({item.score:.6f}, {'+'.join(item.sources)})"


def _brought(query: Query, trends: TrendView, items: ItemColumns, num_each: int) -> dict[str, list[str]]:
    """All that each source brings, best first."""
    brought = {INDEX: list(query.from_index)}
    shares, columns = near_shares(query.recent, trends), items.of(trends)
    for offer in kept_offers(query, trends, num_each, shares, columns, seen_rows(query, trends))[0]:
        rows = offer.first(len(offer.rows_K), np.ones(len(offer.rows_K), dtype=np.bool_), trends)
        brought[offer.source] = [trends.item_ids[row] for row in rows.tolist()]
    return brought
