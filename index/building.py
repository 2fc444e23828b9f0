"""A main segment of given rows: an earlier partition is gone on with where it suits.

Shape suffixes: R rows, D dimensions, S sampled queries.
"""

from __future__ import annotations

from dataclasses import dataclass

from index.contract import Float32Array, Int64Array, Partition
from index.errors import SwapRefusedError
from index.main_segment import MainSegment, RecallGoal, build_main
from index.parts import num_parts_for
from index.structures import StructureKind

OUTGROWN = 2
"""An earlier partition is given up when its parts are so many times too many or too few."""


@dataclass(frozen=True, eq=False, slots=True)
class BuildOrder:
    """What is to be built.

    Attributes:
        numbers_R: The item number of each row; at least one.
        vectors_RD: Float32.
        queries_SD: To judge it by.
        goal: The recall wanted.
        num_threads: To build with.
        earlier: A partition of these rows to go on with.
    """

    numbers_R: Int64Array
    vectors_RD: Float32Array
    queries_SD: Float32Array
    goal: RecallGoal
    num_threads: int
    earlier: Partition | None


def divided_and_built(kind: StructureKind, order: BuildOrder) -> MainSegment:
    """Build what is ordered.

    An earlier partition is gone on with, which takes a tenth of the time; when the items have moved away from it so far
    that recall suffers, they are divided anew.

    Raises:
        SwapRefusedError: It finds too little.
    """
    earlier = order.earlier
    try:
        return _built(kind, order, earlier if earlier is not None and _suits(earlier, len(order.vectors_RD)) else None)
    except SwapRefusedError:
        if earlier is None:
            raise
        return _built(kind, order, None)


def _built(kind: StructureKind, order: BuildOrder, partition: Partition | None) -> MainSegment:
    return build_main(
        kind,
        order.numbers_R,
        order.vectors_RD,
        order.queries_SD,
        goal=order.goal,
        num_threads=order.num_threads,
        partition=partition,
    )


def _suits(partition: Partition, num_rows: int) -> bool:
    ratio = len(partition.centres_PD) / num_parts_for(num_rows)
    return 1 / OUTGROWN <= ratio <= OUTGROWN
