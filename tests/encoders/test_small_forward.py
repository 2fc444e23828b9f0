"""Small models in numpy: close to the oracle whatever their shape, the same bytes whatever comes with a slice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from encoders import block_trial, small_forward, small_layers
from encoders.checkpoint import LoadedModel, load_model, save_model
from encoders.compression import compressed
from encoders.contract import MergeKind
from encoders.reference import ReferenceEncoder
from encoders.runtime import SliceEncoderRuntime
from encoders.small_forward import fits
from encoders.small_layers import gelu, softmax, unit
from encoders.spec import ModelDims
from encoders.transformer import SliceModel
from tests.encoders.cases import HALF_LIVES_MS, made_up_model, random_batch, rows_of_batch

CPU = torch.device("cpu")
TOLERANCE = 2e-5


def model_of(seed: int, folder: Path, **dims: Any) -> LoadedModel:
    """A made-up model of other dimensions, by way of its folder."""
    trained = made_up_model(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SliceModel(replace(trained.model.dims, **dims), HALF_LIVES_MS).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name != "merge.log_half_lives_ms":
                    weight.add_(torch.randn_like(weight) * 0.1)
    save_model(replace(trained, model=model), folder)
    return load_model(folder)


def differences(fast: SliceEncoderRuntime, slow: ReferenceEncoder, num_slices: int = 40) -> dict[str, float]:
    """The largest ones, by stage."""
    places = {"slice_events": fast.slice_events, "context_events": fast.context_events}
    batch = random_batch(num_slices, seed=1, **places)
    generator = np.random.default_rng(2)
    shape = (num_slices, fast.merge.num_rows, fast.dim)
    memory = (generator.standard_normal(shape).astype(np.float32), generator.random(num_slices) < 0.7)
    codes, wanted = fast.encode(batch), slow.encode(batch)
    pairs = {
        "codes": (codes.codes_SD, wanted.codes_SD),
        "locals": (codes.locals_SD, wanted.locals_SD),
        "users": tuple(one.user_vectors(wanted.locals_SD, *memory) for one in (fast, slow)),
    }
    if fast.merge.enters_encoder:
        pairs["recalled"] = tuple(one.recalled(batch, *memory) for one in (fast, slow))
    return {name: float(np.abs(left - right).max()) for name, (left, right) in pairs.items()}


@pytest.mark.parametrize("merge", get_args(MergeKind))
def test_every_merge_agrees_with_the_oracle(merge: MergeKind, tmp_path: Path) -> None:
    save_model(made_up_model(seed=5, merge=merge), tmp_path)
    loaded = load_model(tmp_path)
    fast = SliceEncoderRuntime(loaded, CPU)
    assert fast.backend == "numpy"
    found = differences(fast, ReferenceEncoder(loaded))
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize(
    "dims",
    [
        {"dim": 8, "num_heads": 1},
        {"dim": 30, "num_heads": 3, "num_layers": 3},
        {"dim": 128, "slice_events": 32, "context_events": 5},
        {"head_dim": 16, "merge": "tokens"},
        {"slice_events": 3, "context_events": 0, "merge": "tokens"},
        {"slice_events": 1, "context_events": 1, "merge": "none"},
    ],
    ids=str,
)
def test_every_shape_agrees_with_the_oracle(dims: dict[str, Any], tmp_path: Path) -> None:
    loaded = model_of(9, tmp_path, **dims)
    fast = SliceEncoderRuntime(loaded, CPU)
    assert fast.backend == "numpy"
    found = differences(fast, ReferenceEncoder(loaded))
    assert max(found.values()) < TOLERANCE, found


def test_how_many_are_made_at_once_changes_no_byte(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = SliceEncoderRuntime(load_model(model_folder), CPU)
    batch = random_batch(60, seed=3)
    whole = runtime.encode(batch)
    monkeypatch.setattr(small_forward, "MAX_VALUES", 4 * 64 * 20)
    part = runtime.encode(rows_of_batch(batch, range(59, -1, -1)))
    assert part.codes_SD[::-1].tobytes() == whole.codes_SD.tobytes()
    assert part.locals_SD[::-1].tobytes() == whole.locals_SD.tobytes()


def test_products_in_pieces_give_the_same_to_rounding(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(30, seed=4)
    whole = SliceEncoderRuntime(load_model(model_folder), CPU).encode(batch)
    monkeypatch.setattr(small_layers, "MAX_PRODUCT", 64 * 192 * 3)
    pieces = SliceEncoderRuntime(load_model(model_folder), CPU).encode(batch)
    np.testing.assert_allclose(pieces.codes_SD, whole.codes_SD, atol=TOLERANCE)


def test_where_bytes_do_not_repeat_torch_is_used(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = small_layers.gelu
    monkeypatch.setattr(small_forward, "gelu", lambda rows: exact(rows) * np.float32(1 + 1e-6 * (len(rows) > 1)))
    assert SliceEncoderRuntime(load_model(model_folder), CPU).backend == "torch on cpu"


def test_the_trial_sees_every_length_and_every_group(model_folder: Path) -> None:
    made_up = block_trial.made_up_slices(load_model(model_folder).spec.dims, block_trial.TRIED_SLICES)
    assert set(made_up.batch.lengths_S.tolist()) == set(range(1, 17))


def test_only_small_plain_models_fit() -> None:
    plain = made_up_model(1).model
    assert fits(plain)
    assert not fits(compressed(plain, "int8"))
    assert not fits(compressed(plain, "bf16"))
    assert not fits(SliceModel(ModelDims(4, 4, dim=256), HALF_LIVES_MS))


def test_gelu_is_torchs_within_a_millionth() -> None:
    values = np.concatenate([np.linspace(-9, 9, 100_001), [-1e15, -200, 200, 1e15, 0]]).astype(np.float32)
    exact = torch.nn.functional.gelu(torch.from_numpy(values).double()).numpy()
    difference = np.abs(gelu(values[None])[0] - exact)
    assert difference[np.abs(values) < 9].max() < 1.5e-6
    assert (difference <= 1e-6 * np.abs(values) + 1.5e-6).all()


def test_softmax_and_norm_are_torchs() -> None:
    rows = np.random.default_rng(0).normal(0, 30, (5, 40)).astype(np.float32)
    tensor = torch.from_numpy(rows)
    np.testing.assert_allclose(softmax(rows.copy()), torch.softmax(tensor, 1), atol=1e-6)
    normed = torch.nn.functional.layer_norm(tensor, (40,))
    np.testing.assert_allclose(unit(small_layers.centred(rows)), normed, atol=1e-5)
