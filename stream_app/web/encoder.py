"""The model's encoder: loaded when it is first needed, since it takes seconds and memory; used on one thread alone.

Shapes: D dimensions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stream_app.item_reading import ItemTextTower, item_reader
from stream_app.models import load_encoder
from stream_app.records import SliceRecord, SliceVectorRecord
from stream_app.settings import Settings
from stream_app.slice_encoding import encode_slices

if TYPE_CHECKING:  # torch takes seconds to import
    from encoders.runtime import SliceEncoderRuntime


class LazyEncoder:
    """Encodes sessions and texts.

    Args:
        settings: With a model.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    async def slice_vectors(self, records: Sequence[SliceRecord]) -> list[SliceVectorRecord]:
        """The vectors of the slices of users of whom nothing is kept, in order.

        Raises:
            ModelError: The model cannot be loaded.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._encode, records)

    async def text_vector(self, text: str) -> npt.NDArray[np.float32]:
        """(D,) float32, among the vectors of items; zeros where no word means anything to the model.

        Raises:
            ModelError: The model cannot be loaded, or reads no words.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, text)

    def close(self) -> None:
        """Let go of the thread."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _encoder(self) -> SliceEncoderRuntime:
        return load_encoder(self._settings)

    @cached_property
    def _tower(self) -> ItemTextTower:
        return ItemTextTower(item_reader(self._settings, self._encoder))

    def _encode(self, records: Sequence[SliceRecord]) -> list[SliceVectorRecord]:
        return encode_slices(self._encoder, records, {}, self._settings.event_types)

    def _read(self, text: str) -> npt.NDArray[np.float32]:
        return self._tower.vector(text)
