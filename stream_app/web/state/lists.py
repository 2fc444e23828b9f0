"""The newest list of each user, as bytes, and the answers that were made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream_app.web.state.bounded import Bounded

MAX_ANSWERS: Final = 10_000
"""Answers kept: some 40 MB of whole lists with titles."""

KEPT_S: Final = 10.0
"""For so long an answer with reasons is given again: they follow the trends, which change all the time."""


@dataclass(frozen=True)
class KeptAnswer:
    """An answer: of whose list and which version of the catalogue it was made, when, and its bytes.

    It holds while these are the newest, and `holds_s` at the longest.
    """

    user_id: str
    value: bytes
    catalogue: int
    made_s: float
    body: bytes
    holds_s: float = KEPT_S


class NewestLists:
    """The newest list of those users that had one last.

    Args:
        max_users: How many are kept.
    """

    def __init__(self, max_users: int) -> None:
        self._lists: Bounded[bytes] = Bounded(max_users)
        self._answers: Bounded[KeptAnswer] = Bounded(MAX_ANSWERS)

    @property
    def has_forgotten(self) -> bool:
        """Whether a user's list was forgotten for others."""
        return self._lists.has_forgotten

    def get(self, user_id: str) -> bytes | None:
        """The newest list of a user as it lies on the topic; None where it is not held."""
        return self._lists.get(user_id)

    def drop(self, user_id: str) -> None:
        """Hold no list of a user any more."""
        self._lists.drop(user_id)

    def put(self, user_id: str, value: bytes) -> None:
        """Hold a list."""
        self._lists.put(user_id, value)

    def answer(self, asked: str, catalogue: int, now_s: float) -> KeptAnswer | None:
        """The answer to a request, given as its path with the query, where one was kept that still holds."""
        kept = self._answers.get(asked)
        if kept is None or kept.catalogue != catalogue or now_s - kept.made_s >= kept.holds_s:
            return None
        # The very object: a newer list is another one, even where it is equal.
        return kept if kept.value is self._lists.get(kept.user_id) else None

    def keep(self, asked: str, answer: KeptAnswer) -> None:
        """Keep the answer to a request."""
        self._answers.put(asked, answer)
