"""Lists in the words of the API: cut, filtered, with what the catalogue says of the items, and with why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from stream_app.records import RankedItem, Recommendation
from stream_app.web.answers import ListAnswer, ListedItem
from stream_app.web.state.catalogue import Catalogue
from stream_app.web.state.held import Held
from stream_app.web.streams import event_bytes
from stream_app.web.why import Recent, explain

LIST = msgspec.json.Decoder(Recommendation)

NUM_RECENT: Final = 10
"""The user's own items that may be a reason."""

MAX_COUNT: Final = 200
MAX_PRICE: Final = 1e15


class ListQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a list is asked for."""

    count: Annotated[int, Meta(ge=1, le=MAX_COUNT, description="items at most")] = 10
    category: Annotated[str, Meta(description="only items of this category, or with this tag")] | None = None
    max_price: Annotated[float, Meta(ge=0, le=MAX_PRICE, description="only items that cost at most this")] | None = None
    why: Annotated[int, Meta(ge=0, le=1, description="1: say what leads to each item")] = 0

    @property
    def is_filtered(self) -> bool:
        """Whether some items may not be answered."""
        return self.category is not None or self.max_price is not None


def kept(held: Held, lines: list[RankedItem], query: ListQuery) -> list[RankedItem]:
    """The lines that a query lets through, as many as it asks for."""
    if not query.is_filtered:
        return lines[: query.count]
    return [line for line in lines if fits(held.catalogue, line.item_id, query)][: query.count]


def list_answer(
    held: Held, made: Recommendation, query: ListQuery, *, user_id: str | None, added: Sequence[RankedItem] = ()
) -> ListAnswer:
    """A list as it is answered, `added` behind its own items."""
    published = kept(held, made.items, query)
    items = [listed_item(held, line) for line in (*published, *added)]
    if query.why and user_id is not None:
        items = _with_why(held, items, recent_of(held, user_id))
    return ListAnswer(
        user_id=user_id,
        recommendation_id=made.recommendation_id,
        event_ts=made.event_ts,
        release=made.release,
        epoch=made.epoch,
        scorer_epoch=made.scorer_epoch,
        age_ms=0,
        has_vector=made.has_vector,
        items=items,
        num_published=len(published) if query.is_filtered else msgspec.UNSET,
    )


def popular_lines(held: Held) -> list[RankedItem]:
    """What is popular and available, most popular first; more than any answer has, to choose from where most is
    filtered out."""
    popular = held.trends.popular(10 * MAX_COUNT)
    available = [item_id for item_id in popular if held.item_view.is_available(item_id)]
    return [RankedItem(item_id=item_id, score=0.0, sources=["popular"]) for item_id in available]


def popular_answer(held: Held, user_id: str, lines: Sequence[RankedItem]) -> ListAnswer:
    """What is popular, for a user without a list: these lines."""
    return ListAnswer(
        user_id=user_id,
        recommendation_id="",
        event_ts=None,
        release=held.model.release,
        epoch=held.trends.view.epoch,
        scorer_epoch=-1,
        age_ms=0,
        has_vector=False,
        items=[listed_item(held, line) for line in lines],
        fallback="popular",
    )


def list_event(held: Held, made: Recommendation, freshness_ms: float | None) -> bytes:
    """A list as it is told on its user's stream."""
    answer = list_answer(held, made, ListQuery(count=MAX_COUNT, why=1), user_id=made.user_id)
    told = msgspec.structs.replace(answer, freshness_ms=freshness_ms)
    return event_bytes("list", told, made.recommendation_id)


def listed_item(held: Held, line: RankedItem) -> ListedItem:
    """A line of a list with what is known of its item."""
    item = held.catalogue.get(line.item_id)
    return ListedItem(
        item_id=line.item_id,
        title=held.catalogue.title(line.item_id),
        category=None if item is None else item.category,
        price=None if item is None else item.price,
        available=held.item_view.is_available(line.item_id),
        score=line.score,
        sources=line.sources,
    )


def recent_of(held: Held, user_id: str) -> Recent:
    """The newest items of a user's held slices, newest first, each once."""
    user = held.users.get(user_id)
    slices = [] if user is None else user.seen_slices()
    seqs: dict[str, int] = {}
    for part in reversed(slices):
        for event in reversed(part.events):
            seqs.setdefault(event.item_id, part.seq)
    ids = list(seqs)[:NUM_RECENT]
    return Recent(ids, [held.catalogue.title(item_id) for item_id in ids], [seqs[item_id] for item_id in ids])


def _with_why(held: Held, items: list[ListedItem], recent: Recent) -> list[ListedItem]:
    listed = [item.item_id for item in items]
    vectors_LD, _ = held.index.vectors_of(listed)
    vectors_RD, _ = held.index.vectors_of(list(recent.item_ids))
    reasons = explain(listed, recent, vectors_LD, vectors_RD, held.trends.led_to(recent.item_ids, listed))
    return [msgspec.structs.replace(item, why=why) for item, why in zip(items, reasons, strict=True)]


def fits(catalogue: Catalogue, item_id: str, query: ListQuery) -> bool:
    """Whether a query lets an item through."""
    item = catalogue.get(item_id)
    if item is None:
        return False
    if query.category is not None and query.category != item.category and query.category not in item.tags:
        return False
    return query.max_price is None or (item.price is not None and item.price <= query.max_price)
