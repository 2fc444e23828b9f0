"""What every item index promises, and how its scores and order are defined.

Shape suffixes: N vectors given, D dimensions of the release, Q queries, K items answered per query,
M ids asked for, C categories of an item, P parts of a partition,
S sampled queries.

**Score.** Inner product in float32, summed in one fixed order (`inner_products`). The usual matrix products
sum in an order that depends on how many queries come at once; then two near-equal items could change places
between a batch of 1 and a batch of 64, and a replay would publish other lists than the live run did.

**Order.** Best score first; equal scores by smaller id (code points). The id, not the order of insertion, so
that an answer depends on nothing but what is in the index: an index rebuilt from a compacted topic answers
the same. Kinds that search only a part of the items (`index.structures`) keep score and order, but may miss items;
which ones they miss does depend on how the index came about.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Int32Array: TypeAlias = npt.NDArray[np.int32]
Int64Array: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class SearchResult:
    """The items found for each query of one search.

    Attributes:
        ids: For each of the Q queries its item ids, best first; at most K, fewer where exclusions leave fewer.
        scores_QK: Their inner products, float32, shape (Q, K); minus infinity where a query has fewer.
        version: The version of the index that answered.
    """

    ids: list[list[str]]
    scores_QK: Float32Array
    version: int


@dataclass(frozen=True, slots=True)
class ItemAttributes:
    """What filters may ask of an item. An item of which nothing was told has none of it, and is available.

    Attributes:
        categories: At most `index.checks.MAX_CATEGORIES`.
        price: Finite, in whatever currency the catalogue has; None where unknown.
        available: Whether it may be offered now.
    """

    categories: frozenset[str] = frozenset()
    price: float | None = None
    available: bool = True


NO_ATTRIBUTES = ItemAttributes()


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Which items a search may answer; every condition that is set must hold.

    Attributes:
        categories: The item is in at least one of them.
        available_only: The item is available.
        min_price: The item's price is known, and not below.
        max_price: The item's price is known, and not above.

    >>> ItemFilter(categories=frozenset({"tea"}), max_price=5).matches(ItemAttributes(frozenset({"tea", "hot"}), 4.5))
    True
    """

    categories: frozenset[str] | None = None
    available_only: bool = False
    min_price: float | None = None
    max_price: float | None = None

    def matches(self, attributes: ItemAttributes) -> bool:
        """Whether an item with these attributes may be answered."""
        if self.categories is not None and self.categories.isdisjoint(attributes.categories):
            return False
        if self.available_only and not attributes.available:
            return False
        if self.min_price is None and self.max_price is None:
            return True
        price = attributes.price
        low = -np.inf if self.min_price is None else self.min_price
        high = np.inf if self.max_price is None else self.max_price
        return price is not None and low <= price <= high


@dataclass(frozen=True, eq=False, slots=True)
class Partition:
    """The items divided into parts of near ones: what is slow to compute about an inverted file.

    Attributes:
        centres_PD: Mean vector of each part, float32, shape (P, D).
        parts_N: Each item's part, int32, shape (N,); -1 where it was not yet decided.
    """

    centres_PD: Float32Array
    parts_N: Int32Array


@dataclass(frozen=True, eq=False, slots=True)
class AttributeColumns:
    """The attributes of N items, by column.

    Attributes:
        ids: The items'. They need not have vectors.
        names: Category names, which `codes_NC` counts through.
        codes_NC: Each item's categories, int32, shape (N, C); -1 fills up.
        prices_N: Float64, shape (N,); NaN where unknown.
        available_N: Bool, shape (N,).
    """

    ids: list[str]
    names: list[str]
    codes_NC: Int32Array
    prices_N: Float64Array
    available_N: BoolArray


@dataclass(frozen=True, eq=False, slots=True)
class IndexContents:
    """All that is in an index, at one moment.

    Attributes:
        release: The release that made the vectors.
        ids: The N items that have vectors, each once.
        vectors_ND: Float32, shape (N, D).
        attributes: Of all items of which something was told.
        partition: Of these items, where the index has one; saves its computation at `swap`.
        queries_SD: Some of the newest queries, where the index keeps any, float32, shape (S, D): what is built at
        `swap` is
            judged by them.
    """

    release: str
    ids: list[str]
    vectors_ND: Float32Array
    attributes: AttributeColumns
    partition: Partition | None = None
    queries_SD: Float32Array | None = None


@runtime_checkable
class ItemIndex(Protocol):
    """A set of item vectors of one release, searched by inner product. On disk: `index.snapshot`.

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

    def search(
        self,
        queries_QD: Float32Array,
        k: int,
        *,
        release: str | None = None,
        filter: ItemFilter | None = None,
        exclude: Sequence[Collection[str]] | None = None,
    ) -> SearchResult:
        """Find the k items of greatest inner product for each query, of those it may be answered; all where there are
        fewer than k. K is the most that any query is answered.

        Never answers a removed item, nor one item twice for a query. Each query's answer is the same, bit for
        bit, whatever other queries share the call.

        Args:
            queries_QD: Queries, float32, shape (Q, D); Q may be 0. Not changed.
            k: Number of items wanted, at least 1.
            release: The release that made the queries; None where the caller has checked it.
            filter: Only items that it matches are answered, to any query.
            exclude: For each query the items not to be answered to it; unknown ones are ignored.

        Raises:
            VectorRefusedError: A query is of another release or dimension, or holds NaN, infinity, or only
            zeros. IndexArgumentError: k is below 1, or the number of exclusions is not Q.
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

    def upsert_attributes(self, ids: Sequence[str], attributes: Sequence[ItemAttributes]) -> None:
        """Set what filters know of items, in place of what they knew. It stays when vectors come or go. Where an id
        comes twice, the last one counts.

        Raises:
            IndexArgumentError: Unequal numbers, an empty id, a price that is not finite, or too many categories.
        """
        ...

    def remove_attributes(self, ids: Sequence[str]) -> int:
        """Forget what was told of items, and return of how many something was."""
        ...

    def contents(self) -> IndexContents:
        """All that is in the index now; a copy. Costs O(N·D)."""
        ...

    def swap(self, contents: IndexContents) -> None:
        """Put other contents in place of all that is here, at once: every search sees either all old or all new.

        Costs O(N·D), most of it while the old contents still answer. What changes from the call on is changed in the
        new contents too, so none of it is lost.

        Raises:
            VectorRefusedError: The contents are of another release or dimension, or hold bad values.
            IndexArgumentError: An id is empty or comes twice, or the columns do not fit together.
            SwapRefusedError: Searches in the new contents would miss too much; the old ones go on answering.
        """
        ...

    def vectors_of(self, ids: Sequence[str]) -> tuple[Float32Array, BoolArray]:
        """Look up vectors by id.

        Returns:
            vectors_MD: Float32, shape (M, D), a copy; zeros where the item is not in the index.
            found_M: Whether each item is in the index.
        """
        ...

    def numbers_of(self, ids: Sequence[str]) -> Int64Array:
        """Int64, shape (M,): the number under which each item's vector can be looked up until `version` changes; -1
        where the item is not in the index."""
        ...

    def vectors_at(self, numbers_M: Int64Array) -> Float32Array:
        """Float32, shape (M, D), a copy: vectors by number, without a look at ids; zeros for -1. Numbers of another
        version may be another item's."""
        ...


def inner_products(vectors_ND: Float32Array, query_D: Float32Array) -> Float32Array:
    """Inner product of each vector with the query, float32, shape (N,): the definition of a score.

    numpy adds up the last, contiguous axis pairwise, row by row, so a row's score depends on that row alone.
    `vectors_ND` may have further leading axes, with a query that broadcasts against it.
    """
    products = vectors_ND * query_D
    summed: Float32Array = products.sum(axis=-1, dtype=np.float32)
    return summed
