"""The queries by which main segments are judged: the newest that were asked, and items where there are too few.

Shape suffixes: S sampled queries, Q queries, D dimensions, R rows of items.
"""

from __future__ import annotations

import numpy as np

from index.contract import Float32Array
from index.main_segment import NUM_SAMPLED

KEPT_OF_A_SEARCH = 8
"""Queries kept of one search at most, so that one large batch does not make up the sample alone."""


class QuerySample:
    """The newest queries, up to `NUM_SAMPLED`. Not safe for use from several threads at once.

    Args:
        dim: Dimensions of every query.
    """

    def __init__(self, dim: int) -> None:
        self._kept_SD: Float32Array = np.empty((NUM_SAMPLED, dim), dtype=np.float32)
        self._num_seen = 0

    def add(self, queries_QD: Float32Array) -> None:
        """Keep some queries of a search, evenly spread."""
        self.add_all(queries_QD[:: max(1, -(-len(queries_QD) // KEPT_OF_A_SEARCH))])

    def add_all(self, queries_SD: Float32Array) -> None:
        """Keep all of these; at most as many as there is room for."""
        chosen_SD = queries_SD[:NUM_SAMPLED]
        self._kept_SD[(self._num_seen + np.arange(len(chosen_SD))) % NUM_SAMPLED] = chosen_SD
        self._num_seen += len(chosen_SD)

    def queries(self) -> Float32Array:
        """A copy of those kept, (S, D)."""
        return self._kept_SD[: min(self._num_seen, NUM_SAMPLED)].copy()


def filled_up(queries_SD: Float32Array, vectors_RD: Float32Array) -> Float32Array:
    """As many queries as are wanted: where there are too few, evenly spread items ask for their like."""
    num_missing = min(NUM_SAMPLED - len(queries_SD), len(vectors_RD))
    if num_missing <= 0:
        return queries_SD
    rows = np.linspace(0, len(vectors_RD) - 1, num_missing).astype(np.int64)
    return np.concatenate([queries_SD, vectors_RD[rows]])
