"""Parts of runs, and short fingerprints of what is in them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import Final

from stream_app.faustkit.run import Run, part_of

DIGEST_BYTES: Final = 16
"""Length of a fingerprint: among 10^12 different values two have the same with a chance of 10^-15."""


def digest(*parts: bytes) -> bytes:
    """The fingerprint of byte strings, which tells ``(b"ab", b"c")`` from ``(b"a", b"bc")``."""
    state = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def before(run: Run, end: int) -> Run | None:
    """The records below offset `end`; None where there is none."""
    stop = bisect_left(run.offsets, end)
    return part_of(run, 0, stop) if stop else None


def cut_after(run: Run, offsets: Iterable[int]) -> Iterator[Run]:
    """The run in parts, one of which ends with the last record at or below each of `offsets`."""
    places = {bisect_right(run.offsets, offset) for offset in offsets}
    for start, stop in pairwise(sorted(places | {0, len(run)})):
        yield part_of(run, start, stop)
