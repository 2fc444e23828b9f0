"""Slice models with a backbone: trained, saved, loaded without its source, and served as other models are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.backbone import make_backbone
from encoders.checkpoint import load_model, save_model
from encoders.compression import compressed
from encoders.contract import MergeKind
from encoders.pretrained import PretrainedModelError, load_pretrained
from encoders.pruning import calibration_batch, pruned
from encoders.reference import ReferenceEncoder
from encoders.runtime import SliceEncoderRuntime
from encoders.sampling import SliceReader
from encoders.spec import load_spec
from encoders.train import train_model
from encoders.trained import TrainedModel, TrainProgress
from encoders.training_config import BackboneSettings, TrainConfig
from tests.encoders.cases import (
    MINUTE_MS,
    cyclic_histories,
    cyclic_vocabulary,
    made_up_model,
    random_batch,
    rows_of_batch,
)
from tests.encoders.closeness import closeness, user_vectors
from tests.encoders.pretrained_cases import gpt2_folder

pytestmark = pytest.mark.slow

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40}
QWEN2 = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
CASES: list[tuple[dict[str, Any], MergeKind]] = [
    (GPT2, "decayed"),
    (GPT2, "tokens"),
    (QWEN2, "tokens"),
    (QWEN2, "none"),
]
NAMES = [f"{config['model_type']}-{merge}" for config, merge in CASES]
SPLIT_MS = 20 * MINUTE_MS
CONFIG = TrainConfig(dim=16, slice_events=8, max_epochs=2, batch_events=256, max_validation_targets=50)


def whole_config(config: Mapping[str, Any], num_places: int = 36) -> dict[str, Any]:
    """The configuration as a model's dims hold it."""
    with torch.random.fork_rng(devices=[]):
        return make_backbone(BackboneSettings(config=config), 64, num_places).config()


def train(settings: BackboneSettings, **how: Any) -> TrainedModel:
    """Two passes over users who walk round 60 items."""
    config = replace(CONFIG, backbone=settings)
    how = {"on_progress": lambda _: None, **how}
    histories = cyclic_histories(num_users=40, num_events=24)
    return train_model(histories, cyclic_vocabulary(), config, SPLIT_MS, clock=lambda: 0.0, **how)


@pytest.fixture(scope="module", params=CASES, ids=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved made-up model; read only."""
    config, merge = request.param
    path = tmp_path_factory.mktemp("backbone")
    save_model(made_up_model(3, merge=merge, backbone=whole_config(config)), path)
    return path


def test_the_runtime_agrees_with_the_oracle(folder: Path) -> None:
    runtime, oracle = SliceEncoderRuntime.load(folder, "cpu"), ReferenceEncoder(load_model(folder))
    batch = random_batch(30, seed=1)

    codes = (runtime.encode(batch).codes_SD, oracle.encode(batch).codes_SD)

    np.testing.assert_allclose(*codes, atol=1e-4)
    assert closeness(runtime, oracle, batch).largest < 1e-4


def test_a_row_is_the_same_bytes_in_any_batch(folder: Path) -> None:
    """Among slices whose contexts are full as well as among those that lack some."""
    runtime = SliceEncoderRuntime.load(folder, "cpu")
    batch = random_batch(90, seed=2)
    generator = np.random.default_rng(0)
    shape = (90, runtime.merge.num_rows, runtime.dim)
    merged_SRD, has_merged_S = generator.standard_normal(shape).astype(np.float32), generator.random(90) < 0.7
    is_full_S = (batch.context_item_rows_SC > 0).all(axis=1)
    assert 0 < is_full_S.sum() < 90

    whole_SD = user_vectors(runtime, batch, merged_SRD, has_merged_S)

    for rows in ([7], np.flatnonzero(is_full_S).tolist(), [89, 3, 3, 40], list(range(70))):
        part_SD = user_vectors(runtime, rows_of_batch(batch, rows), merged_SRD[rows], has_merged_S[rows])
        assert part_SD.tobytes() == whole_SD[rows].tobytes()


def test_the_events_before_count_and_what_stands_in_for_them_does_not(folder: Path) -> None:
    runtime = SliceEncoderRuntime.load(folder, "cpu")
    batch = random_batch(8, seed=3)
    absent_SC = batch.context_item_rows_SC == 0
    locals_SD = runtime.encode(batch).locals_SD

    padding = replace(batch, context_type_rows_SC=np.where(absent_SC, 3, batch.context_type_rows_SC))
    none = replace(batch, context_item_rows_SC=np.zeros_like(batch.context_item_rows_SC))

    assert runtime.encode(padding).locals_SD.tobytes() == locals_SD.tobytes()
    differences_S = np.abs(runtime.encode(none).locals_SD - locals_SD).max(axis=1)
    assert (differences_S > 1e-3).tolist() == (~absent_SC).any(axis=1).tolist()


def test_memory_tokens_reach_the_backbone() -> None:
    trained = made_up_model(3, merge="tokens", backbone=whole_config(GPT2))
    vectors_SD = [
        trained.model.states(*_padded_with_memory(trained, scale))[0].detach().numpy() for scale in (0.0, 1.0)
    ]
    assert np.abs(vectors_SD[0] - vectors_SD[1]).max() > 1e-2


def _padded_with_memory(trained: TrainedModel, scale: float) -> tuple[Any, torch.Tensor, torch.Tensor]:
    dims = trained.model.dims
    histories = cyclic_histories(num_users=3, num_events=16, num_items=50)
    reader = SliceReader(histories, dims.gap_edges_ms, dims.slice_events, dims.context_events)
    slices = reader.padded(np.arange(6))
    generator = torch.Generator().manual_seed(0)
    memory = torch.randn(6, dims.num_memory_rows, dims.dim, generator=generator)
    return slices, memory * scale, torch.ones(6, dtype=torch.bool)


def test_a_trained_folder_is_loaded_without_the_source(tmp_path: Path) -> None:
    source = gpt2_folder(tmp_path / "source")
    trained = train(BackboneSettings(source=str(source)))
    assert trained.curve[-1].prediction_loss < trained.curve[0].prediction_loss
    save_model(trained, tmp_path / "model")
    shutil.rmtree(source)

    loaded = load_model(tmp_path / "model")

    weights, expected = loaded.model.state_dict(), trained.model.state_dict()
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())
    save_model(replace(trained, model=loaded.model), tmp_path / "again")
    assert (tmp_path / "again" / "spec.json").read_bytes() == (tmp_path / "model" / "spec.json").read_bytes()
    assert load_spec(tmp_path / "model").training["config"]["backbone"]["source"] == str(source)


def test_pretrained_weights_learn_slower_than_new_ones(tmp_path: Path) -> None:
    """No step of AdamW is much longer than its rate, so the way that a weight went tells its rate."""
    source = str(gpt2_folder(tmp_path))
    trained = train(BackboneSettings(source=source))
    before = load_pretrained(source).state_dict()
    after = trained.model.get_submodule("backbone.model").state_dict()

    moved = {name: float((after[name] - before[name]).abs().max()) for name in before if "wte" not in name}

    num_steps = 2 * -(-trained.num_train_targets // CONFIG.batch_events) + 2
    longest = num_steps * CONFIG.optimisation.learning_rate
    assert 0 < max(moved.values()) < 0.1 * longest


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with weights; read only."""
    return gpt2_folder(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def lora(pretrained: Path) -> BackboneSettings:
    """Adapters on it."""
    return BackboneSettings(source=str(pretrained), tuning="lora")


def test_adapters_alone_are_trained_and_added_in_on_saving(
    pretrained: Path, lora: BackboneSettings, tmp_path: Path
) -> None:
    trained = train(lora)
    before = load_pretrained(str(pretrained)).state_dict()
    after = trained.model.get_submodule("backbone.model").state_dict()

    assert not any("lora" in name for name in trained.model.state_dict())
    changed = {name for name, weight in after.items() if "wte" not in name and not torch.equal(weight, before[name])}
    linear = {name for name in before if name.endswith(".weight") and (".attn." in name or ".mlp." in name)}
    assert changed == linear
    for name in linear:  # of rank 8 at most; the rest is rounding
        values = torch.linalg.svdvals(after[name] - before[name])
        assert values[8:].max() < 1e-4 * values[0]

    save_model(trained, tmp_path)
    runtime, oracle = SliceEncoderRuntime.load(tmp_path, "cpu"), ReferenceEncoder(load_model(tmp_path))
    batch = random_batch(12, seed=4, num_items=60, slice_events=8)
    one_type = replace(
        batch,
        type_rows_SL=np.minimum(batch.type_rows_SL, 2),
        context_type_rows_SC=np.minimum(batch.context_type_rows_SC, 2),
    )
    assert closeness(runtime, oracle, one_type).largest < 1e-4


class PowerCut(Exception):
    """What ends a training here."""


def break_off(_: TrainProgress) -> None:
    raise PowerCut


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_resumed_equals_undisturbed(pretrained: Path, tuning: Any, tmp_path: Path) -> None:
    settings = BackboneSettings(source=str(pretrained), tuning=tuning)
    whole = train(settings).model.state_dict()
    with pytest.raises(PowerCut):
        train(settings, on_progress=break_off, checkpoint_folder=tmp_path)

    resumed = train(settings, checkpoint_folder=tmp_path, resume=True).model.state_dict()

    assert list(resumed) == list(whole)
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())


def test_a_backbone_with_too_few_places_is_refused() -> None:
    """Eight events before, eight of the slice, four rows of the memory where they enter."""
    short = BackboneSettings(config={**GPT2, "n_positions": 19})
    with pytest.raises(PretrainedModelError, match="19 places, 20 are needed"):
        histories = cyclic_histories(num_users=40, num_events=24)
        config = replace(CONFIG, merge="tokens", backbone=short)
        train_model(histories, cyclic_vocabulary(), config, SPLIT_MS, lambda _: None)


@pytest.fixture(scope="module")
def from_config() -> Iterator[TrainedModel]:
    """A made-up model with a random GPT-2."""
    yield made_up_model(5, backbone=whole_config(GPT2))


def test_backbones_are_not_pruned(from_config: TrainedModel) -> None:
    batch = calibration_batch(cyclic_histories(num_users=10, num_events=16, num_items=50), from_config.model.dims)
    with pytest.raises(ValueError, match="only blocks are pruned"):
        pruned(from_config.model, batch, num_heads=1, num_layers=1)


def test_backbones_are_compressed_as_blocks_are(from_config: TrainedModel, tmp_path: Path) -> None:
    save_model(from_config, tmp_path)
    loaded = load_model(tmp_path)
    small = replace(loaded, model=compressed(loaded.model, "bf16"))

    found = closeness(
        SliceEncoderRuntime(small, torch.device("cpu")), ReferenceEncoder(loaded), random_batch(20, seed=1)
    )

    assert found.largest > 0 and found.lowest_cosine > 0.99
