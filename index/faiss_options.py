"""What FAISS is told with a search. Its type hints know nothing of these arguments, so they are passed on without any.

Shape suffixes: L labels.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from index.contract import BoolArray

_faiss: Any = faiss


def scan_options(kept_L: BoolArray | None) -> Any:
    """For a flat index: pass over the labels for which `kept_L` is false, and those beyond it; None: look at all."""
    return None if kept_L is None else _faiss.SearchParameters(sel=_selector(kept_L))


def graph_options(effort: int, kept_L: BoolArray | None) -> Any:
    """For a graph: candidates kept on the way, and which may be found."""
    return _faiss.SearchParametersHNSW(efSearch=effort, sel=_selector(kept_L))


def list_options(num_parts: int, kept_L: BoolArray | None) -> Any:
    """For an inverted file: parts looked into, and which labels may be found."""
    return _faiss.SearchParametersIVF(nprobe=num_parts, sel=_selector(kept_L))


def _selector(kept_L: BoolArray | None) -> Any:
    # FAISS's class for Python keeps the bytes alive.
    return None if kept_L is None else _faiss.IDSelectorBitmap(np.packbits(kept_L, bitorder="little"))
