"""What the catalogue says of items, in the form the item tower reads."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from encoders.item_features import ItemContent
from stream_app.records import Item

_ITEM = msgspec.json.Decoder(Item)


def item_content(item: Item) -> ItemContent:
    """One item's content; its availability is no part of it."""
    return ItemContent(item.title, item.description, item.category, tuple(item.tags), item.price, item.image)


def item_contents(records: Iterable[tuple[bytes | None, bytes | None]]) -> tuple[dict[str, ItemContent], int]:
    """Contents by item id after these records of the `items` topic, keys and values, in order.

    Returns:
        The contents; a null value deletes its item. And how many records were no items and changed nothing.
    """
    contents: dict[str, ItemContent] = {}
    num_refused = 0
    for key, value in records:
        try:
            item_id = (key or b"").decode()
            if value is None:
                contents.pop(item_id, None)
            else:
                contents[item_id] = item_content(_ITEM.decode(value))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            num_refused += 1
    return contents, num_refused
