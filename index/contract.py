"""What every item index promises, and how its scores and order are defined.

Shape suffixes: N vectors given, D dimensions of the release, Q queries, K items answered per query,
M ids asked for, F candidates fetched per query.

**Score.** Inner product in float32, summed in one fixed order (`inner_products`). The usual matrix products
sum in an order that depends on how many queries come at once; then two near-equal items could change places
between a batch of 1 and a batch of 64, and a replay would publish other lists than the live run did.

**Order.** Best score first; equal scores by smaller id (code points). The id, not the order of insertion, so
that an answer depends on nothing but what is in the index: an index rebuilt from a compacted topic answers
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

Float32Array: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class SearchResult:
    """The items found for each query of one search.

    Attributes:
        ids: For each of the Q queries its K item ids, best first.
        scores_QK: Their inner products, float32, shape (Q, K).
        version: The version of the index that answered.
    """

    ids: list[list[str]]
    scores_QK: Float32Array
    version: int


@runtime_checkable
class ItemIndex(Protocol):
    """A set of item vectors of one release, searched by inner product.

    Every method may be called from any thread. A call that raises has changed nothing.
    """

    @property
    def dim(self) -> int:
        """Dimensions of every vector."""
        ...

    @property
    def release(self) -> str:
        """The release that all vectors here were made by. Vectors of different releases never meet."""
        ...

    @property
    def version(self) -> int:
        """Number of change batches applied so far: grows by one with each call that changed something."""
        ...

    def __len__(self) -> int:
        """Number of items in the index."""
        ...

    def search(self, queries_QD: Float32Array, k: int, *, release: str | None = None) -> SearchResult:
        """Find the ``K = min(k, len(self))`` items of greatest inner product for each query.

        Never answers a removed item, nor one item twice for a query. Each query's answer is the same, bit for
        bit, whatever other queries share the call.

        Args:
            queries_QD: Queries, float32, shape (Q, D); Q may be 0. Not changed.
            k: Number of items wanted, at least 1.
            release: The release that made the queries; None where the caller has checked it.

        Raises:
            VectorRefusedError: A query is of another release or dimension, or holds NaN, infinity, or only
            zeros. IndexArgumentError: k is below 1.
        """
        ...

    def upsert(self, ids: Sequence[str], vectors_ND: Float32Array, *, release: str | None = None) -> None:
        """Insert items, or replace the vectors of those already here. Where an id comes twice, the last one
        counts.

        Args:
            ids: N item ids, not empty.
            vectors_ND: Their vectors, float32, shape (N, D). Copied.
            release: The release that made the vectors; None where the caller has checked it.

        Raises:
            VectorRefusedError: A vector is of another release or dimension, or holds NaN, infinity, or only
            zeros. IndexArgumentError: The number of ids is not N, or an id is empty.
        """
        ...

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items, and return how many were there. Unknown ids are ignored."""
        ...

    def vectors_of(self, ids: Sequence[str]) -> tuple[Float32Array, BoolArray]:
        """Look up vectors by id.

        Returns:
            vectors_MD: Float32, shape (M, D), a copy; zeros where the item is not in the index.
            found_M: Whether each item is in the index.
        """
        ...


def inner_products(vectors_ND: Float32Array, query_D: Float32Array) -> Float32Array:
    """Inner product of each vector with the query, float32, shape (N,): the definition of a score.

    numpy adds up the last, contiguous axis pairwise, row by row, so a row's score depends on that row alone.
    `vectors_ND` may have further leading axes, with a query that broadcasts against it.
    """
    products = vectors_ND * query_D
    summed: Float32Array = products.sum(axis=-1, dtype=np.float32)
    return summed
