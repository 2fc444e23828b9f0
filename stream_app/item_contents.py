"""What the catalogue says of items: its records read and refused, and their contents as the item tower reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from encoders.item_features import ItemContent
from stream_app.records import Item
from stream_app.stages.clean import MAX_ID_CHARS, Rejection

MAX_ITEM_BYTES: Final = 1024 * 1024
"""Longest value. Descriptions may be whole articles, of 100 KB at most in the logs seen."""

_ITEM = msgspec.json.Decoder(Item)


def read_item(key: bytes | None, value: bytes | None) -> tuple[str, Item | None] | Rejection:
    """The item in one record of `items`, or why there is none; never raises, whatever the bytes.

    Returns:
        The item's id, and what is said of it; None where it is deleted.
    """
    if key is None:
        return Rejection("null_key", "the record has no key; expected the item id in UTF-8")
    try:
        item_id = key.decode()
    except UnicodeDecodeError as error:
        return Rejection("bad_utf8", f"the key is no UTF-8 at byte {error.start}")
    if not 0 < len(item_id) <= MAX_ID_CHARS:
        reason = "text_too_long" if item_id else "empty_id"
        return Rejection(reason, f"the key has {len(item_id)} characters; expected 1 to {MAX_ID_CHARS}")
    if value is None:
        return item_id, None
    if len(value) > MAX_ITEM_BYTES:
        return Rejection("value_too_large", f"the value has {len(value)} bytes; at most {MAX_ITEM_BYTES} are read")
    try:
        item = _ITEM.decode(value)
    except msgspec.ValidationError as error:
        return Rejection("wrong_type", f"the value is no item: {error}")
    except RecursionError:
        return Rejection("too_deep", "the value is nested hundreds of levels deep; expected a plain item")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Rejection("not_json", f"the value is no JSON: {error}")
    if item.item_id != item_id:
        return Rejection("key_mismatch", "the key and the item id differ; they must be equal")
    return item_id, item


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
        read = read_item(key, value)
        if isinstance(read, Rejection):
            num_refused += 1
            continue
        item_id, item = read
        if item is None:
            contents.pop(item_id, None)
        else:
            contents[item_id] = item_content(item)
    return contents, num_refused
