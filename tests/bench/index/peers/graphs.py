"""hnswlib and usearch, each a graph of near neighbours, with as many neighbours as FAISS's here.

By inner product (`hnswlib-ip`, `usearch-ip`), and with vectors made equally long (`hnswlib`, `usearch`), which does
better.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

import numpy as np

from tests.bench.index.points import Built, K, Search, Vectors, equally_long, with_zero

EFFORTS: Final = (64, 128, 256, 512)
NEIGHBOURS: Final = 16
BUILD_EFFORT: Final = 80


def build(kind: str, items_ND: Vectors, asked_SD: Vectors, num_threads: int) -> Built:
    """An index of the package that `kind` begins with."""
    package, _, of_product = kind.partition("-")
    by_product = bool(of_product)
    items = items_ND if by_product else equally_long(items_ND)
    make = _hnswlib if package == "hnswlib" else _usearch
    index, ask = make(items, "ip" if by_product else "l2", num_threads)

    def efforts() -> Iterator[tuple[str, Search]]:
        for effort in EFFORTS:
            ask(effort)
            yield str(effort), lambda queries_QD: index(queries_QD if by_product else with_zero(queries_QD))

    return Built(efforts(), lambda rows: np.asarray(rows, dtype=np.int64).reshape(-1, K))


def _hnswlib(items_ND: Vectors, metric: str, num_threads: int) -> tuple[Any, Any]:
    """The search, and what sets its effort."""
    index: Any = import_module("hnswlib").Index(space=metric, dim=items_ND.shape[1])
    index.init_index(max_elements=len(items_ND), M=NEIGHBOURS, ef_construction=BUILD_EFFORT)
    index.add_items(items_ND, num_threads=num_threads)
    return lambda queries_QD: index.knn_query(queries_QD, K, num_threads=num_threads)[0], index.set_ef


def _usearch(items_ND: Vectors, metric: str, num_threads: int) -> tuple[Any, Any]:
    """The search, and what sets its effort."""
    index: Any = import_module("usearch.index").Index(
        ndim=items_ND.shape[1],
        metric="ip" if metric == "ip" else "l2sq",
        dtype="f32",
        connectivity=NEIGHBOURS,
        expansion_add=BUILD_EFFORT,
    )
    index.add(np.arange(len(items_ND)), items_ND, threads=num_threads)

    def ask(effort: int) -> None:
        index.expansion_search = effort

    return lambda queries_QD: index.search(queries_QD, K, threads=num_threads).keys, ask
