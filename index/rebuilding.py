"""From frozen items to a main segment. Nothing here is locked, and nothing is changed.

Shape suffixes: S sampled queries, D dimensions, N item numbers, R rows.
"""

from __future__ import annotations

import logging

import numpy as np

from index.building import BuildOrder, divided_and_built
from index.built_apart import BuildProcessError, built_apart
from index.contract import Float32Array, Int32Array, Partition
from index.main_segment import MainSegment, RecallGoal
from index.sampling import filled_up
from index.segments import NO_ROW, Frozen
from index.structures import StructureKind

log = logging.getLogger("sliceflow.index")


def rebuilt(
    kind: StructureKind,
    frozen: Frozen,
    queries_SD: Float32Array,
    partition: Partition | None,
    goal: RecallGoal,
    num_threads: int,
    *,
    apart: bool,
) -> tuple[MainSegment, Int32Array]:
    """Build a main segment of frozen items.

    Args:
        kind: The structure.
        frozen: At least one item.
        queries_SD: The newest queries there were.
        partition: Of these items, where somebody has one; None: that of the present main segment.
        goal: The recall wanted.
        num_threads: To build with.
        apart: Whether an inverted file is built in a process of its own, so that searches do not wait.

    Returns:
        The segment, and the row in it of each item number, `NO_ROW` for others.

    Raises:
        SwapRefusedError: The segment finds too little.
    """
    vectors_RD = frozen.vectors_RD()
    order = BuildOrder(
        frozen.numbers_R,
        vectors_RD,
        filled_up(queries_SD, vectors_RD),
        goal,
        num_threads,
        partition or frozen.partition(),
    )
    main = _built_apart(order) if apart and kind == "ivf" else None
    main = main or divided_and_built(kind, order)
    row_of_N = np.full(int(frozen.numbers_R.max()) + 1, NO_ROW, dtype=np.int32)
    row_of_N[frozen.numbers_R] = np.arange(len(frozen.numbers_R), dtype=np.int32)
    return main, row_of_N


def _built_apart(order: BuildOrder) -> MainSegment | None:
    """None where no other process would do it: slower searches for a while are better than none of the new items."""
    try:
        return built_apart(order)
    except BuildProcessError as error:
        log.warning("the index is built beside the searches, which will be slower meanwhile, since %s", error)
        return None
