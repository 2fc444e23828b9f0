"""Items: one, its neighbours, ordered parts of the catalogue, and search by text."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stream_app.web.answers import (
    BrowsedItem,
    Follower,
    ItemAnswer,
    ItemsAnswer,
    SearchAnswer,
    SimilarAnswer,
)
from stream_app.web.calls import Call
from stream_app.web.problems import Problem
from stream_app.web.searching import search_meaning, search_words, titled
from stream_app.web.state.held import Held

NUM_FOLLOWERS = 10

Count = Annotated[int, Meta(ge=1, le=200, description="items at most")]


class SimilarQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How neighbours are asked for."""

    count: Count = 10


class ItemsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a part of the catalogue is asked for.

    newest: touched for the first time most lately; cold: never touched, or without a vector, newest record first;
    popular: touched most.
    """

    order: Literal["newest", "cold", "popular"] = "newest"
    count: Count = 50


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is searched for, and for whom."""

    q: Annotated[str, Meta(min_length=1, max_length=1024, description="words of the title")]
    user: Annotated[str, Meta(max_length=256, description="the user whose taste counts")] | None = None
    count: Count = 20


async def one(call: Call) -> ItemAnswer:
    """What is known of an item."""
    held, item_id = call.service.held, call.id_in_path("item_id")
    item, first_touch_ms = held.catalogue.get(item_id), held.trends.first_touch_ms(item_id)
    has_vector = held.items.has(item_id)
    if item is None and first_touch_ms is None and not has_vector:
        raise _unknown(item_id)
    return ItemAnswer(
        item_id=item_id,
        title=held.catalogue.title(item_id),
        description=None if item is None else item.description,
        category=None if item is None else item.category,
        tags=[] if item is None else item.tags,
        price=None if item is None else item.price,
        image=None if item is None else item.image,
        available=held.item_view.is_available(item_id),
        vector_norm=round(held.items.norm(item_id), 4) if has_vector else None,
        is_trained=item_id in held.model.trained_items,
        touches=held.trends.counts(item_id),
        first_seen_ts=_first_seen_ms(held, item_id),
        followers=[
            Follower(item_id=other, title=held.catalogue.title(other), weight=weight)
            for other, weight in held.trends.followers(item_id, NUM_FOLLOWERS)
        ],
    )


async def similar(call: Call) -> SimilarAnswer:
    """The items nearest to one."""
    held, item_id, query = call.service.held, call.id_in_path("item_id"), call.query(SimilarQuery)
    if not held.items.has(item_id):
        if held.catalogue.get(item_id) is None and held.trends.first_touch_ms(item_id) is None:
            raise _unknown(item_id)
        return SimilarAnswer(item_id=item_id, items=[])
    near = await call.service.compute(lambda: held.items.similar(item_id, query.count))
    return SimilarAnswer(item_id=item_id, items=titled(held.catalogue, near))


async def browse(call: Call) -> ItemsAnswer:
    """An ordered part of the catalogue."""
    held, query = call.service.held, call.query(ItemsQuery)
    if query.order == "cold":
        ids = await call.service.compute(lambda: _cold(held, query.count))
    else:
        ids = held.trends.newest(query.count) if query.order == "newest" else held.trends.popular(query.count)
    return ItemsAnswer(items=[_browsed(held, item_id) for item_id in ids])


async def search(call: Call) -> SearchAnswer:
    """Items by text."""
    service, query = call.service, call.query(SearchQuery)
    held, user_id = service.held, query.user
    if held.model.reads_words:
        text_D = await service.encoder.text_vector(query.q)
        # Words that training never saw mean nothing; titles may have them all the same.
        if text_D.any():
            return await service.compute(lambda: search_meaning(held, query.q, text_D, user_id, query.count))
    return await service.compute(lambda: search_words(held, query.q, user_id, query.count))


def _browsed(held: Held, item_id: str) -> BrowsedItem:
    item = held.catalogue.get(item_id)
    return BrowsedItem(
        item_id=item_id,
        title=held.catalogue.title(item_id),
        category=None if item is None else item.category,
        first_seen_ts=_first_seen_ms(held, item_id),
        counts=held.trends.counts(item_id),
    )


def _first_seen_ms(held: Held, item_id: str) -> int | None:
    touched_ms = held.trends.first_touch_ms(item_id)
    return held.catalogue.since_ms(item_id) if touched_ms is None else touched_ms


def _cold(held: Held, count: int) -> list[str]:
    ids = list(held.catalogue)
    _, found = held.index.vectors_of(ids)
    cold = [
        item_id
        for item_id, has_vector in zip(ids, found.tolist(), strict=True)
        if not has_vector or held.trends.first_touch_ms(item_id) is None
    ]
    return sorted(cold, key=lambda item_id: (-(_first_seen_ms(held, item_id) or 0), item_id))[:count]


def _unknown(item_id: str) -> Problem:
    return Problem(
        404,
        f"The item {item_id!r} is not in the catalogue, was never touched, and has no vector.",
        mend="send its record to the topic `items`",
    )
