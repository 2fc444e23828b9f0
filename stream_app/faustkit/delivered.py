"""Which of the records that were delivered one by one are done: up to where they may be committed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class Delivered:
    """The records of one partition that were handed out, in offset order, and which of them are done.

    Only what was delivered counts. Offsets that never come (compaction, control records) are never waited for, and
    none is taken for done because a later one is.
    """

    def __init__(self) -> None:
        self._is_done: OrderedDict[int, bool] = OrderedDict()
        self._next_offset: int | None = None

    @property
    def next_offset(self) -> int | None:
        """Everything delivered below this offset is done; None while nothing is."""
        return self._next_offset

    def deliver(self, offset: int) -> None:
        """A record is handed out.

        One at or before a record that is waited for means that the partition was sought back: from there on all
        records come again, and it is those that count.
        """
        while self._is_done and next(reversed(self._is_done)) >= offset:
            self._is_done.popitem()
        self._is_done[offset] = False

    def acknowledge(self, offsets: Iterable[int]) -> None:
        """Records are done, in any order; those that are not waited for are passed over."""
        for offset in offsets:
            if offset in self._is_done:
                self._is_done[offset] = True
        while self._is_done and self._is_done[first := next(iter(self._is_done))]:
            del self._is_done[first]
            self._next_offset = first + 1
