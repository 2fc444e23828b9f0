"""Sequences, some at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Some = TypeVar("Some")


def in_parts(items: Sequence[Some], num_each: int) -> Iterator[Sequence[Some]]:
    """Some at a time, in order."""
    for start in range(0, len(items), num_each):
        yield items[start : start + num_each]
