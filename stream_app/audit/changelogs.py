"""One partition of a changelog: what it leaves of each key, and whether it ever went back.

Of each key the value with the greatest source position stays, as in recovery. Marks by which owners claim the
partition are no values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from stream_app.audit.findings import Check
from stream_app.audit.runs import digest
from stream_app.faustkit.changelog import OWNER_HEADER
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import POSITION_BYTES, Stored

Entries = dict[bytes, bytes]
"""What is known of the value of each key: its source position, then the fingerprint of its payload."""


def entry_of(stored: Stored) -> bytes:
    """What is kept of a value."""
    return stored.position.to_bytes(POSITION_BYTES, "big") + digest(stored.payload)


def position_in(entry: bytes) -> int:
    """The source position in an entry."""
    return int.from_bytes(entry[:POSITION_BYTES], "big")


class Observer(Protocol):
    """Is told of each value that the fold takes."""

    def take(self, key: bytes, payload: bytes | None, offset: int) -> None:
        """The key has this payload now (None: the key was removed); `offset` is that of the changelog record."""


class _Mark(msgspec.Struct):
    producer_id: int
    epoch: int


_MARK: Final = msgspec.json.Decoder(_Mark)


class Generations:
    """The owners of one partition, as their marks in its changelog tell: none ever comes back.

    Kafka gives a greater epoch with each claim. When the epochs of a producer id are used up, or it was unused for
    a week, a new producer id begins again at 0; the old one must not be seen any more.
    """

    def __init__(self, check: Check, topic: str, partition: int) -> None:
        self._check = check
        self._topic = topic
        self._partition = partition
        self._newest: _Mark | None = None
        self._retired: set[int] = set()
        self.num_marks = 0

    def take(self, offset: int, header: bytes, value: bytes | None) -> None:
        """Take the mark at `offset`; `header` is the value of its header."""
        self.num_marks += 1
        try:
            mark = _MARK.decode(value or b"")
        except ValueError as error:
            self._breach(offset, f"an owner's mark that cannot be read ({error})", "producer_id and epoch as JSON")
            return
        if header != b"%d" % mark.epoch:
            self._breach(offset, f"a mark with epoch {mark.epoch} and header {header!r}", "the same epoch in both")
        newest = self._newest
        if newest is not None and newest.producer_id != mark.producer_id:
            self._retired.add(newest.producer_id)
        if mark.producer_id in self._retired:
            self._breach(
                offset,
                f"owner generation {mark.epoch} of producer {mark.producer_id} after another producer's",
                "no producer to come back once another has taken over",
            )
        elif newest is not None and newest.producer_id == mark.producer_id and mark.epoch < newest.epoch:
            self._breach(
                offset,
                f"owner generation {mark.epoch} of producer {mark.producer_id} after {newest.epoch}",
                f"at least {newest.epoch}",
            )
        self._newest = mark

    def _breach(self, offset: int, seen: str, expected: str) -> None:
        self._check.breach(seen, expected, topic=self._topic, partition=self._partition, offset=offset)


class PartitionFold:
    """Folds one partition of a changelog, and notes in `check` where a source position or an owner went back.

    `removed` are the keys that were ever removed, also those that came back.

    Args:
        check: Takes the breaches.
        topic: Full name of the changelog.
        partition: Its partition.
        observers: Told of each value that is taken.
    """

    def __init__(self, check: Check, topic: str, partition: int, observers: Iterable[Observer] = ()) -> None:
        self.entries: Entries = {}
        self.generations = Generations(check, topic, partition)
        self.num_values = 0
        self.removed: set[bytes] = set()
        self.topic = topic
        self.partition = partition
        self._check = check
        self._observers = list(observers)

    def take(self, run: Run) -> None:
        """Take consecutive records."""
        for offset, key, value, headers in zip(run.offsets, run.keys, run.values, run.headers, strict=True):
            mark = next((text for name, text in headers if name == OWNER_HEADER), None)
            if mark is not None:
                self.generations.take(offset, mark, value)
            elif key is None or (value is not None and len(value) < POSITION_BYTES):
                size = "no value" if value is None else f"a value of {len(value)} bytes"
                seen = f"{size} and {'no' if key is None else 'a'} key"
                self._breach(offset, key, seen, f"a key, and a value of at least {POSITION_BYTES} bytes")
            else:
                self._take_value(offset, key, value)

    def _take_value(self, offset: int, key: bytes, value: bytes | None) -> None:
        self.num_values += 1
        known = self.entries.get(key)
        if value is None:
            self.removed.add(key)
            self.entries.pop(key, None)
            self._tell(key, None, offset)
            return
        position, payload = value[:POSITION_BYTES], value[POSITION_BYTES:]
        if known is not None and position < known[:POSITION_BYTES]:
            seen = f"source position {position_in(position)} after {position_in(known)}"
            self._breach(offset, key, seen, f"at least {position_in(known)}")
            return
        self.entries[key] = position + digest(payload)
        self._tell(key, payload, offset)

    def _tell(self, key: bytes, payload: bytes | None, offset: int) -> None:
        for observer in self._observers:
            observer.take(key, payload, offset)

    def _breach(self, offset: int, key: bytes | None, seen: str, expected: str) -> None:
        self._check.breach(seen, expected, topic=self.topic, partition=self.partition, offset=offset, key=key)
