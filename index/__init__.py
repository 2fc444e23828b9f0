"""The item index: vectors by item id, searched by inner product. Arrays and ids in, arrays and ids out."""

from __future__ import annotations

from typing import Literal, assert_never

from index.contract import ItemAttributes, ItemFilter, ItemIndex, SearchResult
from index.errors import IndexArgumentError, ItemIndexError, SwapRefusedError, VectorRefusedError
from index.exact import ExactIndex
from index.live import LiveIndex, LiveOptions
from index.sizes import ALWAYS_FLAT

__all__ = [
    "IndexArgumentError",
    "IndexKind",
    "ItemAttributes",
    "ItemFilter",
    "ItemIndex",
    "ItemIndexError",
    "LiveIndex",
    "LiveOptions",
    "SearchResult",
    "SwapRefusedError",
    "VectorRefusedError",
    "build_index",
]

IndexKind = Literal["exact", "faiss", "live"]
"""`faiss` scans all vectors; `exact` is its slow oracle. Both give the same answers, bit for bit. `live` does as
`faiss` while items are few, and rebuilds a faster main segment beside the searches when they are many; it misses some
items then."""


def build_index(kind: IndexKind, dim: int, release: str, *, num_threads: int = 1) -> ItemIndex:
    """Build an empty index.

    Args:
        kind: Which implementation.
        dim: Dimensions of the release's vectors.
        release: The release whose vectors it will hold.
        num_threads: Threads that a batch of queries may use (not `exact`).

    Raises:
        IndexArgumentError: dim is below 1, release is empty, or the kind is unknown.
    """
    match kind:
        case "exact":
            return ExactIndex(dim, release)
        case "faiss":
            return LiveIndex(dim, release, LiveOptions(num_threads, sizes=ALWAYS_FLAT))
        case "live":
            return LiveIndex(dim, release, LiveOptions(num_threads))
        case _:
            _refuse_kind(kind)
    assert_never(kind)


def _refuse_kind(kind: object) -> None:
    raise IndexArgumentError(
        f"Unknown kind of index {kind!r}.", mend="use 'faiss' or 'exact', or 'live' for many items."
    )
