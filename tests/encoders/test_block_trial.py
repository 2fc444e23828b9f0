"""Which shapes of blocks are used: those alone whose bytes agree with those of the first size and all places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.block_trial import BlockShapes, MadeUp, agreeing_shapes, made_up_slices, repeats_alone
from encoders.checkpoint import load_model
from encoders.contract import Float32Array
from encoders.runtime import SliceEncoderRuntime
from encoders.spec import ModelDims
from tests.encoders.cases import random_batch

DIMS = ModelDims(num_item_rows=20, num_type_rows=4)
TRIED = BlockShapes((4, 16, 64), (4, 8, 16))


@pytest.mark.parametrize(
    ("wrong", "kept"),
    [
        ((0, 0), TRIED),
        ((16, 16), BlockShapes((4, 64), (4, 8, 16))),
        ((64, 8), BlockShapes((4, 16, 64), (4, 16))),
        ((4, 4), BlockShapes((4, 16, 64), (8, 16))),
    ],
)
def test_a_shape_that_rounds_differently_is_not_used(wrong: tuple[int, int], kept: BlockShapes) -> None:
    def run(made_up: MadeUp, shapes: BlockShapes) -> Sequence[Float32Array]:
        values_S = made_up.batch.lengths_S.astype(np.float32)
        (size,), (places,) = shapes
        assert made_up.batch.lengths_S.max() <= places
        assert len(values_S) >= size
        return [values_S[:, None] * np.float32(1 + 1e-6 * ((size, places) == wrong))]

    assert agreeing_shapes(DIMS, TRIED, run) == kept


@pytest.mark.parametrize("wrong_row", [None, 0, 63])
def test_slices_that_round_differently_alone_are_found(wrong_row: int | None) -> None:
    lengths_S = made_up_slices(DIMS, 64).batch.lengths_S

    def run(made_up: MadeUp) -> Sequence[Float32Array]:
        values_S1 = made_up.batch.lengths_S.astype(np.float32)[:, None]
        is_wrong = wrong_row is not None and values_S1.tolist() == [[lengths_S[wrong_row]]]
        return [values_S1, values_S1 * np.float32(1 + 1e-6 * is_wrong)]

    assert repeats_alone(DIMS, run) == (wrong_row is None)


def test_slices_that_depend_on_their_order_are_found() -> None:
    def run(made_up: MadeUp) -> Sequence[Float32Array]:
        values_S1 = made_up.batch.lengths_S.astype(np.float32)[:, None]
        return [values_S1 + (len(values_S1) > 1) * (np.arange(len(values_S1)) == 1)[:, None].astype(np.float32)]

    assert not repeats_alone(DIMS, run)


def test_made_up_slices_are_of_all_lengths_and_always_the_same() -> None:
    made_up, again = made_up_slices(DIMS, 128), made_up_slices(DIMS, 128)
    assert set(made_up.batch.lengths_S.tolist()) == set(range(1, DIMS.slice_events + 1))
    assert made_up.batch.item_rows_SL.tobytes() == again.batch.item_rows_SL.tobytes()


def test_shorter_places_change_no_byte(model_folder: Path) -> None:
    runtime = SliceEncoderRuntime(load_model(model_folder), torch.device("cpu"), in_numpy=False)
    batch = random_batch(150, seed=21)
    shapes = runtime.blocks.shapes
    short = runtime.encode(batch)
    runtime.blocks.shapes = BlockShapes(shapes.sizes, shapes.places[-1:])
    whole = runtime.encode(batch)
    assert shapes.places[-1] == runtime.slice_events
    assert short.codes_SD.tobytes() == whole.codes_SD.tobytes()
    assert short.locals_SD.tobytes() == whole.locals_SD.tobytes()
