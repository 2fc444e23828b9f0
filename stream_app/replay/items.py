"""Item files for replay: NDJSON, plain or gzipped, one item per line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from stream_app.errors import LogFormatError
from stream_app.replay.fields import text_of
from stream_app.replay.sources import BYTE_ORDER_MARK, lines_of

ITEM_ALIASES: Mapping[str, tuple[str, ...]] = {
    "item_id": ("item_id", "item", "id"),
    "title": ("title", "name"),
    "description": ("description", "text"),
    "category": ("category",),
    "tags": ("tags", "genres"),
    "price": ("price",),
    "image": ("image", "image_url"),
    "available": ("available",),
}
"""Names tried for each field of an item, in this order."""

TAG_SEPARATORS = re.compile(r"[|;,]")


def read_items(path: str | Path) -> Iterator[dict[str, object]]:
    """Read an item file, one line at a time.

    Each item has `item_id` (text) and whichever it has of `title`, `description`, `category`, `tags` (a list
    of text), `price`, `image` and `available`. Other fields are left out; `genres` are read as tags.

    Raises:
        LogFormatError: The file cannot be read, or a line is no item: names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise LogFormatError(f"There is no item file {path}.", mend="pass the path of an NDJSON file of items.")
    for number, line in enumerate(lines_of(path), start=1):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if text.strip():
            yield _item_of(text, where=f"Line {number} of {path}")


def _item_of(line: bytes, *, where: str) -> dict[str, object]:
    try:
        parsed = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise LogFormatError(f"{where} is not JSON: {error}.", mend="write one JSON object per line.") from error
    if not isinstance(parsed, dict):
        raise LogFormatError(f"{where} is no JSON object.", mend="write one JSON object per line.")
    item: dict[str, object] = {}
    for field, names in ITEM_ALIASES.items():
        value = next((parsed[name] for name in names if parsed.get(name) not in (None, "")), None)
        if value is not None:
            item[field] = _tags_of(value) if field == "tags" else value
    item_id = text_of(item.get("item_id"))
    if item_id is None:
        raise LogFormatError(
            f"{where} names no item; it has {', '.join(sorted(parsed)) or 'nothing'}.",
            mend=f"give each item one of {', '.join(ITEM_ALIASES['item_id'])}: text or a whole number.",
        )
    return {**item, "item_id": item_id}


def _tags_of(value: object) -> list[str]:
    parts = value if isinstance(value, list) else TAG_SEPARATORS.split(str(value))
    return [tag for part in parts if (tag := str(part).strip())]
