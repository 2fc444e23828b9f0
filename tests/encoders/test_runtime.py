"""The runtime keeps the contract, byte for byte, and agrees with its slow oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoders.block_stages import CPU_BLOCK_SIZES, BlockStages, blocks
from encoders.checkpoint import load_model, save_model
from encoders.contract import SliceBatch, SliceEncoder
from encoders.reference import ReferenceEncoder
from encoders.runtime import SliceEncoderRuntime
from tests.encoders.cases import made_up_model, random_batch, rows_of_batch
from tests.examples import examples

NUM_SLICES = 200


def user_inputs(num_rows: int, seed: int, dim: int = 64) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(seed)
    locals_SD = generator.standard_normal((num_rows, dim)).astype(np.float32)
    merged_SHD = generator.standard_normal((num_rows, 4, dim)).astype(np.float32)
    return locals_SD, merged_SHD, generator.random(num_rows) < 0.7


def largest_difference(left: Any, right: Any) -> float:
    return float(np.abs(left.astype(np.float64) - right.astype(np.float64)).max())


def test_agrees_with_the_oracle(runtime: SliceEncoderRuntime, model_folder: Path) -> None:
    oracle: SliceEncoder = ReferenceEncoder(load_model(model_folder))
    batch = random_batch(70, seed=1)
    fast, slow = runtime.encode(batch), oracle.encode(batch)
    for name in ("codes_SD", "locals_SD"):
        difference = largest_difference(getattr(fast, name), getattr(slow, name))
        assert difference < 2e-5, f"{name}: largest difference to the oracle {difference:.2e}"
    inputs = user_inputs(70, seed=2)
    difference = largest_difference(runtime.user_vectors(*inputs), oracle.user_vectors(*inputs))
    assert difference < 2e-5, f"user vectors: largest difference to the oracle {difference:.2e}"
    assert runtime.item_vectors()[0] == oracle.item_vectors()[0]
    assert np.array_equal(runtime.item_vectors()[1], oracle.item_vectors()[1])
    assert (runtime.release, runtime.dim) == (oracle.release, oracle.dim)


@pytest.mark.slow
@examples(25)
@given(rows=st.lists(st.integers(0, NUM_SLICES - 1), max_size=150))
def test_a_row_does_not_depend_on_its_batch(runtime: SliceEncoderRuntime, rows: list[int]) -> None:
    batch = random_batch(NUM_SLICES, seed=3)
    whole, part = runtime.encode(batch), runtime.encode(rows_of_batch(batch, rows))
    assert part.codes_SD.tobytes() == whole.codes_SD[rows].tobytes()
    assert part.locals_SD.tobytes() == whole.locals_SD[rows].tobytes()
    inputs = user_inputs(NUM_SLICES, seed=4)
    part_users = runtime.user_vectors(*(values[rows] for values in inputs))
    assert part_users.tobytes() == runtime.user_vectors(*inputs)[rows].tobytes()


def test_batch_equals_single(runtime: SliceEncoderRuntime) -> None:
    batch = random_batch(NUM_SLICES, seed=5)
    whole = runtime.encode(batch)
    for row in range(0, NUM_SLICES, 7):
        assert runtime.encode(rows_of_batch(batch, [row])).codes_SD.tobytes() == whole.codes_SD[row].tobytes()


def test_padding_changes_nothing(runtime: SliceEncoderRuntime) -> None:
    batch = random_batch(40, seed=6)
    padded = np.arange(16) >= batch.lengths_S[:, None]
    absent = batch.context_item_rows_SC == 0
    other = SliceBatch(
        np.where(padded, 9, batch.item_rows_SL),
        np.where(padded, 2, batch.type_rows_SL),
        np.where(padded, 123_456, batch.gaps_ms_SL),
        batch.lengths_S,
        batch.context_item_rows_SC,
        np.where(absent, 3, batch.context_type_rows_SC),
        np.where(absent, 123_456, batch.context_gaps_ms_SC),
    )
    assert runtime.encode(other).codes_SD.tobytes() == runtime.encode(batch).codes_SD.tobytes()
    assert runtime.encode(other).locals_SD.tobytes() == runtime.encode(batch).locals_SD.tobytes()


def test_every_input_matters(runtime: SliceEncoderRuntime) -> None:
    batch = rows_of_batch(random_batch(1, seed=6), [0])
    batch.lengths_S[:] = 5
    batch.context_item_rows_SC[:] = 7
    before = runtime.encode(batch)
    for name, value in (
        ("item_rows_SL", 33),
        ("type_rows_SL", 1),
        ("gaps_ms_SL", 7),
        ("context_item_rows_SC", 33),
        ("context_type_rows_SC", 1),
        ("context_gaps_ms_SC", 7),
    ):
        changed = {key: array.copy() for key, array in vars(batch).items()}
        changed[name][0, 2] = value if changed[name][0, 2] != value else value + 1
        after = runtime.encode(SliceBatch(**changed))
        assert largest_difference(before.codes_SD, after.codes_SD) > 1e-4, name
        assert largest_difference(before.locals_SD, after.locals_SD) > 1e-4, name


def test_inputs_are_not_mutated_and_outputs_not_shared(runtime: SliceEncoderRuntime) -> None:
    batch = random_batch(9, seed=8)
    copies = [array.copy() for array in vars(batch).values()]
    first = runtime.encode(batch)
    kept = first.codes_SD.copy()
    inputs = user_inputs(9, seed=9)
    input_copies = [array.copy() for array in inputs]
    runtime.user_vectors(*inputs)
    runtime.encode(random_batch(9, seed=10))
    assert all(np.array_equal(old, new) for old, new in zip(copies, vars(batch).values(), strict=True))
    assert all(np.array_equal(old, new) for old, new in zip(input_copies, inputs, strict=True))
    assert np.array_equal(kept, first.codes_SD)
    runtime.item_vectors()[1][:] = 0
    assert runtime.item_vectors()[1].any()


def test_read_only_and_strided_inputs(runtime: SliceEncoderRuntime) -> None:
    batch = random_batch(6, seed=11)
    strided = SliceBatch(*(np.repeat(array, 2, axis=0)[::2] for array in vars(batch).values()))
    for array in vars(strided).values():
        array.flags.writeable = False
    assert runtime.encode(strided).codes_SD.tobytes() == runtime.encode(batch).codes_SD.tobytes()


def test_empty_batch(runtime: SliceEncoderRuntime) -> None:
    codes = runtime.encode(random_batch(0, seed=0))
    assert codes.codes_SD.shape == codes.locals_SD.shape == (0, 64)
    assert runtime.user_vectors(*user_inputs(0, seed=0)).shape == (0, 64)


def test_merged_codes_count_only_where_there_are_some(runtime: SliceEncoderRuntime) -> None:
    locals_SD, merged_SHD, _ = user_inputs(8, seed=12)
    absent = np.zeros(8, dtype=np.bool_)
    garbage = np.full_like(merged_SHD, np.nan)
    without = runtime.user_vectors(locals_SD, merged_SHD, absent)
    assert without.tobytes() == runtime.user_vectors(locals_SD, garbage, absent).tobytes()
    assert largest_difference(without, runtime.user_vectors(locals_SD, merged_SHD, ~absent)) > 1e-2


def test_a_nan_row_stays_alone(runtime: SliceEncoderRuntime) -> None:
    locals_SD, merged_SHD, has_merged_S = user_inputs(8, seed=13)
    clean = runtime.user_vectors(locals_SD, merged_SHD, has_merged_S)
    locals_SD[3] = np.nan
    spoilt = runtime.user_vectors(locals_SD, merged_SHD, has_merged_S)
    assert np.isnan(spoilt[3]).all()
    assert np.delete(spoilt, 3, axis=0).tobytes() == np.delete(clean, 3, axis=0).tobytes()


def test_reloading_gives_the_same_bytes(model_folder: Path, runtime: SliceEncoderRuntime) -> None:
    again = SliceEncoderRuntime(load_model(model_folder), runtime.device, in_numpy=runtime.backend == "numpy")
    batch = random_batch(33, seed=14)
    assert again.encode(batch).codes_SD.tobytes() == runtime.encode(batch).codes_SD.tobytes()
    assert again.item_vectors()[1].tobytes() == runtime.item_vectors()[1].tobytes()
    assert again.half_lives_ms.tolist() == pytest.approx([6e4, 3.6e6, 8.64e7, 3e12], rel=1e-5)


def test_rows_and_names(runtime: SliceEncoderRuntime) -> None:
    assert runtime.rows_of(["item-0", "never seen", "item-49"]).tolist() == [2, 1, 51]
    assert runtime.type_rows_of(["purchase", "wave"]).tolist() == [3, 1]
    assert runtime.rows_of([]).dtype == np.int64
    assert runtime.item_vectors()[1].shape == (50, 64)


@pytest.mark.parametrize(("slice_events", "context_events"), [(2, 1), (5, 5), (16, 0), (32, 16)])
@pytest.mark.parametrize("in_numpy", [True, False])
def test_other_slice_lengths(tmp_path: Path, slice_events: int, context_events: int, in_numpy: bool) -> None:
    save_model(made_up_model(1, slice_events=slice_events, context_events=context_events), tmp_path)
    fast = SliceEncoderRuntime(load_model(tmp_path), torch.device("cpu"), in_numpy=in_numpy)
    batch = random_batch(80, seed=15, slice_events=slice_events, context_events=context_events)
    whole = fast.encode(batch)
    difference = largest_difference(whole.codes_SD, ReferenceEncoder(load_model(tmp_path)).encode(batch).codes_SD)
    assert difference < 2e-5, f"largest difference to the oracle {difference:.2e}"
    rows = [79, 3, 3, 40, 7]
    assert fast.encode(rows_of_batch(batch, rows)).codes_SD.tobytes() == whole.codes_SD[rows].tobytes()


def test_refuses_what_does_not_fit(runtime: SliceEncoderRuntime, model_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"have \(5, 5\) places, the model takes \(16, 16\)"):
        runtime.encode(random_batch(3, seed=0, slice_events=5))
    with pytest.raises(ValueError, match="rows of different releases"):
        runtime.encode(random_batch(30, seed=0, num_items=500))
    with pytest.raises(ValueError, match="expected"):
        runtime.user_vectors(*user_inputs(3, seed=0, dim=32))
    with pytest.raises(ValueError, match="device is 'tpu'"):
        SliceEncoderRuntime.load(model_folder, "tpu")


def test_block_sizes_that_round_differently_are_not_used(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = BlockStages._encode_block

    def encode_block(self: BlockStages, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        codes_BD, locals_BD = plain(self, *inputs)
        return (codes_BD * (1 + 1e-6) if len(inputs[0]) == 64 else codes_BD), locals_BD

    monkeypatch.setattr(BlockStages, "_encode_block", encode_block)
    runtime = SliceEncoderRuntime(load_model(model_folder), torch.device("cpu"), in_numpy=False)
    assert 64 not in runtime.blocks.shapes.sizes


@given(num_rows=st.integers(0, 400))
def test_blocks_cover_every_row_once(num_rows: int) -> None:
    cut = list(blocks(num_rows, CPU_BLOCK_SIZES))
    covered = [row for start, end, _ in cut for row in range(start, end)]
    assert covered == list(range(num_rows))
    assert all(0 < end - start <= size for start, end, size in cut)
    assert sum(size for _, _, size in cut) - num_rows < CPU_BLOCK_SIZES[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_gpu_agrees_with_the_cpu(model_folder: Path, runtime: SliceEncoderRuntime) -> None:
    on_gpu = SliceEncoderRuntime.load(model_folder, "cuda")
    batch = random_batch(NUM_SLICES, seed=16)
    difference = largest_difference(on_gpu.encode(batch).codes_SD, runtime.encode(batch).codes_SD)
    assert difference < 1e-3, f"largest difference to the CPU {difference:.2e}"
