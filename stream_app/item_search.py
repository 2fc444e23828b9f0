"""The items nearest to users, as lists ask the index for them; and what it knows of the catalogue for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from index.checks import MAX_CATEGORIES
from index.contract import ItemAttributes, ItemFilter, ItemIndex
from stream_app.records import Item
from stream_app.stages.listing import Search

AVAILABLE: Final = ItemFilter(available_only=True)
"""What every search for people asks for."""

_NOT_AVAILABLE: Final = ItemAttributes(available=False)


def tell_availability(index: ItemIndex, available: Mapping[str, bool]) -> None:
    """Tell an index which items may be offered, by id. Those of which it is told nothing may."""
    hidden = [item_id for item_id, is_available in available.items() if not is_available]
    index.remove_attributes([item_id for item_id, is_available in available.items() if is_available])
    index.upsert_attributes(hidden, [_NOT_AVAILABLE] * len(hidden))


def tell_items(index: ItemIndex, items: Mapping[str, Item | None]) -> None:
    """Tell an index all that filters may ask of items, by id; of those that are None, that they may not be offered.

    Category and tags count alike; of more than an index takes, the category and the first tags.
    """
    told = [_NOT_AVAILABLE if item is None else attributes_of(item) for item in items.values()]
    index.upsert_attributes(list(items), told)


def attributes_of(item: Item) -> ItemAttributes:
    """What filters may ask of an item.

    >>> attributes_of(Item(item_id="a", category="tea", tags=["hot"], price=2.5)).price
    2.5
    """
    named = [*([] if item.category is None else [item.category]), *item.tags]
    return ItemAttributes(frozenset(named[:MAX_CATEGORIES]), item.price, item.available)


def nearest_items(index: ItemIndex, search: Search) -> list[list[str]]:
    """For each vector of a search the available items of greatest inner product, best first; none where there are none.

    There are as many as the greatest limit of the search says while so many are available.
    """
    return index.search(search.vectors_UD, max(search.limits), filter=AVAILABLE).ids
