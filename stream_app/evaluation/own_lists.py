"""The stream's own lists, asked of the stream in memory just before each event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from encoders.item_features import ItemContent
from stream_app.evaluation.judging import Lists, ListsOf
from stream_app.item_reading import catalogue_vectors, item_reader
from stream_app.models import list_rule, load_encoder, served_model
from stream_app.offline import Moment, OfflineStream
from stream_app.records import Event
from stream_app.settings import Settings

if TYPE_CHECKING:  # torch takes seconds to import
    from encoders.item_reader import ItemReader

ALL_CANDIDATES = 1_000_000
"""Longest list asked for: a list holds all its candidates, some hundreds."""


def listed(moment: Moment) -> list[str]:
    """All candidates of a moment in their order, best first: the one place where lists come from."""
    return [item.item_id for item in moment.listed(ALL_CANDIDATES)]


def stream_lists(settings: Settings, contents: Mapping[str, ItemContent] | None = None) -> ListsOf:
    """Lists of the model that the settings name, with the scorer learned as the stream learns it.

    Args:
        settings: With a model.
        contents: What the catalogue says of items, by id: those that were not trained have vectors by it.

    Raises:
        ModelError: The model is missing, damaged, or trained for other settings.
    """
    encoder = load_encoder(settings)
    rule = list_rule(settings, served_model(settings))
    new_items = _new_items(item_reader(settings, encoder), contents, encoder.item_vectors()[0]) if contents else None

    def lists_of(events: Sequence[Event], from_ms: int) -> Lists:
        for moment in OfflineStream(settings, encoder, rule, new_items).walk(events, ask_from_ms=from_ms):
            yield listed(moment) if moment.found is not None else None

    return lists_of


def _new_items(
    reader: ItemReader, contents: Mapping[str, ItemContent], trained: Iterable[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """The vectors of the items that were not trained, by id."""
    known = set(trained)
    new = {item_id: content for item_id, content in contents.items() if item_id not in known}
    return {
        item_id: vector_D
        for made in catalogue_vectors(reader, new)
        for item_id, vector_D in zip(made.ids, made.vectors_ND, strict=True)
    }
