"""Checkpoints of a running training: all that is needed to go on as if nothing had happened.

A checkpoint is a folder `epoch-000003` with `tensors.safetensors` (weights, average, best weights, optimizer moments)
and `state.json` (what it belongs to, the curve, the hash of the tensors). It is written beside and renamed, so that
there is a whole one or none; the newest two are kept. Nothing is pickled. There is no state of random generators in
it: those of an epoch are seeded from the training's seed, the epoch and the process.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_of_bytes
from safetensors.torch import save as bytes_of_tensors
from torch import Tensor

from encoders.contract import EncoderError
from encoders.spec import canonical, sha256
from encoders.trained import TrainProgress

FORMAT_VERSION = 1
NUM_KEPT = 2
TENSORS_FILE = "tensors.safetensors"
STATE_FILE = "state.json"


class CheckpointError(EncoderError):
    """A checkpoint belongs to another training, or none of them can be read; the message says what differs."""


@dataclass(frozen=True)
class TrainingState:
    """A training after a whole number of epochs.

    Args:
        num_steps: taken so far.
        best_epoch: with the best validation so far; 0 where nothing is judged.
        curve: of all epochs so far.
        tensors: everything learned, by name.
    """

    num_steps: int
    best_epoch: int
    curve: tuple[TrainProgress, ...]
    tensors: Mapping[str, Tensor]


class Checkpoints:
    """The checkpoints of one training in a folder.

    Args:
        folder: made if missing.
        belongs_to: what decides the training's result, as JSON: its config, the digest of its data.
    """

    def __init__(self, folder: Path, belongs_to: Mapping[str, Any]) -> None:
        self.folder = folder
        self._belongs_to: dict[str, Any] = json.loads(canonical(belongs_to))

    def require_none(self) -> None:
        """Refuse a folder with checkpoints, which a new training would mix with its own.

        Raises:
            CheckpointError: there are some.
        """
        if found := self._names():
            raise CheckpointError(
                f"{self.folder} holds checkpoints ({found[-1]}), expected none; go on with --resume, or choose another "
                f"folder"
            )

    def save(self, state: TrainingState) -> None:
        """Write the checkpoint of an epoch and remove those that are no longer needed.

        Raises:
            OSError: it cannot be written; what was there before is still whole.
        """
        final = self.folder / f"epoch-{len(state.curve):06d}"
        part = self.folder / f".{final.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        tensors = bytes_of_tensors({name: value.detach().cpu().contiguous() for name, value in state.tensors.items()})
        body = {
            "format_version": FORMAT_VERSION,
            "belongs_to": self._belongs_to,
            "num_steps": state.num_steps,
            "best_epoch": state.best_epoch,
            "curve": [asdict(point) for point in state.curve],
            "tensors_sha256": sha256(tensors),
        }
        _write_through(part / TENSORS_FILE, tensors)
        _write_through(part / STATE_FILE, json.dumps(body, indent=1, sort_keys=True, allow_nan=False).encode())
        if final.exists():  # damaged, or the training would have gone on from it
            shutil.rmtree(final)
        os.replace(part, final)
        _sync_folder(self.folder)
        for name in self._names()[:-NUM_KEPT]:
            shutil.rmtree(self.folder / name)

    def newest(self) -> TrainingState | None:
        """The newest checkpoint that can be read; None if there is none at all.

        Raises:
            CheckpointError: none of those there can be read, or it belongs to another training.
        """
        damages: list[str] = []
        for name in reversed(self._names()):
            try:
                theirs, state = _read(self.folder / name)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                damages.append(f"{name}: {error!r}")
                continue
            self._check_own(name, theirs)
            return state
        if damages:
            raise CheckpointError(
                f"{self.folder} holds no checkpoint that can be read ({'; '.join(damages)}); "
                f"train anew in another folder"
            )
        return None

    def _check_own(self, name: str, theirs: Mapping[str, Any]) -> None:
        if differing := _differences(self._belongs_to, theirs):
            raise CheckpointError(
                f"{self.folder / name} is of another training: {'; '.join(differing)}; "
                f"resume with the settings and data it was begun with, or choose another folder"
            )

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("epoch-*") if path.is_dir())


def _read(folder: Path) -> tuple[dict[str, Any], TrainingState]:
    """What one checkpoint belongs to, and its state.

    Raises:
        OSError, ValueError, KeyError, TypeError, SafetensorError: it is damaged.
    """
    body = json.loads((folder / STATE_FILE).read_bytes())
    if body["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format version is {body['format_version']}, expected {FORMAT_VERSION}")
    data = (folder / TENSORS_FILE).read_bytes()
    if sha256(data) != body["tensors_sha256"]:
        raise ValueError(f"{TENSORS_FILE} has SHA-256 {sha256(data)}, expected {body['tensors_sha256']}")
    curve = tuple(TrainProgress(**point) for point in body["curve"])
    return body["belongs_to"], TrainingState(body["num_steps"], body["best_epoch"], curve, tensors_of_bytes(data))


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], within: str = "") -> list[str]:
    """Every value that differs, by its dotted name."""
    found: list[str] = []
    for name in sorted({*ours, *theirs}):
        left, right = ours.get(name), theirs.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            found += _differences(left, right, f"{within}{name}.")
        elif left != right:
            found.append(f"{within}{name} is {left}, the checkpoint's {right}")
    return found


def optimizer_tensors(state: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The optimizer's state by parameter, with flat names."""
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def optimizer_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The reverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for flat_name, value in tensors.items():
        number, name = flat_name.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    return state


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under names that begin with a prefix and a slash."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix and a slash, without it."""
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
