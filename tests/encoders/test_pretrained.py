"""Finding and loading pretrained models, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from encoders.pretrained import PretrainedModelError, fingerprint, load_pretrained, merged, with_lora
from encoders.training_config import LoraSettings
from tests.encoders.pretrained_cases import bert_folder, gpt2_folder

pytestmark = pytest.mark.slow  # transformers takes seconds to load


def test_a_folder_is_loaded_with_its_weights(tmp_path: Path) -> None:
    bert_folder(tmp_path)

    model = load_pretrained(str(tmp_path))

    stored = load_file(tmp_path / "model.safetensors")
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in stored.items())
    assert not model.training


def test_a_package_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "small_text_model"
    bert_folder(package / "files")
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    model = load_pretrained("package:small_text_model")

    assert fingerprint(model) == fingerprint(load_pretrained(str(package / "files")))
    assert "small_text_model" not in sys.modules


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("package:no_such_package_here", "no installed package"),
        ("package:../escape", "no installed package"),
        ("package:json", "0 folders"),
        ("/no/such/folder", "no readable model"),
        ("nobody/no-such-model", "no readable model"),
    ],
)
def test_what_is_not_there_is_refused_by_name(source: str, reason: str) -> None:
    with pytest.raises(PretrainedModelError, match=reason) as caught:
        load_pretrained(source)
    assert repr(source) in str(caught.value)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    bert_folder(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()

    with pytest.raises(PretrainedModelError):
        load_pretrained(str(tmp_path))


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    bert_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "its_own"
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")

    with pytest.raises(PretrainedModelError):
        load_pretrained(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_refused_but_for_the_pooler(tmp_path: Path) -> None:
    bert_folder(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    without_pooler = {name: weight for name, weight in stored.items() if "pooler" not in name}
    save_file(without_pooler, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(load_pretrained(str(tmp_path))) == fingerprint(load_pretrained(str(tmp_path)))

    without_pooler.pop("encoder.layer.1.output.dense.weight")
    save_file(without_pooler, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PretrainedModelError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        load_pretrained(str(tmp_path))


def test_cut_off_weights_are_refused(tmp_path: Path) -> None:
    bert_folder(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])

    with pytest.raises(PretrainedModelError):
        load_pretrained(str(tmp_path))


def test_the_fingerprint_tells_weights_apart_and_not_places(tmp_path: Path) -> None:
    first = load_pretrained(str(bert_folder(tmp_path / "a", seed=1)))
    same = load_pretrained(str(bert_folder(tmp_path / "b", seed=1)))
    other = load_pretrained(str(bert_folder(tmp_path / "c", seed=2)))

    assert fingerprint(first) == fingerprint(same)
    assert fingerprint(first) != fingerprint(other)
    assert fingerprint(first) != fingerprint(first, b"tokenizer")


@pytest.mark.parametrize("make_folder", [bert_folder, gpt2_folder])
def test_lora_trains_adapters_only_and_merges_exactly(tmp_path: Path, make_folder: type) -> None:
    source = str(make_folder(tmp_path))
    model = with_lora(load_pretrained(source), LoraSettings(rank=2))
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert trainable and all("lora_" in name for name in trainable)
    assert sum(weight.numel() for weight in trainable.values()) < 0.2 * sum(w.numel() for w in model.parameters())
    with torch.no_grad():
        for weight in trainable.values():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)) * 0.2)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        adapted = model.eval()(input_ids=ids).last_hidden_state
        plain = merged(model)
        together = plain(input_ids=ids).last_hidden_state
        before = load_pretrained(source)(input_ids=ids).last_hidden_state

    assert torch.allclose(together, adapted, atol=1e-5)
    assert not torch.allclose(together, before, atol=1e-2)
    assert set(plain.state_dict()) == set(load_pretrained(source).state_dict())


@pytest.mark.parametrize("values", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}])
def test_impossible_adapters_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected rank"):
        LoraSettings(**values)  # type: ignore[arg-type]
