"""Model folders: weights, items and a signed spec; nothing in them is ever unpickled.

A folder holds `weights.safetensors`, `items.json` (item ids in row order) and `spec.json`, which names every
other file with its SHA-256 and carries the hash of its own remaining fields. Files that others add later
(`add_file`) are covered by the signature but not by the release: `release` is a hash of all that changes a
vector (weights, items, event types, dimensions), so adding a scorer leaves vectors comparable.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of_bytes
from safetensors.torch import save as bytes_of_tensors

from encoders.contract import DamagedModelError, ModelVersionError
from encoders.train import TrainedModel
from encoders.transformer import ModelDims, SliceModel
from encoders.vocabulary import Vocabulary

FORMAT_VERSION = 1
SPEC_FILE = "spec.json"
WEIGHTS_FILE = "weights.safetensors"
ITEMS_FILE = "items.json"
OWN_HASH_FIELD = "spec_sha256"
RELEASE_HASH_DIGITS = 12
MEND = "fetch the folder again, or train a new model with `sliceflow train`"


@dataclass(frozen=True)
class ModelSpec:
    """What `spec.json` says of a model.

    Args:
        release: name and content hash.
        dims: shapes of the model.
        half_lives_ms: H half-lives of the merged memory, in milliseconds.
        type_names: event types in row order.
        seed: the model was trained with.
        training: summary of the training: config, targets, curve.
        files: SHA-256 of every other file, by name.
    """

    release: str
    dims: ModelDims
    half_lives_ms: tuple[float, ...]
    type_names: tuple[str, ...]
    seed: int
    training: Mapping[str, Any]
    files: Mapping[str, str]


@dataclass(frozen=True)
class LoadedModel:
    """A model folder, verified and in memory; `model` is in evaluation mode with float32 weights."""

    spec: ModelSpec
    vocabulary: Vocabulary
    model: SliceModel


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _write(folder: Path, name: str, data: bytes) -> None:
    """Replace a file in one step, so that a reader sees the old one or the new one."""
    part = folder / f".{name}.part"
    part.write_bytes(data)
    os.replace(part, folder / name)


def _write_spec(folder: Path, body: dict[str, Any]) -> None:
    signed = {**body, OWN_HASH_FIELD: _sha256(_canonical(body))}
    text = json.dumps(signed, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    _write(folder, SPEC_FILE, text.encode() + b"\n")


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
    items = _canonical(list(trained.vocabulary.item_ids)) + b"\n"
    data = {WEIGHTS_FILE: bytes_of_tensors(weights), ITEMS_FILE: items}
    files = {file_name: _sha256(content) for file_name, content in data.items()}
    content = {
        "dims": asdict(trained.model.dims),
        "files": files,
        "type_names": list(trained.vocabulary.type_names),
    }
    release = f"{name}-{_sha256(_canonical(content))[:RELEASE_HASH_DIGITS]}"
    body = {
        **content,
        "format_version": FORMAT_VERSION,
        "release": release,
        "half_lives_ms": _half_lives_ms(weights["log_half_lives_ms"]),
        "seed": trained.config.seed,
        "training": training_summary(trained),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC_FILE).unlink(missing_ok=True)
    for file_name, file_data in data.items():
        _write(folder, file_name, file_data)
    _write_spec(folder, body)
    return release


def _stored_weights(model: SliceModel, *, half: bool) -> dict[str, torch.Tensor]:
    """The model's tensors as they are stored: matrices in float16 if asked for, vectors never."""
    return {
        name: (weight.half() if half and weight.ndim > 1 else weight).contiguous()
        for name, weight in model.state_dict().items()
    }


def _half_lives_ms(log_half_lives: torch.Tensor) -> list[float]:
    return [math.exp(value) for value in log_half_lives.double().tolist()]


def training_summary(trained: TrainedModel) -> dict[str, Any]:
    """How a model came about, as JSON. Wall-clock seconds are left out: the same training, the same bytes."""
    best = trained.curve[trained.best_epoch - 1]
    return {
        "config": asdict(trained.config),
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


def load_spec(folder: Path) -> ModelSpec:
    """Read and verify `spec.json` alone; no other file is opened.

    Raises:
        DamagedModelError: if it is missing, is no JSON, was altered or lacks a field.
        ModelVersionError: if its format is one this program does not read.
    """
    body = _signed_body(folder)
    try:
        dims = ModelDims(**{**body["dims"], "gap_edges_ms": tuple(body["dims"]["gap_edges_ms"])})
        values = {field.name: body[field.name] for field in fields(ModelSpec)}
    except (KeyError, TypeError, ValueError) as error:
        path = folder / SPEC_FILE
        raise DamagedModelError(f"{path}: does not describe a model ({error!r}); {MEND}") from error
    lists = {name: tuple(values[name]) for name in ("half_lives_ms", "type_names")}
    return ModelSpec(**{**values, **lists, "dims": dims})


def _signed_body(folder: Path) -> dict[str, Any]:
    """The fields of `spec.json` once version and signature are found right."""
    path = folder / SPEC_FILE
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DamagedModelError(f"{path}: missing, expected a model folder; {MEND}") from None
    except ValueError as error:
        raise DamagedModelError(f"{path}: is not JSON ({error}); {MEND}") from error
    if not isinstance(body, dict):
        raise DamagedModelError(f"{path}: holds a {type(body).__name__}, expected an object; {MEND}")
    if body.get("format_version") != FORMAT_VERSION:
        raise ModelVersionError(
            f"{path}: format version is {body.get('format_version')!r}, expected {FORMAT_VERSION}; "
            f"use the program version that wrote it, or train a new model with `sliceflow train`"
        )
    found = body.pop(OWN_HASH_FIELD, None)
    expected = _sha256(_canonical(body))
    if found != expected:
        raise DamagedModelError(f"{path}: signs {found!r} but hashes to {expected!r}: it was altered; {MEND}")
    return body


def read_file(folder: Path, spec: ModelSpec, name: str) -> bytes:
    """A file of the model folder, verified against the spec.

    Raises:
        DamagedModelError: if the spec does not know it, or it is missing or altered.
    """
    path = folder / name
    expected = spec.files.get(name)
    if expected is None:
        raise DamagedModelError(f"{path}: not named in {SPEC_FILE}, which has {sorted(spec.files)}; {MEND}")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DamagedModelError(f"{path}: missing, expected SHA-256 {expected}; {MEND}") from None
    if _sha256(data) != expected:
        raise DamagedModelError(f"{path}: SHA-256 is {_sha256(data)}, expected {expected}; {MEND}")
    return data


def add_file(folder: Path, name: str, data: bytes) -> None:
    """Put one more file into a model folder and sign the spec anew; the release stays as it is.

    Args:
        folder: a model folder whose spec is in order.
        name: a plain file name, none of the model's own; an added file of that name is replaced.
        data: its content.

    Raises:
        ValueError: if the name is a path, hidden or one of the model's own files.
        DamagedModelError, ModelVersionError: if the spec is not in order.
    """
    if name in (SPEC_FILE, WEIGHTS_FILE, ITEMS_FILE) or Path(name).name != name or name.startswith("."):
        raise ValueError(f"cannot add {name!r}: expected a plain file name, not one of the model's own")
    body = _signed_body(folder)
    body["files"] = {**body["files"], name: _sha256(data)}
    _write(folder, name, data)
    _write_spec(folder, body)


def load_model(folder: Path) -> LoadedModel:
    """Read a model folder, verifying every file in it.

    Raises:
        DamagedModelError: if a file is missing or altered, or the files do not fit each other.
        ModelVersionError: if the format is one this program does not read.
    """
    spec = load_spec(folder)
    data = {name: read_file(folder, spec, name) for name in {WEIGHTS_FILE, ITEMS_FILE, *spec.files}}
    vocabulary = Vocabulary(tuple(_item_ids(folder, data[ITEMS_FILE])), spec.type_names)
    rows = (vocabulary.num_item_rows, vocabulary.num_type_rows)
    expected_rows = (spec.dims.num_item_rows, spec.dims.num_type_rows)
    if rows != expected_rows:
        raise DamagedModelError(
            f"{folder / ITEMS_FILE}: gives {rows} item and type rows, spec says {expected_rows}; {MEND}"
        )
    model = SliceModel(spec.dims, spec.half_lives_ms)
    _fill(model, data[WEIGHTS_FILE], folder / WEIGHTS_FILE)
    if not np.allclose(_half_lives_ms(model.log_half_lives_ms.detach()), spec.half_lives_ms):
        raise DamagedModelError(f"{folder / SPEC_FILE}: half-lives differ from {WEIGHTS_FILE}; {MEND}")
    return LoadedModel(spec, vocabulary, model.eval().requires_grad_(False))


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
