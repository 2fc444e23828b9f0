"""Every implementation of the index, with its main segment built at once, and vectors for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from index import ItemIndex, LiveIndex, LiveOptions, build_index
from index.contract import Float32Array
from index.main_segment import RecallGoal
from index.sizes import SizeRule
from index.structures import FlatStructure, StructureKind

DIM = 8
FLAT_ITEMS = 8
"""Up to so many items there is no main segment."""


@dataclass(frozen=True)
class Case:
    """An implementation.

    Attributes:
        build: Makes an empty index of `DIM` and release ``r1``.
        is_exact: Whether it finds everything, and not only most of it.
        takes_selector: False: its structure is like the GPU's.
    """

    build: Callable[[], ItemIndex]
    is_exact: bool = True
    takes_selector: bool = True


def live(kind: StructureKind, least: float = 0.0) -> LiveIndex:
    """An index that has a main segment of this kind from `FLAT_ITEMS` on; it is rebuilt by `settle` alone."""
    sizes = SizeRule(flat=FLAT_ITEMS, kind=kind)
    return LiveIndex(DIM, "r1", LiveOptions(sizes=sizes, goal=RecallGoal(1.0, least), compacts_itself=False))


CASES: Mapping[str, Case] = {
    "exact": Case(lambda: build_index("exact", DIM, "r1")),
    "faiss": Case(lambda: build_index("faiss", DIM, "r1")),
    "live": Case(lambda: build_index("live", DIM, "r1")),
    "main-flat": Case(lambda: live("flat")),
    "main-without-selector": Case(lambda: live("flat"), takes_selector=False),
    "main-ivf": Case(lambda: live("ivf"), is_exact=False),
    "main-hnsw": Case(lambda: live("hnsw"), is_exact=False),
}


def prepare(case: Case, monkeypatch: pytest.MonkeyPatch) -> ItemIndex:
    """An empty index of a case."""
    if not case.takes_selector:
        monkeypatch.setattr(FlatStructure, "takes_selector", False)
    return case.build()


def settle(index: ItemIndex) -> None:
    """Bring all items into the main segment, where the implementation has one."""
    if isinstance(index, LiveIndex):
        index.compact()


def vectors(num: int, seed: int = 0, dim: int = DIM) -> Float32Array:
    """Random ones, (num, dim)."""
    return np.random.default_rng(seed).standard_normal((num, dim)).astype(np.float32)


def names(num: int, start: int = 0) -> list[str]:
    """Ids in order."""
    return [f"i{n:05d}" for n in range(start, start + num)]
