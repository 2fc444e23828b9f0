"""A map of bounded size that forgets what was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

V = TypeVar("V")


class Bounded(Generic[V]):
    """Values by key, at most `size` of them.

    >>> kept = Bounded[int](2)
    >>> kept.put("a", 1); kept.put("b", 2); kept.put("c", 3)
    >>> kept.get("a"), list(kept.newest(5)), kept.has_forgotten
    (None, ['c', 'b'], True)
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, V] = OrderedDict()
        self.has_forgotten = False
        """Whether anything was forgotten so far."""

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> V | None:
        """The value, which stays where it is in the order; None where there is none."""
        return self._values.get(key)

    def put(self, key: str, value: V) -> None:
        """Set a value; it becomes the newest."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)
            self.has_forgotten = True

    def drop(self, key: str) -> None:
        """Let go of a value, if it is there; it counts as one that never was."""
        self._values.pop(key, None)

    def newest(self, count: int) -> Iterator[str]:
        """The keys that were put last, newest first."""
        return islice(reversed(self._values), count)
