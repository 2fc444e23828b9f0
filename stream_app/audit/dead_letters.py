"""Dead letters: each names its origin, and holds the bytes that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stream_app.audit.findings import Check
from stream_app.audit.runs import digest
from stream_app.dead_letters import MAX_DEAD_BYTES
from stream_app.faustkit.run import Run
from stream_app.stages.clean import Rejection
from stream_app.stages.intake import Content

FACTS: Final = ("class", "reason", "topic", "partition", "offset")
"""The headers that every dead letter has."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What is held of a dead letter: its own place, its reason, and the fingerprint of what it says was there."""

    partition: int
    offset: int
    reason: str
    content: bytes


def content_of(key: bytes | None, value: bytes | None, full_bytes: int) -> bytes:
    """The fingerprint of an original: as much of its key and value as a letter keeps, and the value's full length."""
    parts = [b"" if part is None else b"." + part for part in (key, value)]
    return digest(*parts, b"%d" % full_bytes)


def original_content(key: bytes | None, value: bytes | None) -> bytes:
    """The fingerprint of a record on `events`, as its letter must have it."""
    kept = [None if part is None else part[:MAX_DEAD_BYTES] for part in (key, value)]
    return content_of(kept[0], kept[1], len(value or b""))


class DeadLetters:
    """All dead letters by their origin.

    Args:
        check: Takes the breaches.
        topic: Full name of the topic of dead letters.
        events: Full name of the topic they come from.
        ends: End offset of each of its partitions.
        others: Full names of other topics that letters may come from; these are not compared.
    """

    def __init__(
        self, check: Check, topic: str, events: str, ends: Mapping[int, int], others: Collection[str] = ()
    ) -> None:
        self.num_letters = 0
        self.num_removed = 0
        self._check = check
        self._topic = topic
        self._events = events
        self._ends = ends
        self._others = others
        self._by_origin: dict[int, dict[int, Letter]] = {}

    def take(self, run: Run) -> None:
        """Take consecutive records of the topic."""
        for place, offset in enumerate(run.offsets):
            self.num_letters += 1
            self._check.num_checked += 1
            facts = {name: (text or b"").decode("utf-8", "backslashreplace") for name, text in run.headers[place]}
            origin = self._origin(facts, run.partition, offset)
            if origin is None:
                continue
            value = run.values[place] or b""
            try:
                full_bytes = int(facts.get("truncated-from-bytes", len(value)))
            except ValueError:
                full_bytes = -1  # no original has this length, so it is noted when they are compared
            original = None if facts.get("null-value") == "true" else value
            letter = Letter(run.partition, offset, facts["reason"], content_of(run.keys[place], original, full_bytes))
            known = self._by_origin.setdefault(origin[0], {}).setdefault(origin[1], letter)
            if known.content != letter.content:
                seen = f"other bytes than the letter at offset {known.offset} of the same origin {origin}"
                self._breach(run.partition, offset, seen, "the original's bytes")

    def reasons(self, partition: int, up_to: int) -> dict[str, int]:
        """The letters of a partition of `events` up to an offset of it, by reason; each event once."""
        letters = self._by_origin.get(partition, {})
        return dict(Counter(letter.reason for offset, letter in letters.items() if offset <= up_to))

    def newest_origin(self, partition: int) -> int:
        """The greatest offset of a partition of `events` that a letter names; -1 where there is none."""
        return max(self._by_origin.get(partition, ()), default=-1)

    def skip_removed(self, partition: int, begin: int) -> None:
        """Count the letters whose originals retention has removed: they cannot be compared."""
        num = sum(offset < begin for offset in self._by_origin.get(partition, ()))
        if num:
            self.num_removed += num
            self._check.leave_out(
                f"{num} letters of {self._events}[{partition}]", f"their originals, below offset {begin}, were removed"
            )

    def compare(self, run: Run, contents: Sequence[Content], up_to: int) -> None:
        """Compare with the originals of one run of `events`, up to the offset that is known to be worked off."""
        letters = self._by_origin.get(run.partition, {})
        for place, offset in enumerate(run.offsets):
            letter = letters.get(offset)
            if letter is not None:
                if letter.content != original_content(run.keys[place], run.values[place]):
                    seen = f"the letter of {run.topic}[{run.partition}] offset {offset} holds other bytes"
                    self._breach(letter.partition, letter.offset, seen, "the original's key and value")
            elif offset <= up_to and isinstance(content := contents[place], Rejection):
                self._check.breach(
                    f"no dead letter, though the event is refused ({content.reason})",
                    f"one on {self._topic}",
                    topic=run.topic,
                    partition=run.partition,
                    offset=offset,
                )

    def _origin(self, facts: Mapping[str, str], partition: int, offset: int) -> tuple[int, int] | None:
        missing = [name for name in FACTS if not facts.get(name)]
        if missing:
            self._breach(partition, offset, f"no header {', '.join(missing)}", f"headers {', '.join(FACTS)}")
            return None
        if facts["topic"] in self._others:
            return None
        if facts["topic"] != self._events:
            self._breach(partition, offset, f"origin topic {facts['topic']!r}", self._events)
            return None
        if not (facts["partition"].isdecimal() and facts["offset"].isdecimal()):
            self._breach(partition, offset, f"origin {facts['partition']!r}, {facts['offset']!r}", "two numbers")
            return None
        origin = int(facts["partition"]), int(facts["offset"])
        if origin[1] >= self._ends.get(origin[0], 0):
            seen = f"origin {self._events}[{origin[0]}] offset {origin[1]}"
            self._breach(partition, offset, seen, f"an offset below its end {self._ends.get(origin[0], 0)}")
            return None
        return origin

    def _breach(self, partition: int, offset: int, seen: str, expected: str) -> None:
        where: dict[str, Any] = {"topic": self._topic, "partition": partition, "offset": offset}
        self._check.breach(seen, expected, **where)
