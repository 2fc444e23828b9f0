"""The network's own promises: what a place may see, what distance does, and what dropout leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encoders.contract import MergeKind
from encoders.padded import PaddedSlices
from encoders.transformer import dropped
from tests.encoders.cases import made_up_model

LENGTH = 6


def made_up_slices(num_slices: int = 3) -> PaddedSlices:
    """Full slices of six events with six before them."""
    generator = torch.Generator().manual_seed(0)
    items, types, gaps, *context = (
        torch.randint(1, high, (num_slices, LENGTH), generator=generator) for high in (50, 4, 20, 50, 4, 20)
    )
    return PaddedSlices(items, types, gaps, torch.full((num_slices,), LENGTH), *context)


@pytest.mark.parametrize("merge", ["decayed", "tokens"])
def test_no_place_sees_a_later_one(merge: MergeKind) -> None:
    model = made_up_model(seed=1, slice_events=LENGTH, merge=merge).model
    slices = made_up_slices()
    items_SL = slices.item_rows_SL.clone()
    items_SL[:, 3] = 51 - items_SL[:, 3]
    with torch.inference_mode():
        before, after = (model.states(one)[0] for one in (slices, replace(slices, item_rows_SL=items_SL)))
    assert torch.equal(before[:, :3], after[:, :3])
    assert ((before - after)[:, 3:].abs().amax(2) > 1e-3).all()


def test_all_places_see_all_events_before_the_slice() -> None:
    model = made_up_model(seed=1, slice_events=LENGTH).model
    slices = made_up_slices()
    for place in range(LENGTH):
        items_SC = slices.context_item_rows_SC.clone()
        items_SC[:, place] = 51 - items_SC[:, place]
        with torch.inference_mode():
            before, after = (model.states(one)[0] for one in (slices, replace(slices, context_item_rows_SC=items_SC)))
        assert ((before - after).abs().amax(2) > 1e-4).all()


def test_only_distance_tells_places_apart() -> None:
    """Two events that change places in front of a third are one set to it, until the learned distances differ."""
    model = made_up_model(seed=1, slice_events=LENGTH).model
    slices = made_up_slices(1)
    swapped = slices.context_item_rows_SC[:, [1, 0, 2, 3, 4, 5]]
    alike = torch.full_like(slices.context_item_rows_SC, 2)
    slices = replace(slices, context_type_rows_SC=alike, context_gap_rows_SC=alike)
    with torch.inference_mode():
        near = [model.states(one)[0] for one in (slices, replace(slices, context_item_rows_SC=swapped))]
        for name, weight in model.named_parameters():
            if name.endswith("distance_bias_AT"):
                weight.zero_()
        same = [model.states(one)[0] for one in (slices, replace(slices, context_item_rows_SC=swapped))]
    assert (near[0] - near[1]).abs().max() > 1e-4
    assert torch.allclose(same[0], same[1], atol=1e-5)


def test_contexts_of_another_width_are_refused() -> None:
    model = made_up_model(seed=1, slice_events=LENGTH).model
    slices = made_up_slices()
    nothing = slices.context_item_rows_SC[:, :0]
    without = PaddedSlices(
        slices.item_rows_SL, slices.type_rows_SL, slices.gap_rows_SL, slices.lengths_S, nothing, nothing, nothing
    )
    with pytest.raises(ValueError, match="contexts have 0 places, the model takes 6"):
        model.states(without)


def test_dropout_keeps_the_mean_and_the_share() -> None:
    torch.manual_seed(3)
    ones = torch.ones(100_001)
    kept = dropped(ones, 0.2, True)
    # 51/256 of the values go; the standard error of the share is .0013.
    assert kept.eq(0).float().mean().item() == pytest.approx(51 / 256, abs=0.006)
    assert kept.mean().item() == pytest.approx(1.0, abs=0.008)
    assert kept.unique().tolist() == pytest.approx([0.0, 256 / 205])
    assert dropped(ones, 0.2, False) is ones and dropped(ones, 0.0, True) is ones
    torch.manual_seed(3)
    assert torch.equal(dropped(ones, 0.2, True), kept)
