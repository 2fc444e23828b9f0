"""Vectors of items, trained or not, from what is said of them now.

Free of the transformers library, which takes seconds to import and most models do without.

Shapes: N items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

from encoders.contract import Float32Array
from encoders.item_features import ImageEncoder, ItemContent, ItemFeatures, TextEncoder, item_features
from encoders.runtime import SliceEncoderRuntime


class ItemReader:
    """Makes vectors in two steps: reading takes the models of texts and pictures long, and the encoder has one user at
    a time.

    Args:
        encoder: of a model folder.
        text: the text model of the same folder, where it has one.
        images: its image model.

    Raises:
        ValueError: if a model is not the one that the folder names.
    """

    def __init__(
        self, encoder: SliceEncoderRuntime, text: TextEncoder | None = None, images: ImageEncoder | None = None
    ) -> None:
        self._encoder = encoder
        self._text = text
        self._images = images
        self.read([])

    @property
    def reads_words(self) -> bool:
        """Whether words make a difference to the encoder's items, so that any text has a vector."""
        return self._encoder.spec.dims.items.reads_words

    def read(self, contents: Sequence[ItemContent]) -> tuple[ItemFeatures, dict[int, str]]:
        """The features of N items, and the position and reason of each one whose picture cannot be used.

        Milliseconds to a second for each item that a model reads on a CPU; else microseconds.

        Raises:
            DamagedCacheError: if the cache of the models cannot be read.
        """
        return item_features(contents, self._encoder.spec.dims.items, self._text, self._images)

    def vectors(self, item_ids: Sequence[str], features: ItemFeatures) -> Float32Array:
        """(N, D) float32, see `SliceEncoderRuntime.told_item_vectors`. To be called where the encoder is."""
        return self._encoder.told_item_vectors(item_ids, features)
