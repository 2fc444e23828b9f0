"""A log as the judged methods see it: touches they learn from, and questions just before a touch.

Items and users are rows here: numbers in order of first occurrence. Shapes: N items known so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_app.records import Event

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

UNKNOWN_ROW = -1
"""Row of an item that nobody touched yet, and of what stands before a user's first item."""


@dataclass(frozen=True)
class Touch:
    """A user's touch of an item.

    Args:
        ts_ms: Event time.
        user: The user's row.
        item: The item's row.
        previous: The user's newest other item, `UNKNOWN_ROW` if there is none.
        is_new: Whether it is the user's first touch of the item; several types and repeats count once.
    """

    ts_ms: int
    user: int
    item: int
    previous: int
    is_new: bool


@dataclass(frozen=True)
class Question:
    """Which of all items known so far, but those the user has seen, comes next?

    Args:
        ts_ms: Time of the question.
        user: The user's row.
        recent: The user's items, newest first, each once.
        seen_N: Whether the user has seen each item; only valid until the next question.
    """

    ts_ms: int
    user: int
    recent: Sequence[int]
    seen_N: Bools

    @property
    def num_candidates(self) -> int:
        """Items that compete."""
        return len(self.seen_N) - len(self.recent)


class Histories:
    """What every user touched, as a log goes by."""

    def __init__(self) -> None:
        self.item_ids: list[str] = []
        self._first_ms: list[int] = []
        self._item_rows: dict[str, int] = {}
        self._user_rows: dict[str, int] = {}
        self._items_by_user: list[dict[int, None]] = []
        self._seen = np.zeros(1024, dtype=np.bool_)
        self._marked: list[int] = []

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.item_ids)

    def item_row(self, item_id: str) -> int:
        """The item's row, `UNKNOWN_ROW` before its first touch."""
        return self._item_rows.get(item_id, UNKNOWN_ROW)

    def item_age_ms(self, row: int, ts_ms: int) -> int | None:
        """Time from an item's first touch to `ts_ms`; None where nobody touched it."""
        return None if row == UNKNOWN_ROW else ts_ms - self._first_ms[row]

    def items_by_user(self) -> list[Ints]:
        """Each user's items, oldest first, each once."""
        return [np.array(list(items), dtype=np.int64) for items in self._items_by_user]

    def has_seen(self, user_id: str, item_id: str) -> bool:
        """Whether the user touched the item before."""
        user = self._user_rows.get(user_id)
        return user is not None and self._item_rows.get(item_id, UNKNOWN_ROW) in self._items_by_user[user]

    def knows_user(self, user_id: str) -> bool:
        """Whether the user touched anything before."""
        return user_id in self._user_rows

    def question(self, user_id: str, ts_ms: int) -> Question:
        """What is to be asked about a known user now."""
        user = self._user_rows[user_id]
        items = self._items_by_user[user]
        self._seen[self._marked] = False
        self._marked = list(items)
        self._seen[self._marked] = True
        return Question(ts_ms, user, self._marked[::-1], self._seen[: self.num_items])

    def take(self, event: Event) -> Touch:
        """Take an event in."""
        user = self._user_rows.setdefault(event.user_id, len(self._user_rows))
        if user == len(self._items_by_user):
            self._items_by_user.append({})
        item = self._item_rows.setdefault(event.item_id, len(self.item_ids))
        if item == len(self.item_ids):
            self.item_ids.append(event.item_id)
            self._first_ms.append(event.ts)
            if item == len(self._seen):
                self._seen = np.concatenate([self._seen, np.zeros_like(self._seen)])
        items = self._items_by_user[user]
        is_new = item not in items
        items.pop(item, None)
        previous = next(reversed(items), UNKNOWN_ROW)
        items[item] = None
        return Touch(event.ts, user, item, previous, is_new)
