"""From what the catalogue says of items to their vectors, with the models of a model folder in hand (torch).

Shapes: N items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from encoders.item_features import ItemContent
from stream_app.errors import ModelError
from stream_app.models import as_model_error, load_encoder, model_folder
from stream_app.settings import Settings
from stream_app.stages.parts import in_parts

if TYPE_CHECKING:  # torch takes seconds to import
    from encoders.item_reader import ItemReader
    from encoders.runtime import SliceEncoderRuntime

VECTOR_CACHE_FILE: Final = "item-vectors.sqlite"
"""In the state folder: vectors of texts and pictures by model and content, for trainings and roles."""

ITEMS_AT_ONCE: Final = 256
"""Items read in one go: what comes of them is published while the next are read."""

NOT_FINITE: Final = "vector_not_finite"
"""Reason of a refusal: the model made NaN or infinity of an item."""


@dataclass(frozen=True, eq=False)
class TowerVectors:
    """What the item tower makes of N items.

    Args:
        ids: Those with a vector.
        vectors_ND: Theirs, float32.
        nothing: Those of which it makes nothing: never trained, and nothing is said that it reads.
        refused: Reason and detail by item: pictures that cannot be used (the rest of the item is), and vectors that are
            not finite (the item has none).
    """

    ids: list[str]
    vectors_ND: npt.NDArray[np.float32]
    nothing: list[str] = field(default_factory=list)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)


def item_reader(settings: Settings, encoder: SliceEncoderRuntime) -> ItemReader:
    """The models that read items for this encoder, as its folder names them.

    Raises:
        ModelError: One cannot be had.
    """
    from encoders.item_reader import ItemReader

    spec = encoder.spec.dims.items
    if not (spec.text_model or spec.image_model):
        return ItemReader(encoder)
    from encoders.item_models import load_item_models
    from encoders.vector_cache import VectorCache

    with as_model_error():
        models = load_item_models(model_folder(settings), cache=VectorCache(settings.state_path / VECTOR_CACHE_FILE))
    return ItemReader(encoder, models.text, models.images)


def judged(ids: Sequence[str], vectors_ND: npt.NDArray[np.float32], unusable: Mapping[int, str]) -> TowerVectors:
    """What of the tower's output may be published.

    Args:
        ids: N items.
        vectors_ND: What came of them.
        unusable: Why a picture cannot be used, by place.
    """
    is_finite_N = np.isfinite(vectors_ND).all(axis=1)
    is_good_N = is_finite_N & vectors_ND.any(axis=1)
    refused = {ids[place]: ("unusable_image", reason) for place, reason in unusable.items()}
    detail = "the model made numbers that are none of what is said of the item; expected finite ones"
    refused |= {ids[place]: (NOT_FINITE, detail) for place in np.flatnonzero(~is_finite_N).tolist()}
    good = np.flatnonzero(is_good_N).tolist()
    nothing = [ids[place] for place in np.flatnonzero(is_finite_N & ~is_good_N).tolist()]
    return TowerVectors([ids[place] for place in good], vectors_ND[good], nothing, refused)


def catalogue_vectors(reader: ItemReader, contents: Mapping[str, ItemContent]) -> Iterator[TowerVectors]:
    """The vectors of a whole catalogue, some items at a time."""
    for ids in in_parts(list(contents), ITEMS_AT_ONCE):
        features, unusable = reader.read([contents[item_id] for item_id in ids])
        yield judged(ids, reader.vectors(ids, features), unusable)


class ItemTextTower:
    """Texts as the vectors of items that would be called so; see `item_queries.TextTower`.

    Args:
        reader: Of a model that reads words.

    Raises:
        ModelError: The model reads none.
    """

    def __init__(self, reader: ItemReader) -> None:
        if not reader.reads_words:
            raise ModelError(
                "The model knows items by their ids alone, so no text means anything to it.",
                mend="train one that reads titles: `sliceflow train FILE --items FILE`, best with --item-text MODEL",
            )
        self._reader = reader

    def vector(self, text: str) -> npt.NDArray[np.float32]:
        """(D,) float32; zeros where no word of the text means anything to the model."""
        features, _ = self._reader.read([ItemContent(title=text)])
        vector_D: npt.NDArray[np.float32] = self._reader.vectors([""], features)[0]
        return vector_D


def text_tower(settings: Settings) -> ItemTextTower:
    """The tower of the model that is set; loads it, which takes seconds.

    Raises:
        ModelError: The model is missing, damaged, or reads no words.
    """
    return ItemTextTower(item_reader(settings, load_encoder(settings)))
