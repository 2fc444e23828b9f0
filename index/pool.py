"""Queries of one batch on several threads, each of which does all that is to be done for its own.

FAISS could spread a batch over threads by itself, but all of them wait for the slowest at the end of each of its steps:
on a machine with other work a batch then takes many times as long. Here they meet once.

Shape suffixes: Q queries, D dimensions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from index.contract import Float32Array

QUERIES_AT_ONCE: Final = 256
"""Queries of one piece: bounds the memory for their candidates (4 MB at 64 candidates of 64 dimensions)."""
LEAST_QUERIES: Final = 16
"""Of a piece: for fewer, handing over costs as much as it saves."""

Result = TypeVar("Result")

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def in_threads(function: Callable[[Float32Array], Result], queries_QD: Float32Array, num_threads: int) -> list[Result]:
    """The results for consecutive pieces of a batch, in order; one at least.

    Args:
        function: Called with a piece of the queries, from any thread.
        queries_QD: The batch.
        num_threads: To be used; with one, the calling thread does it.
    """
    size = min(QUERIES_AT_ONCE, max(LEAST_QUERIES, -(-len(queries_QD) // num_threads)))
    pieces = [queries_QD[start : start + size] for start in range(0, max(1, len(queries_QD)), size)]
    if num_threads == 1 or len(pieces) == 1:
        return [function(piece) for piece in pieces]
    return list(_pool(num_threads).map(function, pieces))


def _pool(num_threads: int) -> ThreadPoolExecutor:
    """The threads of all indexes that use so many."""
    with _lock:
        if num_threads not in _pools:
            _pools[num_threads] = ThreadPoolExecutor(num_threads, thread_name_prefix="index-search")
        return _pools[num_threads]
