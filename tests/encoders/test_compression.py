"""Smaller arithmetic stays close to the plain oracle of the whole model, and says where it must not be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pytest
import torch
from torch import nn

from encoders.checkpoint import LoadedModel, load_model, save_model
from encoders.compression import CompressionKind, compressed, num_bytes
from encoders.contract import MergeKind, SliceBatch
from encoders.reference import ReferenceEncoder
from encoders.runtime import SliceEncoderRuntime
from encoders.sampling import SliceReader
from encoders.train import train_model
from encoders.trained import TrainedModel
from encoders.training_config import TrainConfig
from encoders.validation import plan_validation, validation_ndcg
from tests.encoders.cases import (
    MINUTE_MS,
    cyclic_histories,
    cyclic_vocabulary,
    made_up_model,
    random_batch,
    rows_of_batch,
)
from tests.encoders.closeness import closeness

pytestmark = pytest.mark.slow

KINDS = get_args(CompressionKind)
SPLIT_MS = 20 * MINUTE_MS
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny() -> TrainedModel:
    """A model that was trained for a moment."""
    config = TrainConfig(slice_events=8, max_epochs=3, patience_epochs=0, batch_events=256)
    histories = cyclic_histories(num_users=60, num_events=24)
    return train_model(histories, cyclic_vocabulary(), config, SPLIT_MS, lambda _: None, clock=lambda: 0.0)


def clicks(num_slices: int) -> SliceBatch:
    """Slices for `tiny`, which knows one type of event."""
    batch = random_batch(num_slices, seed=1, num_items=60, slice_events=8, context_events=8)
    ones = (np.full_like(batch.type_rows_SL, 2), np.full_like(batch.context_type_rows_SC, 2))
    return replace(batch, type_rows_SL=ones[0], context_type_rows_SC=ones[1])


def saved(trained: TrainedModel, folder: Path) -> LoadedModel:
    """The model by way of its folder."""
    save_model(trained, folder)
    return load_model(folder)


def runtime_of(loaded: LoadedModel, kind: CompressionKind) -> SliceEncoderRuntime:
    """The fast path over a compressed model."""
    return SliceEncoderRuntime(replace(loaded, model=compressed(loaded.model, kind)), CPU)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_model_stays_close_to_the_oracle(kind: CompressionKind, tiny: TrainedModel, tmp_path: Path) -> None:
    loaded = saved(tiny, tmp_path)
    found = closeness(runtime_of(loaded, kind), ReferenceEncoder(loaded), clicks(60))
    assert found.lowest_cosine > 0.99, found
    # Nothing would be rounded if the two were the same to float32's last digits.
    assert found.largest > 1e-4, found


@pytest.mark.parametrize("merge", get_args(MergeKind))
@pytest.mark.parametrize("kind", KINDS)
def test_every_merge_stays_close_to_the_oracle(kind: CompressionKind, merge: MergeKind, tmp_path: Path) -> None:
    loaded = saved(made_up_model(seed=5, slice_events=8, merge=merge), tmp_path)
    batch = random_batch(30, seed=2, slice_events=8)
    found = closeness(runtime_of(loaded, kind), ReferenceEncoder(loaded), batch)
    assert found.lowest_cosine > 0.99, found


@pytest.mark.parametrize("kind", KINDS)
def test_quality_is_judged_as_of_any_model(kind: CompressionKind, tiny: TrainedModel) -> None:
    histories = cyclic_histories(num_users=60, num_events=24)
    dims = tiny.model.dims
    reader = SliceReader(histories, dims.gap_edges_ms, dims.slice_events, dims.context_events)
    plan = plan_validation(reader, SPLIT_MS, max_targets=200, seed=0)
    whole, small = (validation_ndcg(model, plan) for model in (tiny.model, compressed(tiny.model, kind)))
    assert small == pytest.approx(whole, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_itself_is_left_alone(kind: CompressionKind) -> None:
    model = made_up_model(seed=3).model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    compressed(model, kind)
    assert torch.equal(torch.rand(3), expected)
    assert {name: weight.dtype for name, weight in model.state_dict().items()} == dict.fromkeys(before, torch.float32)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_bf16_takes_half_the_bytes() -> None:
    model = made_up_model(seed=3).model
    assert num_bytes(model) == 4 * sum(weight.numel() for weight in model.parameters())
    # Four half-lives and the 64 values for "no memory" stay as they are.
    kept = 4 * (4 + 64)
    assert num_bytes(compressed(model, "bf16")) == (num_bytes(model) - kept) // 2 + kept


def test_int8_takes_a_quarter_of_the_linear_layers() -> None:
    model = made_up_model(seed=3).model
    sizes = [part.weight.numel() for part in model.modules() if isinstance(part, nn.Linear)]
    # Each layer has an unused scale (4 bytes) and zero point (8) for its outputs besides.
    assert num_bytes(model) - num_bytes(compressed(model, "int8")) == 3 * sum(sizes) - 12 * len(sizes)


def test_bf16_gives_equal_rows_equal_bytes(tiny: TrainedModel, tmp_path: Path) -> None:
    runtime = runtime_of(saved(tiny, tmp_path), "bf16")
    batch = clicks(70)
    together = runtime.encode(batch)
    for row in (0, 3, 64, 69):
        alone = runtime.encode(rows_of_batch(batch, [row]))
        assert alone.codes_SD.tobytes() == together.codes_SD[row].tobytes()
        assert alone.locals_SD.tobytes() == together.locals_SD[row].tobytes()


def test_int8_lets_rows_depend_on_their_companions(tiny: TrainedModel) -> None:
    """Why no stream may be served with it: a replay cuts batches differently."""
    model = compressed(tiny.model, "int8")
    pooled = torch.randn(32, 3 * model.dims.dim, generator=torch.Generator().manual_seed(0))
    louder = torch.cat([pooled[:16], 10 * pooled[16:]])
    with torch.inference_mode():
        assert not torch.equal(model.codes(pooled)[0][:16], model.codes(louder)[0][:16])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("again", "found"), [("bf16", "bfloat16"), ("int8", "int8")])
def test_a_compressed_model_is_not_compressed_again(kind: CompressionKind, again: CompressionKind, found: str) -> None:
    once = compressed(made_up_model(seed=3).model, again)
    with pytest.raises(ValueError, match=f"the model computes with {found}, expected float32"):
        compressed(once, kind)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'int4', expected one of bf16, int8"):
        compressed(made_up_model(seed=3).model, cast(CompressionKind, "int4"))


def test_int8_is_refused_off_the_cpu() -> None:
    with pytest.raises(ValueError, match="the model is on meta: int8 is for the CPU only"):
        compressed(made_up_model(seed=3).model.to("meta"), "int8")
