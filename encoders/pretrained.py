"""Models of the transformers library from a folder, an installed package or the hub, and LoRA on top of them.

Only safetensors are read and no code that comes with a model is run. What a model has been loaded from does not
matter afterwards: it is known by the hash of its configuration and weights (`fingerprint`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from encoders.contract import EncoderError
from encoders.training_config import LoraSettings

if TYPE_CHECKING:  # transformers and peft take seconds to load, so only what needs them does that
    from transformers import PreTrainedModel

PACKAGE_PREFIX = "package:"
CONFIG_FILE = "config.json"
# Fields of a configuration that say where it came from, not what the model computes.
ORIGIN_FIELDS = ("_name_or_path", "transformers_version", "architectures", "dtype")
# Layers that many checkpoints lack because their training had no use for them; nothing here reads their output.
UNREAD_LAYERS = ("pooler.",)


class PretrainedModelError(EncoderError):
    """A pretrained model cannot be found, read or used here; the message says which and why."""


def locate(source: str) -> str:
    """The folder, or else the hub name, that a source stands for.

    Args:
        source: a folder, ``package:NAME`` for model files inside an installed package (which is not imported), or
            the name of a model on the hub.

    Raises:
        PretrainedModelError: if the package is not installed, or has not exactly one model.
    """
    if not source.startswith(PACKAGE_PREFIX):
        return source
    name = source.removeprefix(PACKAGE_PREFIX)
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise PretrainedModelError(f"{source!r}: no installed package has this name; install it, or name a folder")
    folders = [path.parent for root in spec.submodule_search_locations for path in Path(root).rglob(CONFIG_FILE)]
    folders = sorted(folder for folder in folders if any(folder.glob("*.safetensors")))
    if len(folders) != 1:
        raise PretrainedModelError(
            f"{source!r}: has {len(folders)} folders with {CONFIG_FILE} and safetensors, expected one; name the folder"
        )
    return str(folders[0])


def load_pretrained(source: str, *, allow_download: bool = False) -> PreTrainedModel:
    """A model with its pretrained weights, float32, in evaluation mode, on the CPU.

    Args:
        source: see `locate`.
        allow_download: whether a hub name may be fetched; otherwise only what is already here is read.

    Raises:
        PretrainedModelError: if it cannot be found or read, or its weights are not complete.
    """
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    place = locate(source)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of unread layers that the checkpoint lacks, so that the fingerprint is the same
            model, info = AutoModel.from_pretrained(
                place,
                local_files_only=not allow_download,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise PretrainedModelError(
            f"{source!r}: is no readable model ({first_line}); expected a folder with {CONFIG_FILE} and safetensors, "
            f"package:NAME, or the name of a model on the hub that is already downloaded or may be"
        ) from error
    missing = sorted(key for key in info["missing_keys"] if not any(part in key for part in UNREAD_LAYERS))
    if missing:
        raise PretrainedModelError(
            f"{source!r}: lacks {len(missing)} tensors, {missing[0]} first; they would be random. Fetch the model again"
        )
    loaded: PreTrainedModel = model.eval()
    return loaded


def fingerprint(model: PreTrainedModel, *more: bytes) -> str:
    """SHA-256, in hex, of a model's configuration and weights and of whatever else decides its output."""
    return fingerprint_of(config_of(model), model.state_dict(), *more)


def fingerprint_of(config: dict[str, Any], weights: dict[str, Tensor], *more: bytes) -> str:
    """SHA-256, in hex, of a configuration, named tensors and further bytes."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, weight in sorted(weights.items()):
        digest.update(name.encode() + str(tuple(weight.shape)).encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    for data in more:
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def config_of(model: PreTrainedModel) -> dict[str, Any]:
    """A model's configuration as JSON values, without what only tells its origin."""
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    return {name: value for name, value in config.items() if name not in ORIGIN_FIELDS}


def with_lora(model: PreTrainedModel, settings: LoraSettings) -> nn.Module:
    """The model with adapters on all its linear layers; only they are trainable. The model itself is changed."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    has_conv1d = any(isinstance(module, Conv1D) for module in model.modules())
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        fan_in_fan_out=has_conv1d,
    )
    adapted: nn.Module = get_peft_model(model, config)
    return adapted


def merged(model: nn.Module) -> PreTrainedModel:
    """The model with its adapters added into the weights for good; a model without adapters as it is."""
    if is_plain(model):
        return model
    plain: PreTrainedModel = model.merge_and_unload()  # type: ignore[operator]
    return plain


def is_plain(model: nn.Module) -> TypeGuard[PreTrainedModel]:
    """Whether it is a model of the library, without adapters around it."""
    from transformers import PreTrainedModel

    return isinstance(model, PreTrainedModel)
