"""What a check of the audit found: breaches with their places, what was not checked and why, figures."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from stream_app.tables import is_partition_key

NUM_NAMED: Final = 10
"""Breaches that are named; of further ones only the number is told. One cause often breaks thousands of keys, and
ten places are enough to find it."""

Status = Literal["pass", "partly checked", "not checked", "breach"]


class Breach(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One broken promise: what was seen, what was expected, and where. What does not apply is left out."""

    seen: str
    expected: str
    topic: str = ""
    partition: int | None = None
    offset: int | None = None
    key: str | None = None

    @property
    def place(self) -> str:
        """Topic, partition, offset and key as one text."""
        parts = [self.topic if self.partition is None else f"{self.topic}[{self.partition}]"]
        if self.offset is not None:
            parts.append(f"offset {self.offset}")
        if self.key is not None:
            parts.append(f"key {self.key}")
        return " ".join(part for part in parts if part)


class Check:
    """The outcome of one check, filled while records are read.

    Args:
        name: One word for it.
        promise: What must hold.
    """

    def __init__(self, name: str, promise: str) -> None:
        self.name = name
        self.promise = promise
        self.summary = ""
        self.facts: dict[str, Any] = {}
        self.breaches: list[Breach] = []
        self.num_breaches = 0
        self.notes: list[str] = []
        self.not_checked: list[str] = []
        self.num_checked = 0

    def breach(
        self,
        seen: str,
        expected: str,
        *,
        topic: str = "",
        partition: int | None = None,
        offset: int | None = None,
        key: bytes | None = None,
    ) -> None:
        """Note a broken promise; the first `NUM_NAMED` are kept, the others counted."""
        self.num_breaches += 1
        if len(self.breaches) < NUM_NAMED:
            text = None if key is None else key_text(key)
            self.breaches.append(
                Breach(seen=seen, expected=expected, topic=topic, partition=partition, offset=offset, key=text)
            )

    def note(self, text: str) -> None:
        """Note what a reader of the outcome must know, though no promise is broken."""
        self.notes.append(text)

    def leave_out(self, what: str, why: str) -> None:
        """Note that `what` could not be checked: it counts neither as a pass nor as a breach."""
        self.not_checked.append(f"{what}: {why}")

    @property
    def status(self) -> Status:
        """A pass is only what was checked whole."""
        if self.num_breaches:
            return "breach"
        if not self.not_checked:
            return "pass"
        return "partly checked" if self.num_checked else "not checked"

    def plain(self) -> dict[str, Any]:
        """The outcome as plain values."""
        return {
            "check": self.name,
            "promise": self.promise,
            "status": self.status,
            "summary": self.summary,
            "num_breaches": self.num_breaches,
            "breaches": self.breaches,
            "not_checked": self.not_checked,
            "notes": self.notes,
            "facts": self.facts,
        }


def key_text(key: bytes) -> str:
    """A key for people; it may be any bytes."""
    return "(the partition's totals)" if is_partition_key(key) else repr(key.decode("utf-8", "backslashreplace"))
