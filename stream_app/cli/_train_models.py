"""The options of `train` that name models of the transformers library, and what they become."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import click

from stream_app.errors import UsageError
from stream_app.item_reading import VECTOR_CACHE_FILE
from stream_app.settings import Settings

if TYPE_CHECKING:  # torch and transformers take seconds to import
    from encoders.item_models import ItemModels
    from encoders.training_config import BackboneSettings

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option(
        "--backbone",
        metavar="MODEL",
        help="Causal sequence model to begin from, in place of own blocks: a folder, package:NAME or hub name.",
    ),
    click.option(
        "--backbone-config",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="JSON configuration of transformers (model_type and sizes), for a backbone with random weights.",
    ),
    click.option(
        "--backbone-tuning",
        type=click.Choice(["full", "lora"]),
        help="Train all of the backbone's weights, or low-rank adapters only.  [default: full]",
    ),
    click.option(
        "--item-text", metavar="MODEL", help="Text model that reads the --items: a folder, package:NAME or hub name."
    ),
    click.option(
        "--tune-text", is_flag=True, help="Fine-tune the text model (LoRA) on items that users touch in a row first."
    ),
    click.option("--item-images", metavar="MODEL", help="Vision model that looks at the pictures the --items name."),
    click.option("--download", is_flag=True, help="Fetch models named by their hub name, where they are not here yet."),
)


def model_options(command: Command) -> Command:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_together(given: Mapping[str, Any]) -> None:
    """Refuse options that make no sense together.

    Raises:
        UsageError: Some do not.
    """
    rules = (
        (given["backbone"] and given["backbone_config"], "--backbone and --backbone-config", "give one of them"),
        (
            given["backbone_tuning"] == "lora" and not given["backbone"],
            "--backbone-tuning lora without pretrained weights",
            "name them with --backbone MODEL",
        ),
        (
            given["backbone_tuning"] and not (given["backbone"] or given["backbone_config"]),
            "--backbone-tuning without a backbone",
            "name one with --backbone MODEL",
        ),
        (
            (given["item_text"] or given["item_images"]) and not given["items_file"],
            "--item-text and --item-images without items",
            "name their catalogue with --items FILE",
        ),
        (given["tune_text"] and not given["item_text"], "--tune-text without a text model", "name it with --item-text"),
    )
    for is_wrong, seen, mend in rules:
        if is_wrong:
            raise UsageError(f"{seen}: that makes no sense.", mend=mend)


def backbone_of(given: Mapping[str, Any]) -> BackboneSettings | None:
    """The backbone that was asked for; pretrained weights have been found.

    Raises:
        UsageError: The configuration file holds none.
        ModelError: The pretrained weights cannot be had.
    """
    if not (given["backbone"] or given["backbone_config"]):
        return None
    from encoders.pretrained import load_pretrained
    from encoders.training_config import BackboneSettings
    from stream_app.models import as_model_error

    tuning: Literal["full", "lora"] = given["backbone_tuning"] or "full"
    if given["backbone_config"]:
        return BackboneSettings(config=_read_config(given["backbone_config"]), tuning=tuning)
    source = _place(given["backbone"])
    with as_model_error():  # before the log is read, which may take minutes
        load_pretrained(source, allow_download=given["download"])
    return BackboneSettings(source=source, tuning=tuning)


def item_models(settings: Settings, given: Mapping[str, Any]) -> ItemModels | None:
    """The models that are to read items; None for words, categories and prices alone.

    Raises:
        ModelError: One cannot be had.
    """
    from encoders.item_features import IMAGES, TEXT

    sources = {
        kind: _place(given[name]) for kind, name in ((TEXT, "item_text"), (IMAGES, "item_images")) if given[name]
    }
    if not sources:
        return None
    from encoders.image import TransformerImages
    from encoders.item_models import ItemModels
    from encoders.text import TransformerText
    from encoders.vector_cache import VectorCache
    from stream_app.models import as_model_error

    how: dict[str, Any] = {
        "cache": VectorCache(settings.state_path / VECTOR_CACHE_FILE),
        "allow_download": given["download"],
    }
    with as_model_error():
        return ItemModels(
            TransformerText.load(sources[TEXT], **how) if TEXT in sources else None,
            TransformerImages.load(sources[IMAGES], **how) if IMAGES in sources else None,
            sources,
        )


def _place(source: str) -> str:
    """A source that means the same wherever the program is started next time."""
    return str(Path(source).resolve()) if Path(source).is_dir() else source


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}).", mend="give a configuration of transformers") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise UsageError(
            f"{path} is no configuration of transformers: it names no model_type.",
            mend='give one like {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2}',
        )
    return config
