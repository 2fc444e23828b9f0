"""The catalogue, held whole, with its words for searching."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from encoders.words import words_of
from stream_app.faustkit import Run
from stream_app.item_contents import read_item
from stream_app.records import Item
from stream_app.stages.clean import Rejection

PREFIX_CHARS = 3
"""From so many letters on, the beginning of a word finds it too."""


class Catalogue:
    """Items by id, filled from `items`."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._since_ms: dict[str, int] = {}
        self._words: dict[str, set[str]] = {}
        self._by_beginning: dict[str, set[str]] = {}
        self.version = 0
        """Grows with every change."""

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def newest(self, max_num: int) -> list[str]:
        """Items whose records came last, the newest first."""
        return list(islice(reversed(self._items), max_num))

    def get(self, item_id: str) -> Item | None:
        """An item; None where the catalogue does not know it."""
        return self._items.get(item_id)

    def title(self, item_id: str) -> str:
        """An item's title; its id where it has none."""
        item = self._items.get(item_id)
        return item_id if item is None or item.title is None else item.title

    def since_ms(self, item_id: str) -> int | None:
        """When the oldest record of an item that is still there was sent."""
        return self._since_ms.get(item_id)

    def categories(self, item_id: str) -> list[str]:
        """An item's category, or its tags where it has none."""
        item = self._items.get(item_id)
        if item is None:
            return []
        return item.tags if item.category is None else [item.category]

    def take(self, run: Run) -> None:
        """Take records of `items`; a null value deletes its item, and what is no item changes nothing."""
        for key, value, ts_ms in zip(run.keys, run.values, run.timestamps_ms, strict=True):
            # The role that makes vectors of items tells of what it refuses.
            if not isinstance(found := read_item(key, value), Rejection):
                self._put(*found, ts_ms)
        self.version += 1

    def search(self, text: str) -> dict[str, float]:
        """Items with words of `text` in their titles, and the sum of how rare these words are (natural logarithm).

        The last word may be unfinished. May be called from another thread: what it goes through are copies.
        """
        words = words_of(text)
        found: dict[str, float] = {}
        for place, word in enumerate(words):
            ids = self._with_word(word, is_last=place == len(words) - 1)
            rarity = math.log1p(len(self._items) / max(1, len(ids)))
            for item_id in list(ids):
                found[item_id] = found.get(item_id, 0.0) + rarity
        return found

    def _with_word(self, word: str, *, is_last: bool) -> set[str]:
        exact = self._words.get(word, set())
        if not is_last or len(word) < PREFIX_CHARS:
            return exact
        alike = list(self._by_beginning.get(word[:PREFIX_CHARS], ()))
        return exact.union(*(self._words[known] for known in alike if known.startswith(word)))

    def _put(self, item_id: str, item: Item | None, ts_ms: int) -> None:
        old = self._items.pop(item_id, None)
        for word in words_of(old.title or "") if old else ():
            self._words[word].discard(item_id)
        if item is None:
            self._since_ms.pop(item_id, None)
            return
        self._items[item_id] = item
        self._since_ms.setdefault(item_id, ts_ms)
        for word in words_of(item.title or ""):
            self._words.setdefault(word, set()).add(item_id)
            self._by_beginning.setdefault(word[:PREFIX_CHARS], set()).add(word)
