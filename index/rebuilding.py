"""From frozen items to a main segment. Nothing here is locked, and nothing is changed.

Shape suffixes: S sampled queries, D dimensions, N item numbers.
"""

from __future__ import annotations

import numpy as np

from index.contract import Float32Array, Int32Array, Partition
from index.errors import SwapRefusedError
from index.main_segment import MainSegment, RecallGoal, build_main
from index.parts import num_parts_for
from index.sampling import filled_up
from index.segments import NO_ROW, Frozen
from index.structures import StructureKind

OUTGROWN = 2
"""An earlier partition is given up when its parts are so many times too many or too few."""


def rebuilt(
    kind: StructureKind,
    frozen: Frozen,
    queries_SD: Float32Array,
    partition: Partition | None,
    goal: RecallGoal,
    num_threads: int,
) -> tuple[MainSegment, Int32Array]:
    """Build a main segment of frozen items.

    An earlier partition is gone on with, which takes a tenth of the time; when the items have moved away from it so far
    that recall suffers, they are divided anew.

    Args:
        kind: The structure.
        frozen: At least one item.
        queries_SD: The newest queries there were.
        partition: Of these items, where somebody has one; None: that of the present main segment.
        goal: The recall wanted.
        num_threads: To build with.

    Returns:
        The segment, and the row in it of each item number, `NO_ROW` for others.

    Raises:
        SwapRefusedError: The segment finds too little.
    """
    vectors_RD = frozen.vectors_RD()
    queries_SD = filled_up(queries_SD, vectors_RD)

    def build(parts: Partition | None) -> MainSegment:
        return build_main(
            kind, frozen.numbers_R, vectors_RD, queries_SD, goal=goal, num_threads=num_threads, partition=parts
        )

    earlier = partition or frozen.partition()
    try:
        main = build(earlier if earlier is not None and _suits(earlier, len(vectors_RD)) else None)
    except SwapRefusedError:
        if earlier is None:
            raise
        main = build(None)
    row_of_N = np.full(int(frozen.numbers_R.max()) + 1, NO_ROW, dtype=np.int32)
    row_of_N[frozen.numbers_R] = np.arange(len(frozen.numbers_R), dtype=np.int32)
    return main, row_of_N


def _suits(partition: Partition, num_rows: int) -> bool:
    ratio = len(partition.centres_PD) / num_parts_for(num_rows)
    return 1 / OUTGROWN <= ratio <= OUTGROWN
