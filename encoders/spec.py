"""The spec of a model folder: what it holds, signed. Readable without torch by those who serve vectors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from encoders.contract import DamagedModelError, MergeKind, MergeSpec, ModelVersionError
from encoders.item_features import FeatureSpec
from encoders.vocabulary import default_gap_edges_ms

FORMAT_VERSION = 2
"""2: relative positions, the events before a slice, and a merge to choose (1 had neither)."""

MEAN_HALF_LIFE_MS = 1e18
"""Half-life of a mean that does not fade: thirty million years, so that float32 sees no decay at all."""

SPEC_FILE = "spec.json"
WEIGHTS_FILE = "weights.safetensors"
ITEMS_FILE = "items.json"
OWN_HASH_FIELD = "spec_sha256"
RELEASE_HASH_DIGITS = 12
MEND = "fetch the folder again, or train a new model with `sliceflow train`"


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What is chosen of a model's shape, whatever the data are.

    Args:
        dim: D, length of all vectors; divisible by `num_heads`.
        num_layers: transformer blocks; without effect with a backbone.
        num_heads: attention heads of each block; without effect with a backbone.
        slice_events: L, longest slice.
        context_events: C, events before a slice that it looks back at; 0 for none.
        merge: how the codes of slices become a memory; see `encoders.merges`.
        num_half_lives: H, decayed means kept per user, where the merge has learned half-lives ("decayed", "tokens").
        num_codes: codes kept per user, where the merge is "concat".
    """

    dim: int = 64
    num_layers: int = 2
    num_heads: int = 2
    slice_events: int = 16
    context_events: int = 16
    merge: MergeKind = "decayed"
    num_half_lives: int = 4
    num_codes: int = 4


@dataclass(frozen=True)
class ModelDims(ModelShape):
    """Everything that decides a model's tensors; two models with equal dims have equal shapes.

    Args:
        num_item_rows: V, rows of the item table, padding and unknown included.
        num_type_rows: rows of the event type table, padding and unknown included.
        gap_edges_ms: rising edges of the time gap buckets, in milliseconds.
        items: features of the item tower; none for a plain table of embeddings.
        head_dim: width of an attention head, where heads were pruned; None for ``dim / num_heads``.
        backbone: whole configuration of the sequence model in place of the blocks, see `encoders.backbone`; None for
            blocks.

    Raises:
        ValueError: if a number is out of its range, the merge is not known, or the context is longer than a slice.
    """

    num_item_rows: int
    num_type_rows: int
    gap_edges_ms: tuple[int, ...] = default_gap_edges_ms()
    items: FeatureSpec = field(default_factory=FeatureSpec)
    head_dim: int | None = None
    backbone: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in asdict(self).items() if isinstance(value, int)}
        bad = {name: value for name, value in numbers.items() if value < (name != "context_events")}
        if bad:
            raise ValueError(f"model dims below 1: {bad}")
        if self.head_dim is None and self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not divisible by num_heads {self.num_heads}")
        if self.context_events > self.slice_events:
            raise ValueError(
                f"context_events is {self.context_events}, expected at most slice_events {self.slice_events}: "
                f"no more events before a slice are published"
            )
        if self.merge not in get_args(MergeKind):
            raise ValueError(f"merge is {self.merge!r}, expected one of {', '.join(get_args(MergeKind))}")
        if list(self.gap_edges_ms) != sorted(set(self.gap_edges_ms)):
            raise ValueError(f"gap_edges_ms must rise strictly, got {self.gap_edges_ms}")

    @property
    def num_gap_rows(self) -> int:
        """Rows of the gap table: "first event", then one bucket more than edges."""
        return len(self.gap_edges_ms) + 2

    @property
    def attention_dim(self) -> int:
        """Width of the queries, and of the keys and of the values, of all heads together."""
        return self.dim if self.head_dim is None else self.num_heads * self.head_dim

    @property
    def num_memory_rows(self) -> int:
        """R, vectors of D values that a user's memory is read as."""
        return {
            "none": 0,
            "mean": 1,
            "gate": 1,
            "concat": self.num_codes,
            "decayed": self.num_half_lives,
            "tokens": self.num_half_lives,
        }[self.merge]

    @property
    def num_places(self) -> int:
        """Places that a backbone sees at once: the memory's rows where they enter, the events before, the slice."""
        return (self.num_memory_rows if self.merge == "tokens" else 0) + self.context_events + self.slice_events

    @property
    def summary_dim(self) -> int:
        """X, what the autoencoder squeezes into D."""
        return 2 * self.dim


@dataclass(frozen=True)
class ModelSpec:
    """What `spec.json` says of a model.

    Args:
        release: name and content hash.
        dims: shapes of the model.
        half_lives_ms: half-lives of the merged memory, in milliseconds; empty where the merge has none.
        type_names: event types in row order.
        seed: the model was trained with.
        training: summary of the training: config, targets, curve.
        files: SHA-256 of every other file, by name.
        item_sources: where the models that read items' texts and images were found, by kind ("text", "images").
    """

    release: str
    dims: ModelDims
    half_lives_ms: tuple[float, ...]
    type_names: tuple[str, ...]
    seed: int
    training: Mapping[str, Any]
    files: Mapping[str, str]
    item_sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def merge(self) -> MergeSpec:
        """How slices are merged under this release."""
        return MergeSpec(self.dims.merge, self.dims.num_memory_rows, self.half_lives_ms)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def write(folder: Path, name: str, data: bytes) -> None:
    """Replace a file in one step, so that a reader sees the old one or the new one."""
    part = folder / f".{name}.part"
    part.write_bytes(data)
    os.replace(part, folder / name)


def write_spec(folder: Path, body: dict[str, Any]) -> None:
    signed = {**body, OWN_HASH_FIELD: sha256(canonical(body))}
    text = json.dumps(signed, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    write(folder, SPEC_FILE, text.encode() + b"\n")


def load_spec(folder: Path) -> ModelSpec:
    """Read and verify `spec.json` alone; no other file is opened.

    Raises:
        DamagedModelError: if it is missing, is no JSON, was altered or lacks a field.
        ModelVersionError: if its format is one this program does not read.
    """
    body = {"item_sources": {}, **_signed_body(folder)}
    try:
        dims = _dims(body["dims"])
        values = {one.name: body[one.name] for one in fields(ModelSpec)}
    except (KeyError, TypeError, ValueError) as error:
        path = folder / SPEC_FILE
        raise DamagedModelError(f"{path}: does not describe a model ({error!r}); {MEND}") from error
    lists = {name: tuple(values[name]) for name in ("half_lives_ms", "type_names")}
    return ModelSpec(**{**values, **lists, "dims": dims})


def dims_values(dims: ModelDims) -> dict[str, Any]:
    """Dimensions as JSON values; item features, width of heads and backbone are named only where they were given."""
    unnamed = {"items": dims.items.is_empty, "head_dim": dims.head_dim is None, "backbone": dims.backbone is None}
    return {name: value for name, value in asdict(dims).items() if not unnamed.get(name)}


def _dims(values: dict[str, Any]) -> ModelDims:
    lists = {"gap_edges_ms": tuple(values["gap_edges_ms"])}
    if "items" not in values:
        return ModelDims(**{**values, **lists})
    items = FeatureSpec(**{**values["items"], "price_edges": tuple(values["items"]["price_edges"])})
    return ModelDims(**{**values, **lists, "items": items})


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
    expected = sha256(canonical(body))
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
    if sha256(data) != expected:
        raise DamagedModelError(f"{path}: SHA-256 is {sha256(data)}, expected {expected}; {MEND}")
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
    if not name or name in (SPEC_FILE, WEIGHTS_FILE, ITEMS_FILE) or Path(name).name != name or name.startswith("."):
        raise ValueError(f"cannot add {name!r}: expected a plain file name, not one of the model's own")
    body = _signed_body(folder)
    body["files"] = {**body["files"], name: sha256(data)}
    write(folder, name, data)
    write_spec(folder, body)
