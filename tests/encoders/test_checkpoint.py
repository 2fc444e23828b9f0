"""Model folders: what is saved comes back, and whatever was damaged is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.checkpoint import load_model, save_model
from encoders.contract import DamagedModelError, EncoderError, MergeKind, ModelVersionError
from encoders.runtime import SliceEncoderRuntime
from encoders.spec import add_file, load_spec, read_file
from tests.encoders.cases import made_up_model, random_batch

FILES = ("items.json", "spec.json", "weights.safetensors")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(made_up_model(seed=7), tmp_path / "model")
    return tmp_path / "model"


def resign(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Alter the spec's fields and sign them as the program would."""
    import hashlib

    spec = json.loads((folder / "spec.json").read_bytes())
    del spec["spec_sha256"]
    change(spec)
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    (folder / "spec.json").write_text(json.dumps({**spec, "spec_sha256": hashlib.sha256(canonical).hexdigest()}))


def test_same_model_same_bytes(tmp_path: Path, folder: Path) -> None:
    save_model(made_up_model(seed=7), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)
    assert tuple(contents(folder)) == FILES


def test_round_trip(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(folder)
    original = made_up_model(seed=7)
    for name, weight in original.model.state_dict().items():
        assert torch.equal(weight, loaded.model.state_dict()[name]), name
    assert loaded.vocabulary == original.vocabulary
    save_model(replace(original, model=loaded.model, vocabulary=loaded.vocabulary), tmp_path / "second")
    assert contents(tmp_path / "second") == contents(folder)


def test_spec_tells_how_the_model_came_about(folder: Path) -> None:
    spec = load_spec(folder)
    assert spec.release.startswith("slices-") and len(spec.release) == len("slices-") + 12
    assert spec.type_names == ("click", "purchase")
    assert spec.seed == 7
    assert spec.training["validation_ndcg10"] == 0.25
    assert spec.training["curve"][0]["prediction_loss"] == 2.0
    assert sorted(spec.files) == ["items.json", "weights.safetensors"]


def test_loading_leaves_the_global_generator_alone(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(folder)
    assert torch.equal(torch.rand(3), expected)


def test_release_follows_the_content(tmp_path: Path, folder: Path) -> None:
    release = load_spec(folder).release
    trained = made_up_model(seed=7)
    assert save_model(replace(trained, best_epoch=1, split_ms=5), tmp_path / "summary") == release
    assert save_model(made_up_model(seed=8), tmp_path / "weights") != release
    renamed = replace(trained.vocabulary, item_ids=("other", *trained.vocabulary.item_ids[1:]))
    assert save_model(replace(trained, vocabulary=renamed), tmp_path / "items") != release
    retyped = replace(trained.vocabulary, type_names=("purchase", "click"))
    assert save_model(replace(trained, vocabulary=retyped), tmp_path / "types") != release
    assert save_model(trained, tmp_path / "name", name="shop") == release.replace("slices", "shop")


def test_half_size_is_another_release_with_close_vectors(tmp_path: Path, folder: Path) -> None:
    assert save_model(made_up_model(seed=7), tmp_path / "half", half=True) != load_spec(folder).release
    full_size = (folder / "weights.safetensors").stat().st_size
    assert (tmp_path / "half" / "weights.safetensors").stat().st_size < 0.6 * full_size
    batch = random_batch(20, seed=0)
    full, half = (SliceEncoderRuntime.load(path, "cpu") for path in (folder, tmp_path / "half"))
    difference = float(np.abs(full.encode(batch).codes_SD - half.encode(batch).codes_SD).max())
    assert 0 < difference < 0.05, f"largest difference {difference:.2e}"
    assert half.half_lives_ms.tolist() == full.half_lives_ms.tolist()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DamagedModelError, match=rf"{name}: missing.*sliceflow train"):
        load_model(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.99])
def test_an_altered_byte_is_found(folder: Path, name: str, place: float) -> None:
    data = bytearray((folder / name).read_bytes())
    data[int(place * (len(data) - 3))] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(EncoderError, match=name):
        load_model(folder)


def test_a_cut_file_is_found(folder: Path) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[:-100])
    with pytest.raises(DamagedModelError, match=r"weights.safetensors: SHA-256 is \w+, expected \w+"):
        load_model(folder)


def test_another_format_version(folder: Path) -> None:
    resign(folder, lambda spec: spec.update(format_version=1))
    with pytest.raises(ModelVersionError, match=r"spec.json: format version is 1, expected 2; .*train"):
        load_model(folder)


def test_the_spec_names_the_merge(tmp_path: Path) -> None:
    expected: list[tuple[MergeKind, int, int]] = [("none", 0, 0), ("gate", 1, 0), ("mean", 1, 1), ("tokens", 4, 4)]
    for merge, num_rows, num_half_lives in expected:
        save_model(made_up_model(seed=7, merge=merge), tmp_path / merge)
        spec = load_spec(tmp_path / merge)
        assert (spec.merge.kind, spec.merge.num_rows, len(spec.half_lives_ms)) == (merge, num_rows, num_half_lives)
    resign(tmp_path / "tokens", lambda spec: spec.update(half_lives_ms=[1.0]))
    with pytest.raises(DamagedModelError, match="1 half-lives given, dims say 4"):
        load_model(tmp_path / "tokens")


def test_a_changed_field_breaks_the_signature(folder: Path) -> None:
    text = (folder / "spec.json").read_text()
    (folder / "spec.json").write_text(text.replace('"click"', '"clack"'))
    with pytest.raises(DamagedModelError, match=r"spec.json: signs '\w+' but hashes to"):
        load_spec(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dims", {"num_item_rows": 52}, "spec.json: does not describe a model"),
        ("half_lives_ms", [1.0, 2.0, 3.0, 4.0], "half-lives differ"),
        ("type_names", ["click", "click"], "items.json: with spec.json, 1 of 2 event types repeat"),
        ("type_names", ["click"], r"items.json: gives \(52, 3\)"),
    ],
)
def test_a_signed_spec_must_still_fit(folder: Path, field: str, value: object, message: str) -> None:
    resign(folder, lambda spec: spec.update({field: value}))
    with pytest.raises(DamagedModelError, match=message):
        load_model(folder)


def test_other_shapes_are_named(folder: Path) -> None:
    resign(folder, lambda spec: spec["dims"].update(context_events=9))
    with pytest.raises(DamagedModelError, match=r"distance_bias_AT': \(2, 32\).*, expected .*\(2, 25\)"):
        load_model(folder)


@pytest.mark.parametrize("text", ["[]", "{", "null", '{"format_version": 1}'])
def test_a_spec_that_is_none(folder: Path, text: str) -> None:
    (folder / "spec.json").write_text(text)
    with pytest.raises(EncoderError, match=r"spec.json"):
        load_model(folder)


def test_an_added_file_is_signed_and_leaves_the_release(folder: Path) -> None:
    before = load_spec(folder)
    add_file(folder, "scorer.json", b'{"weights": [1.5]}')
    after = load_model(folder).spec
    assert after.release == before.release
    assert read_file(folder, after, "scorer.json") == b'{"weights": [1.5]}'
    add_file(folder, "scorer.json", b"{}")
    assert read_file(folder, load_spec(folder), "scorer.json") == b"{}"
    (folder / "scorer.json").write_bytes(b"[]")
    with pytest.raises(DamagedModelError, match=r"scorer.json: SHA-256"):
        load_model(folder)
    with pytest.raises(DamagedModelError, match=r"nothing.json: not named"):
        read_file(folder, after, "nothing.json")


@pytest.mark.parametrize("name", ["spec.json", "weights.safetensors", "../out.json", "a/b", ".hidden", ""])
def test_refuses_names_that_are_no_plain_new_file(folder: Path, name: str) -> None:
    before = contents(folder)
    with pytest.raises(ValueError, match="expected a plain file name"):
        add_file(folder, name, b"")
    assert contents(folder) == before


def test_refuses_a_release_name_with_other_characters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model name 'a/b'"):
        save_model(made_up_model(seed=7), tmp_path, name="a/b")


def test_an_interrupted_save_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("encoders.checkpoint.write_spec", fail)
        with pytest.raises(OSError, match="no space"):
            save_model(made_up_model(seed=8), folder)
    with pytest.raises(DamagedModelError, match=r"spec.json: missing"):
        load_model(folder)
