"""The exact index: plain numpy, every vector scored for every query. The oracle of the fast one.

Shape suffixes: N items, D dimensions, Q queries, K answered per query, M ids asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import numpy as np

from index.attribute_columns import as_columns, from_columns
from index.checks import (
    check_attributes,
    check_contents,
    check_exclusions,
    check_items,
    check_k,
    check_queries,
    check_shape_of_index,
)
from index.contract import (
    NO_ATTRIBUTES,
    BoolArray,
    Float32Array,
    IndexContents,
    Int64Array,
    ItemAttributes,
    ItemFilter,
    SearchResult,
    inner_products,
)


class ExactIndex:
    """`ItemIndex` as a dictionary of vectors. A search costs O(N·D + N) per query, a change O(N·D).

    Args:
        dim: Dimensions of every vector.
        release: The release whose vectors this index holds.

    >>> index = ExactIndex(2, "demo-1")
    >>> index.upsert(["b", "a", "c"], np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32))
    >>> index.search(np.array([[2, 1]], dtype=np.float32), k=3).ids
    [['a', 'b', 'c']]
    """

    def __init__(self, dim: int, release: str) -> None:
        check_shape_of_index(dim, release)
        self._dim = dim
        self._release = release
        self._version = 0
        self._vectors: dict[str, Float32Array] = {}
        self._attributes: dict[str, ItemAttributes] = {}
        self._ids: list[str] = []
        self._matrix_ND: Float32Array = np.empty((0, dim), dtype=np.float32)
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Dimensions of every vector."""
        return self._dim

    @property
    def release(self) -> str:
        """The release that all vectors here were made by."""
        return self._release

    @property
    def version(self) -> int:
        """Number of change batches applied so far."""
        return self._version

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self,
        queries_QD: Float32Array,
        k: int,
        *,
        release: str | None = None,
        filter: ItemFilter | None = None,
        exclude: Sequence[Collection[str]] | None = None,
    ) -> SearchResult:
        """See `ItemIndex.search`."""
        check_k(k)
        queries = check_queries(queries_QD, dim=self._dim, release=self._release, given_release=release)
        check_exclusions(exclude, len(queries))
        with self._lock:
            ids, matrix, version = self._ids, self._matrix_ND, self._version
            attributes = dict(self._attributes) if filter else {}
        found: list[list[tuple[float, str]]] = []
        for row, query in enumerate(queries):
            scores = inner_products(matrix, query).tolist()
            allowed = [
                (-score, item_id)
                for score, item_id in zip(scores, ids, strict=True)
                if (filter is None or filter.matches(attributes.get(item_id, NO_ATTRIBUTES)))
                and (exclude is None or item_id not in exclude[row])
            ]
            found.append(sorted(allowed)[:k])
        num_found = max(map(len, found), default=min(k, len(ids)))
        scores_QK = np.full((len(queries), num_found), -np.inf, dtype=np.float32)
        for row, best in enumerate(found):
            scores_QK[row, : len(best)] = [-negated for negated, _ in best]
        return SearchResult([[item_id for _, item_id in best] for best in found], scores_QK, version)

    def upsert(self, ids: Sequence[str], vectors_ND: Float32Array, *, release: str | None = None) -> None:
        """See `ItemIndex.upsert`."""
        vectors = check_items(ids, vectors_ND, dim=self._dim, release=self._release, given_release=release)
        with self._lock:
            for item_id, vector in zip(ids, vectors, strict=True):
                self._vectors[item_id] = vector.copy()
            self._changed(num_changed=len(ids))

    def remove(self, ids: Sequence[str]) -> int:
        """See `ItemIndex.remove`."""
        with self._lock:
            num_removed = sum(self._vectors.pop(item_id, None) is not None for item_id in ids)
            self._changed(num_removed)
        return num_removed

    def vectors_of(self, ids: Sequence[str]) -> tuple[Float32Array, BoolArray]:
        """See `ItemIndex.vectors_of`."""
        vectors_MD = np.zeros((len(ids), self._dim), dtype=np.float32)
        found_M = np.zeros(len(ids), dtype=np.bool_)
        with self._lock:
            for row, item_id in enumerate(ids):
                vector = self._vectors.get(item_id)
                if vector is not None:
                    vectors_MD[row] = vector
                    found_M[row] = True
        return vectors_MD, found_M

    def numbers_of(self, ids: Sequence[str]) -> Int64Array:
        """See `ItemIndex.numbers_of`. Costs O(N)."""
        with self._lock:
            places = {item_id: place for place, item_id in enumerate(self._ids)}
        return np.array([places.get(item_id, -1) for item_id in ids], dtype=np.int64)

    def vectors_at(self, numbers_M: Int64Array) -> Float32Array:
        """See `ItemIndex.vectors_at`."""
        vectors_MD = np.zeros((len(numbers_M), self._dim), dtype=np.float32)
        with self._lock:
            matrix_ND = self._matrix_ND
        is_there_M = (numbers_M >= 0) & (numbers_M < len(matrix_ND))
        vectors_MD[is_there_M] = matrix_ND[numbers_M[is_there_M]]
        return vectors_MD

    def upsert_attributes(self, ids: Sequence[str], attributes: Sequence[ItemAttributes]) -> None:
        """See `ItemIndex.upsert_attributes`."""
        check_attributes(ids, attributes)
        with self._lock:
            self._attributes.update(zip(ids, attributes, strict=True))
            self._version += len(ids) > 0

    def remove_attributes(self, ids: Sequence[str]) -> int:
        """See `ItemIndex.remove_attributes`."""
        with self._lock:
            num_forgotten = sum(self._attributes.pop(item_id, None) is not None for item_id in ids)
            self._version += num_forgotten > 0
        return num_forgotten

    def contents(self) -> IndexContents:
        """See `ItemIndex.contents`."""
        with self._lock:
            ids, matrix, told = list(self._ids), self._matrix_ND.copy(), dict(self._attributes)
        return IndexContents(self._release, ids, matrix, as_columns(told))

    def swap(self, contents: IndexContents) -> None:
        """See `ItemIndex.swap`."""
        vectors = check_contents(contents, dim=self._dim, release=self._release)
        with self._lock:
            self._vectors = {item_id: row.copy() for item_id, row in zip(contents.ids, vectors, strict=True)}
            self._attributes = from_columns(contents.attributes)
            self._changed(num_changed=1)

    def _changed(self, num_changed: int) -> None:
        """Build the matrix anew. A search under way keeps the old one, which nobody writes to any more."""
        if num_changed == 0:
            return
        self._version += 1
        self._ids = list(self._vectors)
        self._matrix_ND = (
            np.stack(list(self._vectors.values())) if self._vectors else np.empty((0, self._dim), dtype=np.float32)
        )
