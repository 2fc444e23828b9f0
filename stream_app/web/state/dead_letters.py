"""The newest dead letters."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Final

from stream_app.faustkit import Run
from stream_app.web.answers import DeadLetter

MAX_KEPT: Final = 500
"""Dead letters kept: some hundred KB."""

EXCERPT_CHARS: Final = 200


class DeadLetters:
    """The newest records of `events-dead-letter`, cut short."""

    def __init__(self) -> None:
        self._kept: deque[DeadLetter] = deque(maxlen=MAX_KEPT)

    def newest(self, count: int) -> list[DeadLetter]:
        """The newest, newest first."""
        return list(islice(reversed(self._kept), count))

    def take(self, run: Run) -> list[DeadLetter]:
        """Take records; what they are."""
        taken = [
            _dead_letter({name: (text or b"").decode("utf-8", "replace") for name, text in headers}, value or b"")
            for headers, value in zip(run.headers, run.values, strict=True)
        ]
        self._kept.extend(taken)
        return taken


def _dead_letter(facts: Mapping[str, str], value: bytes) -> DeadLetter:
    return DeadLetter(
        class_=facts.get("class", ""),
        reason=facts.get("reason", ""),
        topic=facts.get("topic", ""),
        partition=_number(facts.get("partition", "")),
        offset=_number(facts.get("offset", "")),
        excerpt=value[: 4 * EXCERPT_CHARS].decode("utf-8", "replace")[:EXCERPT_CHARS],
    )


def _number(text: str) -> int:
    """The number a header holds; -1 where somebody else wrote something else."""
    return int(text) if text.isascii() and text.isdigit() else -1
