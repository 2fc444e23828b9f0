"""Model folders: weights, items and a signed spec; nothing in them is ever unpickled.

A folder holds `weights.safetensors`, `items.json` (item ids in row order) and `spec.json`, which names every
other file with its SHA-256 and carries the hash of its own remaining fields. Files that others add later
(`add_file`) are covered by the signature but not by the release: `release` is a hash of all that changes a
vector (weights, items, event types, dimensions), so adding a scorer leaves vectors comparable.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of_bytes
from safetensors.torch import save as bytes_of_tensors

from encoders.contract import DamagedModelError
from encoders.spec import (
    FORMAT_VERSION,
    ITEMS_FILE,
    MEND,
    RELEASE_HASH_DIGITS,
    SPEC_FILE,
    WEIGHTS_FILE,
    ModelSpec,
    canonical,
    dims_values,
    load_spec,
    read_file,
    sha256,
    write,
    write_spec,
)
from encoders.trained import TrainedModel
from encoders.training_config import config_values
from encoders.transformer import SliceModel
from encoders.vocabulary import Vocabulary


@dataclass(frozen=True)
class LoadedModel:
    """A model folder, verified and in memory; `model` is in evaluation mode with float32 weights."""

    spec: ModelSpec
    vocabulary: Vocabulary
    model: SliceModel


def save_model(trained: TrainedModel, folder: Path, *, name: str = "slices", half: bool = False) -> str:
    """Write a model folder; the spec comes last, so an interrupted save is refused by `load_model`.

    Args:
        trained: what `train_model` returned.
        folder: made if missing; a model in it is replaced, files added to that one are dropped.
        name: first part of the release; letters, digits, dots, dashes and underscores.
        half: store matrices as float16, half the size. They are computed with as float32 all the same, but
            are rounded: such a model is a release of its own.

    Returns:
        The release.

    Raises:
        ValueError: if the name has other characters.
    """
    if not name or not all(char.isalnum() or char in ".-_" for char in name):
        raise ValueError(f"model name {name!r}: expected letters, digits, '.', '-' and '_' only")
    weights = _stored_weights(trained.model, half=half)
    items = canonical(list(trained.vocabulary.item_ids)) + b"\n"
    data = {WEIGHTS_FILE: bytes_of_tensors(weights), ITEMS_FILE: items}
    files = {file_name: sha256(content) for file_name, content in data.items()}
    content = {
        "dims": dims_values(trained.model.dims),
        "files": files,
        "type_names": list(trained.vocabulary.type_names),
    }
    release = f"{name}-{sha256(canonical(content))[:RELEASE_HASH_DIGITS]}"
    body = {
        **content,
        "format_version": FORMAT_VERSION,
        "release": release,
        "half_lives_ms": _half_lives_ms(trained.model),
        "seed": trained.config.seed,
        "training": training_summary(trained),
        **({"item_sources": dict(trained.item_sources)} if trained.item_sources else {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC_FILE).unlink(missing_ok=True)
    for file_name, file_data in data.items():
        write(folder, file_name, file_data)
    write_spec(folder, body)
    return release


def _stored_weights(model: SliceModel, *, half: bool) -> dict[str, torch.Tensor]:
    """The model's tensors as they are stored: matrices in float16 if asked for, vectors never."""
    return {
        name: (weight.half() if half and weight.ndim > 1 and weight.is_floating_point() else weight).contiguous()
        for name, weight in model.state_dict().items()
    }


def _half_lives_ms(model: SliceModel) -> list[float]:
    return [float(value) for value in model.half_lives_ms().detach().double().tolist()]


def training_summary(trained: TrainedModel) -> dict[str, Any]:
    """How a model came about, as JSON. Wall-clock seconds are left out: the same training, the same bytes."""
    best = trained.curve[trained.best_epoch - 1]
    return {
        "config": config_values(trained.config),
        "split_ms": trained.split_ms,
        "num_train_targets": trained.num_train_targets,
        "num_validation_targets": trained.num_validation_targets,
        "best_epoch": trained.best_epoch,
        "validation_ndcg10": best.validation_ndcg10,
        "curve": [
            {
                "epoch": point.epoch,
                "prediction_loss": point.prediction_loss,
                "reconstruction_loss": point.reconstruction_loss,
                "validation_ndcg10": point.validation_ndcg10,
            }
            for point in trained.curve
        ],
    }


def load_model(folder: Path) -> LoadedModel:
    """Read a model folder, verifying every file in it.

    Raises:
        DamagedModelError: if a file is missing or altered, or the files do not fit each other.
        ModelVersionError: if the format is one this program does not read.
        PretrainedModelError: if its backbone is of a kind that the installed transformers does not know.
    """
    spec = load_spec(folder)
    data = {name: read_file(folder, spec, name) for name in {WEIGHTS_FILE, ITEMS_FILE, *spec.files}}
    vocabulary = _vocabulary(folder, data[ITEMS_FILE], spec)
    rows = (vocabulary.num_item_rows, vocabulary.num_type_rows)
    expected_rows = (spec.dims.num_item_rows, spec.dims.num_type_rows)
    if rows != expected_rows:
        raise DamagedModelError(
            f"{folder / ITEMS_FILE}: gives {rows} item and type rows, spec says {expected_rows}; {MEND}"
        )
    with torch.random.fork_rng(devices=[]):  # the weights it starts with are replaced at once
        model = _empty_model(folder, spec)
    _fill(model, data[WEIGHTS_FILE], folder / WEIGHTS_FILE)
    if not np.allclose(_half_lives_ms(model), spec.half_lives_ms):
        raise DamagedModelError(f"{folder / SPEC_FILE}: half-lives differ from {WEIGHTS_FILE}; {MEND}")
    return LoadedModel(spec, vocabulary, model.eval().requires_grad_(False))


def _empty_model(folder: Path, spec: ModelSpec) -> SliceModel:
    try:
        return SliceModel(spec.dims, spec.half_lives_ms)
    except ValueError as error:
        raise DamagedModelError(f"{folder / SPEC_FILE}: {error}; {MEND}") from error


def _vocabulary(folder: Path, items: bytes, spec: ModelSpec) -> Vocabulary:
    try:
        return Vocabulary(tuple(_item_ids(folder, items)), spec.type_names)
    except ValueError as error:
        raise DamagedModelError(f"{folder / ITEMS_FILE}: with {SPEC_FILE}, {error}; {MEND}") from error


def _item_ids(folder: Path, data: bytes) -> list[str]:
    try:
        item_ids = json.loads(data)
    except ValueError as error:
        raise DamagedModelError(f"{folder / ITEMS_FILE}: is not JSON ({error}); {MEND}") from error
    if not isinstance(item_ids, list) or not all(isinstance(item_id, str) for item_id in item_ids):
        raise DamagedModelError(f"{folder / ITEMS_FILE}: expected a list of strings; {MEND}")
    return item_ids


def _fill(model: SliceModel, data: bytes, path: Path) -> None:
    """Put stored weights into a model, refusing other names and shapes than its own."""
    try:
        weights = tensors_of_bytes(data)
    except SafetensorError as error:
        raise DamagedModelError(f"{path}: is not a safetensors file ({error}); {MEND}") from error
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong:
        seen = {name: found.get(name) for name in wrong[:3]}
        wanted = {name: expected.get(name) for name in wrong[:3]}
        raise DamagedModelError(f"{path}: has tensors {seen}, expected {wanted}; {MEND}")
    if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise DamagedModelError(f"{path}: holds values that are not finite; {MEND}")
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
