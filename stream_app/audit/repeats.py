"""Outputs that were published twice: what has the same identity has the same content.

A role that starts again publishes once more what it had published but not kept. So on the topics an identity may come
twice, and revisions may go back; what is under one identity must not differ, since readers take either.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from stream_app.audit.findings import Check
from stream_app.audit.runs import DIGEST_BYTES, digest
from stream_app.faustkit.run import Run
from stream_app.records import MARK_KEY, decode_erased, is_erased

PLACE_BYTES: Final = 4 + 8
"""Bytes of a partition and an offset."""


class Output(NamedTuple):
    """Whose output it is, what identifies it, and what must be the same whenever that comes again.

    `offset` is that of the newest event in it, where the identity is one within a history of the user: whoever was
    erased begins another.
    """

    user_id: str
    identity: str
    content: bytes
    offset: int = -1


class _List(msgspec.Struct):
    recommendation_id: str
    user_id: str


class _Slice(msgspec.Struct):
    user_id: str
    seq: int
    revision: int
    closed: bool
    events: msgspec.Raw
    before: msgspec.Raw = msgspec.Raw(b"[]")
    offset: int = -1


class _SliceVector(msgspec.Struct):
    user_id: str
    seq: int
    revision: int
    release: str
    items: msgspec.Raw
    slice_vector: str
    offset: int = -1


_LIST: Final = msgspec.json.Decoder(_List)
_SLICE: Final = msgspec.json.Decoder(_Slice)
_SLICE_VECTOR: Final = msgspec.json.Decoder(_SliceVector)


def list_output(value: bytes) -> Output:
    """A list: its id stands for all its bytes."""
    found = _LIST.decode(value)
    return Output(found.user_id, f"recommendation_id {found.recommendation_id}", value)


def slice_output(value: bytes) -> Output:
    """A slice: the same revision always holds the same events, and the same before it, whenever a list is due."""
    found = _SLICE.decode(value)
    identity = f"user {found.user_id!r} slice {found.seq} revision {found.revision}"
    content = b"%d" % found.closed + bytes(found.events) + bytes(found.before)
    return Output(found.user_id, identity, content, found.offset)


def slice_vector_output(value: bytes) -> Output:
    """A slice's vector under one release. The user vector is not part of it: it depends on the slices before."""
    found = _SLICE_VECTOR.decode(value)
    identity = f"user {found.user_id!r} slice {found.seq} revision {found.revision} release {found.release}"
    return Output(found.user_id, identity, bytes(found.items) + found.slice_vector.encode(), found.offset)


class Repeats:
    """Finds outputs of one identity with different contents.

    It holds two fingerprints and a place for each identity, and where users were erased.

    Args:
        check: Takes the breaches.
        read: What a value on the topic is.
    """

    def __init__(self, check: Check, read: Callable[[bytes], Output]) -> None:
        self.num_records = 0
        self._check = check
        self._read = read
        self._known: dict[bytes, bytes] = {}
        self._erased: dict[str, list[int]] = {}

    @property
    def num_identities(self) -> int:
        """Different identities so far."""
        return len(self._known)

    def take(self, run: Run) -> None:
        """Take consecutive records of one partition; null values are deletions, and marks of progress no outputs."""
        for offset, key, value in zip(run.offsets, run.keys, run.values, strict=True):
            if value is None or key == MARK_KEY:
                continue
            self.num_records += 1
            self._check.num_checked += 1
            try:
                output = self._erasure(value) if is_erased(value) else self._read(value)
            except ValueError as error:
                self._breach(run, offset, f"a value that cannot be read ({error})", "a record of this topic")
                continue
            if key != output.user_id.encode("utf-8"):
                self._breach(run, offset, f"key {key!r}, the value is of {output.user_id!r}", "the user as the key")
            self._compare(run, offset, output)

    def _erasure(self, value: bytes) -> Output:
        """Note an erasure, which is an output of its own."""
        record = decode_erased(value)
        offsets = self._erased.setdefault(record.user_id, [])
        if record.offset not in offsets:
            insort(offsets, record.offset)
        return Output(record.user_id, f"user {record.user_id!r} erased at {record.offset}", value)

    def _compare(self, run: Run, offset: int, output: Output) -> None:
        content = digest(output.content)
        place = run.partition.to_bytes(4, "big") + offset.to_bytes(8, "big")
        history = bisect_left(self._erased.get(output.user_id, ()), output.offset)
        identity = digest(output.identity.encode("utf-8"), b"%d" % history)
        known = self._known.setdefault(identity, content + place)
        if known[:DIGEST_BYTES] != content:
            partition = int.from_bytes(known[DIGEST_BYTES:-8], "big")
            first = int.from_bytes(known[-8:], "big")
            expected = f"what is at partition {partition} offset {first} under the same identity"
            self._breach(run, offset, f"{output.identity} with other content", expected)

    def _breach(self, run: Run, offset: int, seen: str, expected: str) -> None:
        self._check.breach(seen, expected, topic=run.topic, partition=run.partition, offset=offset)
