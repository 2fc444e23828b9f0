"""Slices as tensors: what the model takes, in training and in service.

Shapes: S slices, L events of a slice (padded on the right), C events before it (padded on the left).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class PaddedSlices:
    """Slices with the events before them, padded.

    Args:
        item_rows_SL: int64.
        type_rows_SL: int64.
        gap_rows_SL: int64 gap buckets.
        lengths_S: int64.
        context_item_rows_SC: int64, newest last; 0 in padded places and nowhere else.
        context_type_rows_SC: int64.
        context_gap_rows_SC: int64 gap buckets.
    """

    item_rows_SL: Tensor
    type_rows_SL: Tensor
    gap_rows_SL: Tensor
    lengths_S: Tensor
    context_item_rows_SC: Tensor
    context_type_rows_SC: Tensor
    context_gap_rows_SC: Tensor

    def to(self, device: torch.device) -> PaddedSlices:
        """The same slices on a device."""
        return PaddedSlices(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def some(self, chosen_S: Tensor, num_places: int) -> PaddedSlices:
        """The slices of a boolean mask, all of at most `num_places` events, padded to as many."""
        chosen = {field.name: getattr(self, field.name)[chosen_S] for field in fields(self)}
        return PaddedSlices(**{name: rows[:, :num_places] if "_SL" in name else rows for name, rows in chosen.items()})
