"""The text and the image model that read items for an item tower: used in training, and found again for new items.

A model folder names them by where they were found and, what counts, by fingerprint. One that lies in the model folder
itself, as `text` or `images`, goes before the place where it was found: so a folder can be made to hold all it needs,
and a fine-tuned text model is kept there.

Shapes: N items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from encoders.contract import Float32Array
from encoders.image import TransformerImages
from encoders.item_features import IMAGES, TEXT, ItemContent, KnownItems, item_features, known_items
from encoders.pretrained import PretrainedModelError
from encoders.runtime import SliceEncoderRuntime
from encoders.spec import load_spec
from encoders.text import TransformerText
from encoders.vector_cache import VectorCache

Model = TypeVar("Model", TransformerText, TransformerImages)
Refused = dict[int, str]
"""Position and reason of each item whose picture cannot be used."""


@dataclass(frozen=True)
class ItemModels:
    """The models that read items; without any, items are read by their words, categories and prices alone.

    Args:
        text: reads titles, categories, tags and descriptions.
        images: looks at the pictures that items name.
        sources: where they were found, by kind; see `encoders.pretrained.locate`.
    """

    text: TransformerText | None = None
    images: TransformerImages | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def known(self, contents: Sequence[ItemContent]) -> tuple[KnownItems, Refused]:
        """`known_items` as these models read them.

        Raises:
            DamagedCacheError: if their cache cannot be read.
        """
        items, refused = known_items(contents, self.text, self.images)
        used = {TEXT: items.spec.text_model, IMAGES: items.spec.image_model}
        return replace(items, sources={kind: place for kind, place in self.sources.items() if used[kind]}), refused


def load_item_models(folder: Path, *, cache: VectorCache | None = None, allow_download: bool = False) -> ItemModels:
    """The models that the item tower of a model folder was trained with.

    Args:
        folder: of the slice model.
        cache: where vectors are kept.
        allow_download: whether a hub name may be fetched.

    Raises:
        PretrainedModelError: if one cannot be had, or what is there is not the one of the training.
        DamagedModelError, ModelVersionError: if the folder's spec is not in order.
    """
    spec = load_spec(folder)

    def places(kind: str) -> list[str]:
        own = [str(folder / kind)] if (folder / kind).is_dir() else []
        return own + [place for name, place in spec.item_sources.items() if name == kind]

    text = images = None
    if wanted := spec.dims.items.text_model:
        load_text = partial(TransformerText.load, cache=cache, allow_download=allow_download)
        text = _found(load_text, wanted, places(TEXT), folder / TEXT)
    if wanted := spec.dims.items.image_model:
        load_images = partial(TransformerImages.load, cache=cache, allow_download=allow_download)
        images = _found(load_images, wanted, places(IMAGES), folder / IMAGES)
    return ItemModels(text, images, spec.item_sources)


def _found(load: Callable[[str], Model], fingerprint: str, places: Sequence[str], own: Path) -> Model:
    """The model with this fingerprint, from the first place that has it.

    Raises:
        PretrainedModelError: none has.
    """
    reasons: list[str] = []
    for place in places:
        try:
            model = load(place)
        except PretrainedModelError as error:
            reasons.append(str(error))
            continue
        if model.identity == fingerprint:
            return model
        reasons.append(f"{place!r} has {model.identity[:12]}")
    raise PretrainedModelError(
        f"{own.parent} was trained with a model for the {own.name} of items that is not found: fingerprint "
        f"{fingerprint[:12]} ({'; '.join(reasons) or 'no place is known'}); put it into {own}, or train again"
    )


def new_item_vectors(
    encoder: SliceEncoderRuntime, models: ItemModels, contents: Sequence[ItemContent]
) -> tuple[Float32Array, Refused]:
    """(N, D) float32 vectors of items that were never trained, from what is said of them; zeros where that is nothing.

    Args:
        encoder: of a model folder.
        models: of the same folder, see `load_item_models`.
        contents: N items.

    Raises:
        ValueError: if the models are not those of the encoder.
    """
    features, refused = item_features(contents, encoder.spec.dims.items, models.text, models.images)
    return encoder.new_item_vectors(features), refused
