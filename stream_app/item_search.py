"""The items nearest to users, as lists ask the index for them; and what it knows of the catalogue for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from index.contract import ItemAttributes, ItemFilter, ItemIndex
from stream_app.stages.listing import Search

AVAILABLE: Final = ItemFilter(available_only=True)
"""What every search for people asks for."""

_NOT_AVAILABLE: Final = ItemAttributes(available=False)


def tell_availability(index: ItemIndex, available: Mapping[str, bool]) -> None:
    """Tell an index which items may be offered, by id. Those of which it is told nothing may."""
    hidden = [item_id for item_id, is_available in available.items() if not is_available]
    index.remove_attributes([item_id for item_id, is_available in available.items() if is_available])
    index.upsert_attributes(hidden, [_NOT_AVAILABLE] * len(hidden))


def nearest_items(index: ItemIndex, search: Search) -> list[list[str]]:
    """For each vector of a search the available items of greatest inner product, best first; none where there are none.

    There are as many as the greatest limit of the search says while so many are available.
    """
    return index.search(search.vectors_UD, max(search.limits), filter=AVAILABLE).ids
