"""Errors of the item index, one class per cause.

::

    ItemIndexError            carries what was seen, what was expected, and what mends it
    ├── VectorRefusedError    vectors that must not enter the index, or be asked of it
    └── IndexArgumentError    a call that makes no sense (k below 1, ids and vectors of unequal number, ...)
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
