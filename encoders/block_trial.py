"""What gives the same bytes on this machine: tried with made-up slices when a model is loaded.

Shapes: S slices, L events, C events before, D dimensions, R rows of a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from encoders.contract import BoolArray, Float32Array, Int64Array, SliceBatch
from encoders.spec import ModelDims
from encoders.vocabulary import PAD_ROW

TRIED_SLICES = 64
TRIED_SHORT_SLICES = 16
"""What rounds differently does so for nearly every slice, and each load of a model waits for the trial."""


class BlockShapes(NamedTuple):
    """The shapes that blocks may have.

    Attributes:
        sizes: Rows, rising.
        places: Places for the events of a slice, rising; the last is L.
    """

    sizes: tuple[int, ...]
    places: tuple[int, ...]


class MadeUp(NamedTuple):
    """Slices, with memories (S, R, D) float32 and whether there is one (S,) bool."""

    batch: SliceBatch
    merged_SRD: Float32Array
    has_merged_S: BoolArray

    def some(self, rows: Int64Array) -> MadeUp:
        """The slices of these rows."""
        batch = SliceBatch(**{name: column[rows] for name, column in vars(self.batch).items()})
        return MadeUp(batch, self.merged_SRD[rows], self.has_merged_S[rows])


Run = Callable[[MadeUp, BlockShapes], Sequence[Float32Array]]
"""All of an encoder's stages, with blocks of these shapes alone: (S, D) float32 each."""


def repeats_alone(dims: ModelDims, run: Callable[[MadeUp], Sequence[Float32Array]]) -> bool:
    """Whether each slice alone, and all in another order, give the very bytes that all give together.

    Args:
        dims: Of the model.
        run: All of an encoder's stages: (S, D) float32 each.
    """
    made_up = made_up_slices(dims, TRIED_SLICES)
    wanted = run(made_up)
    alone = (np.array([row]) for row in range(TRIED_SLICES))
    backwards = np.arange(TRIED_SLICES)[::-1]
    return all(
        one.tobytes() == all_SD[rows].tobytes()
        for rows in (backwards, *alone)
        for one, all_SD in zip(run(made_up.some(rows)), wanted, strict=True)
    )


def agreeing_shapes(dims: ModelDims, shapes: BlockShapes, run: Run) -> BlockShapes:
    """The first size with all places, and those sizes and places that give its very bytes.

    Args:
        dims: Of the model.
        shapes: To be tried.
        run: The model.
    """
    full = shapes.places[-1:]
    made_up = made_up_slices(dims, TRIED_SLICES)
    wanted = run(made_up, BlockShapes(shapes.sizes[:1], full))

    def agrees(size: int, num_places: int, num_slices: int) -> bool:
        fitting = np.flatnonzero(made_up.batch.lengths_S <= num_places)[:num_slices]
        rows = np.resize(fitting, max(size, len(fitting)))  # as often as it takes to fill a block
        made = run(made_up.some(rows), BlockShapes((size,), (num_places,)))
        pairs = zip(made, wanted, strict=True)
        return bool(len(fitting)) and all(one.tobytes() == all_SD[rows].tobytes() for one, all_SD in pairs)

    sizes = (shapes.sizes[0], *(size for size in shapes.sizes[1:] if agrees(size, full[0], TRIED_SLICES)))
    shorter = (one for one in shapes.places[:-1] if all(agrees(size, one, TRIED_SHORT_SLICES) for size in sizes))
    return BlockShapes(sizes, (*shorter, *full))


def made_up_slices(dims: ModelDims, num_slices: int) -> MadeUp:
    """Slices and contexts of all lengths, always the same ones."""
    generator = np.random.default_rng(0)
    own, before = (num_slices, dims.slice_events), (num_slices, dims.context_events)
    is_absent_SC = np.arange(dims.context_events) < generator.integers(0, dims.context_events + 1, num_slices)[:, None]
    batch = SliceBatch(
        generator.integers(1, dims.num_item_rows, own),
        generator.integers(1, dims.num_type_rows, own),
        generator.integers(0, 10**9, own),
        generator.integers(1, dims.slice_events + 1, num_slices),
        np.where(is_absent_SC, PAD_ROW, generator.integers(1, dims.num_item_rows, before)),
        generator.integers(1, dims.num_type_rows, before),
        generator.integers(0, 10**9, before),
    )
    merged = generator.standard_normal((num_slices, dims.num_memory_rows, dims.dim)).astype(np.float32)
    return MadeUp(batch, merged, np.arange(num_slices) % 3 > 0)
