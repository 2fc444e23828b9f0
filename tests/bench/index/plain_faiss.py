"""FAISS as it comes: its own flat index and inverted file, by inner product, and its graph.

The graph gets vectors made equally long: by inner product its recall ends below 0.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import faiss
import numpy as np

from tests.bench.index.points import Built, K, Search, Vectors, equally_long, with_zero

PARTS: Final = 4
"""Parts of the inverted file: so many times the square root of the items, as FAISS advises."""
PARTS_ASKED: Final = (4, 16, 64, 256)
EFFORTS: Final = (64, 128, 256, 512)
NEIGHBOURS: Final = 16
BUILD_EFFORT: Final = 80


def build(kind: str, items_ND: Vectors, asked_SD: Vectors, num_threads: int) -> Built:
    """An index of the kind `flat`, `ivf` or `hnsw`."""
    faiss.omp_set_num_threads(num_threads)
    if kind == "hnsw":
        return _graph(items_ND)
    name = "Flat" if kind == "flat" else f"IVF{int(PARTS * len(items_ND) ** 0.5)},Flat"
    index: Any = faiss.index_factory(items_ND.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    index.train(items_ND)
    index.add(items_ND)

    def efforts() -> Iterator[tuple[str, Search]]:
        for parts in PARTS_ASKED if kind == "ivf" else ():
            index.nprobe = parts
            yield str(parts), lambda queries_QD: index.search(queries_QD, K)
        if kind == "flat":
            yield "exact", lambda queries_QD: index.search(queries_QD, K)

    return Built(efforts(), lambda found: np.asarray(found[1]))


def _graph(items_ND: Vectors) -> Built:
    longer_ND = equally_long(items_ND)
    index: Any = faiss.IndexHNSWFlat(longer_ND.shape[1], NEIGHBOURS)
    index.hnsw.efConstruction = BUILD_EFFORT
    index.add(longer_ND)

    def efforts() -> Iterator[tuple[str, Search]]:
        for effort in EFFORTS:
            index.hnsw.efSearch = effort
            yield str(effort), lambda queries_QD: index.search(with_zero(queries_QD), K)

    return Built(efforts(), lambda found: np.asarray(found[1]))
