"""The item index: vectors by item id, searched by inner product. Arrays and ids in, arrays and ids out."""

from __future__ import annotations

from typing import Literal, assert_never

from index.contract import ItemIndex, SearchResult
from index.errors import IndexArgumentError, ItemIndexError, VectorRefusedError
from index.exact import ExactIndex
from index.faiss_flat import FaissFlatIndex

__all__ = [
    "IndexArgumentError",
    "IndexKind",
    "ItemIndex",
    "ItemIndexError",
    "SearchResult",
    "VectorRefusedError",
    "build_index",
]

IndexKind = Literal["exact", "faiss"]
"""`faiss` is the one to run with; `exact` is its slow oracle. Both give the same answers, bit for bit."""


def build_index(kind: IndexKind, dim: int, release: str, *, num_threads: int = 1) -> ItemIndex:
    """Build an empty index.

    Args:
        kind: Which implementation.
        dim: Dimensions of the release's vectors.
        release: The release whose vectors it will hold.
        num_threads: Threads that a batch of queries may use (`faiss` only).

    Raises:
        IndexArgumentError: dim is below 1, release is empty, or the kind is unknown.
    """
    match kind:
        case "exact":
            return ExactIndex(dim, release)
        case "faiss":
            return FaissFlatIndex(dim, release, num_threads=num_threads)
        case _:
            _refuse_kind(kind)
    assert_never(kind)


def _refuse_kind(kind: object) -> None:
    raise IndexArgumentError(f"Unknown kind of index {kind!r}.", mend="use 'faiss' or 'exact'.")
