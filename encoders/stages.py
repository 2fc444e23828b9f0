"""What the runtime has computed for it, and in what form it hands slices over.

Shapes: S slices, C events before a slice, L its own places, T = C + L, R rows of a memory, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from encoders.contract import BoolArray, Float32Array, Int64Array


@dataclass(slots=True)
class Inputs:
    """Slices behind the events before them, as rows of the model's tables, all int64; row 0 pads.

    Args:
        item_rows_ST: events before a slice padded on the left, its own on the right.
        type_rows_ST: likewise.
        gap_rows_ST: likewise.
        lengths_S: own events of each slice, 1 to L.
        num_context: C.
    """

    item_rows_ST: Int64Array
    type_rows_ST: Int64Array
    gap_rows_ST: Int64Array
    lengths_S: Int64Array
    num_context: int

    @property
    def num_slices(self) -> int:
        """S."""
        return len(self.lengths_S)

    def some(self, rows: Int64Array | slice, num_places: int) -> Inputs:
        """The slices of these rows, all of at most `num_places` events, with as many places."""
        end = self.num_context + num_places
        return Inputs(
            self.item_rows_ST[rows, :end],
            self.type_rows_ST[rows, :end],
            self.gap_rows_ST[rows, :end],
            self.lengths_S[rows],
            self.num_context,
        )

    def padded(self) -> tuple[Int64Array, ...]:
        """What `padded.PaddedSlices` holds, in its order."""
        columns = (self.item_rows_ST, self.type_rows_ST, self.gap_rows_ST)
        own = (rows_ST[:, self.num_context :] for rows_ST in columns)
        return (*own, self.lengths_S, *(rows_ST[:, : self.num_context] for rows_ST in columns))


class Stages(Protocol):
    """The parts of a model that are computed one after the other; equal rows give equal bytes in any batch."""

    def encoded(self, inputs: Inputs) -> tuple[Float32Array, Float32Array]:
        """(S, D) codes and (S, D) local states without a memory."""

    def recalled(self, inputs: Inputs, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) local states that saw the memory, where the merge enters the encoder."""

    def users(self, locals_SD: Float32Array, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) user vectors."""
