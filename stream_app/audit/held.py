"""What the `user-histories` changelog of one partition says was done with its events."""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from stream_app.audit.changelogs import PartitionFold, position_in
from stream_app.audit.findings import Check
from stream_app.stages.sequence import PartitionTotals
from stream_app.tables import PARTITION_KEY, SEQUENCE_TOTALS, is_partition_key


class UserCounts(msgspec.Struct, array_like=True):
    """The first fields of a `UserHistory`: what is counted, without the slices."""

    next_seq: int = 0
    applied: int = 0
    dropped: dict[str, int] = {}

    def is_behind(self, other: UserCounts) -> bool:
        """Whether anything is counted lower than in `other`."""
        return (
            self.next_seq < other.next_seq
            or self.applied < other.applied
            or any(self.dropped.get(reason, 0) < num for reason, num in other.dropped.items())
        )


_COUNTS: Final = msgspec.msgpack.Decoder(UserCounts)


class HeldCounts:
    """Sums what all histories of a partition count, while their changelog is folded.

    Args:
        check: Takes the places where a user's counts went back.
        topic: Full name of the changelog.
        partition: Its partition.
    """

    def __init__(self, check: Check, topic: str, partition: int) -> None:
        self.totals: PartitionTotals | None = None
        self.applied = 0
        self.dropped: Counter[str] = Counter()
        self._by_user: dict[bytes, UserCounts] = {}
        self._check = check
        self._topic = topic
        self._partition = partition

    def take(self, key: bytes, payload: bytes | None, offset: int) -> None:
        """See `Observer`."""
        try:
            if is_partition_key(key):
                self.totals = None if payload is None else SEQUENCE_TOTALS.decode(payload)
                return
            counts = UserCounts() if payload is None else _COUNTS.decode(payload)
        except ValueError as error:
            self._breach(offset, key, f"a value that cannot be read ({error})", "a history")
            return
        known = self._by_user.get(key, UserCounts())
        if payload is not None and counts.is_behind(known):
            self._breach(offset, key, f"counts {counts} after {known}", "counts that never go back")
        self.applied += counts.applied - known.applied
        self.dropped.update(counts.dropped)
        self.dropped.subtract(known.dropped)
        if payload is None:
            self._by_user.pop(key, None)
        else:
            self._by_user[key] = counts

    @property
    def num_users(self) -> int:
        """Users with a history."""
        return len(self._by_user)

    def forget_users(self) -> None:
        """Keep the sums alone; nothing can be taken any more."""
        self._by_user.clear()

    def _breach(self, offset: int, key: bytes, seen: str, expected: str) -> None:
        self._check.breach(seen, expected, topic=self._topic, partition=self._partition, offset=offset, key=key)


def totals_position(fold: PartitionFold) -> int:
    """The source position of the partition's totals; -1 where there are none yet."""
    entry = fold.entries.get(PARTITION_KEY)
    return -1 if entry is None else position_in(entry)


def newest_position(fold: PartitionFold) -> int:
    """The greatest source position of any value; -1 where there is none."""
    return max(map(position_in, fold.entries.values()), default=-1)
