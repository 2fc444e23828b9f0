"""Backbones of the transformers library: causal or refused, small or large, trained in full or through adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoders.backbone import SequenceBackbone, backbone_from_config, make_backbone
from encoders.pretrained import PretrainedModelError
from encoders.training_config import BackboneSettings, LoraSettings
from tests.encoders.pretrained_cases import bert_folder, gpt2_folder

pytestmark = pytest.mark.slow  # transformers takes seconds to load

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 24}
QWEN2 = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
}
BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
    "initializer_range": 0.3,
}
ROBERTA = {**BERT, "model_type": "roberta"}
CAUSAL = [GPT2, QWEN2, BERT, ROBERTA]
NAMES = [str(config["model_type"]) for config in CAUSAL]
DIM = 24


def _made(config: dict[str, Any]) -> SequenceBackbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_backbone(BackboneSettings(config=config), DIM, 16).eval()


def _tokens(num_slices: int, num_places: int, seed: int = 0) -> Tensor:
    return torch.randn(num_slices, num_places, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", CAUSAL, ids=NAMES)
def test_no_state_sees_a_later_event_and_each_sees_the_earlier_ones(config: dict[str, Any]) -> None:
    backbone = _made(config)
    tokens = _tokens(2, 6)
    changed = tokens.clone()
    changed[:, 3] = _tokens(2, 1, seed=1)[:, 0]

    with torch.no_grad():
        states, others = backbone(tokens), backbone(changed)

    assert states.shape == (2, 6, DIM)
    assert torch.allclose(states[:, :3], others[:, :3], atol=1e-6)
    assert (states[:, 3:] - others[:, 3:]).abs().amax((0, 2)).min() > 1e-4


@pytest.mark.parametrize("config", CAUSAL, ids=NAMES)
def test_padding_of_a_prefix_changes_nothing_and_its_real_places_do(config: dict[str, Any]) -> None:
    backbone = _made(config)
    tokens, prefix, garbage = _tokens(2, 5), _tokens(2, 3, seed=1), _tokens(2, 3, seed=2)
    mask = torch.tensor([[False, False, True], [False, True, True]])
    mixed = torch.where(mask[:, :, None], prefix, garbage)

    with torch.no_grad():
        states, others = backbone(tokens, prefix, mask), backbone(tokens, mixed, mask)
        unmasked = backbone(tokens, mixed, torch.ones_like(mask))

    assert states.shape == (2, 5, DIM)
    assert torch.allclose(states, others, atol=1e-6)
    assert not torch.allclose(states, unmasked, atol=1e-4)


@pytest.mark.parametrize("config", CAUSAL, ids=NAMES)
def test_a_json_configuration_and_safetensors_give_the_same_backbone_again(
    config: dict[str, Any], tmp_path: Path
) -> None:
    backbone = _made(config)
    (tmp_path / "backbone.json").write_text(json.dumps(backbone.config()))
    save_file(backbone.state_dict(), tmp_path / "backbone.safetensors")

    again = backbone_from_config(json.loads((tmp_path / "backbone.json").read_text()), DIM).eval()
    again.load_state_dict(load_file(tmp_path / "backbone.safetensors"))

    with torch.no_grad():
        assert torch.equal(again(_tokens(3, 6)), backbone(_tokens(3, 6)))


def test_a_model_that_cannot_but_look_ahead_is_refused() -> None:
    both_ways = {
        "model_type": "distilbert",
        "dim": 32,
        "n_layers": 1,
        "n_heads": 2,
        "hidden_dim": 64,
        "max_position_embeddings": 24,
    }
    with pytest.raises(PretrainedModelError, match="distilbert model sees later events"):
        make_backbone(BackboneSettings(config=both_ways), DIM, 16)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "no-such-type"}, "makes no model"),
        ({**GPT2, "n_head": 5}, "makes no model"),
        ({**GPT2, "n_positions": 15}, "15 places, 16 are needed"),
        ({"n_embd": 32}, "makes no model"),
        ({**ROBERTA, "max_position_embeddings": 17}, "does not turn 16 vectors into states"),  # it loses two
        (
            {
                "model_type": "vit",
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "intermediate_size": 16,
                "image_size": 8,
                "patch_size": 4,
            },
            "does not turn 16 vectors into states",
        ),
    ],
)
def test_unusable_configurations_are_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(PretrainedModelError, match=reason):
        make_backbone(BackboneSettings(config=config), DIM, 16)


@pytest.mark.parametrize("make_folder", [gpt2_folder, bert_folder])
def test_pretrained_weights_are_used_but_for_the_tokens(tmp_path: Path, make_folder: Any) -> None:
    source = str(make_folder(tmp_path))
    backbone = make_backbone(BackboneSettings(source=source), 32, 16)
    other = make_backbone(BackboneSettings(source=str(make_folder(tmp_path / "other", seed=1))), 32, 16)

    assert isinstance(backbone.inward, torch.nn.Identity)
    with torch.no_grad():
        tokens = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
        assert not torch.allclose(backbone.eval()(tokens), other.eval()(tokens), atol=1e-2)
    assert {weight.shape for name, weight in backbone.state_dict().items() if "word" in name or "wte" in name} == {
        torch.Size([1, 32])
    }


def test_lora_leaves_the_weights_alone_and_learns(tmp_path: Path) -> None:
    settings = BackboneSettings(source=str(gpt2_folder(tmp_path)), tuning="lora", lora=LoraSettings(rank=4))
    torch.manual_seed(0)
    backbone = make_backbone(settings, DIM, 16)
    frozen = {name: weight.clone() for name, weight in backbone.named_parameters() if not weight.requires_grad}
    optimizer = torch.optim.Adam([weight for weight in backbone.parameters() if weight.requires_grad], lr=0.01)
    tokens, wanted = _tokens(4, 6), _tokens(4, 6, seed=9)
    losses = []
    for _ in range(30):
        loss = (backbone.eval()(tokens) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.9 * losses[0]
    now = dict(backbone.named_parameters())
    assert frozen and all(torch.equal(now[name], weight) for name, weight in frozen.items())

    with torch.no_grad():
        adapted = backbone(tokens)
        backbone.merge_lora()
        again = backbone_from_config(backbone.config(), DIM).eval()
        again.load_state_dict(backbone.state_dict())
        assert torch.allclose(again(tokens), adapted, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "either a source"),
        ({"source": "x", "config": GPT2}, "either a source"),
        ({"source": "x", "tuning": "some"}, "expected 'full' or 'lora'"),
        ({"config": GPT2, "tuning": "lora"}, "these would be random"),
    ],
)
def test_contradicting_settings_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        BackboneSettings(**values)
