"""Errors of the item index, one class per cause.

::

    ItemIndexError            carries what was seen, what was expected, and what mends it
    ├── VectorRefusedError    vectors that must not enter the index, or be asked of it
    ├── IndexArgumentError    a call that makes no sense (k below 1, ids and vectors of unequal number, ...)
    ├── SwapRefusedError      what was built would miss too many items; the old one goes on answering
    ├── DamagedSnapshotError  a snapshot's folder is not what its manifest says
    └── NoSnapshotError       there is no snapshot to load
"""

from __future__ import annotations

from collections.abc import Mapping


class ItemIndexError(Exception):
    """An index call was refused as a whole; the index is as it was before.

    Args:
        message: What was seen and what was expected.
        mend: What the caller can do about it.
    """

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message} To mend it: {self.mend}" if self.mend else self.message


class IndexArgumentError(ItemIndexError):
    """The arguments do not fit together, or are out of their range."""


class SwapRefusedError(ItemIndexError):
    """A new main segment found too few of the items that exact search finds.

    Args:
        recall: What it reached, from 0 to 1.
        wanted: What it had to reach.
        num_items: Items in it.
    """

    def __init__(self, recall: float, wanted: float, num_items: int) -> None:
        super().__init__(
            f"Refused a new main segment of {num_items} items: it finds {recall:.3f} of what exact search finds,"
            f" expected {wanted:.3f} at least. The old one goes on answering.",
            mend="use the kind 'faiss', which is exact, or ask for less recall.",
        )
        self.recall = recall
        self.wanted = wanted


class DamagedSnapshotError(ItemIndexError):
    """A snapshot is not whole, or not what was written.

    Args:
        folder: Its folder's name.
        reason: What is wrong with it.
    """

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(
            f"The snapshot {folder} is refused: {reason}.", mend="delete it; an older one is used meanwhile."
        )
        self.folder = folder
        self.reason = reason


class NoSnapshotError(ItemIndexError):
    """No snapshot of the release could be loaded."""


class VectorRefusedError(ItemIndexError):
    """Vectors were refused; nothing of the call was applied.

    Args:
        message: What was seen and what was expected.
        num_given: How many vectors the call brought.
        reasons: How many of them were refused for which reason. Each refused vector counts once.
        mend: What the caller can do about it.
    """

    def __init__(self, message: str, *, num_given: int, reasons: Mapping[str, int], mend: str) -> None:
        super().__init__(message, mend=mend)
        self.num_given = num_given
        self.reasons = dict(reasons)

    @property
    def num_refused(self) -> int:
        """How many of the vectors given were refused."""
        return sum(self.reasons.values())
