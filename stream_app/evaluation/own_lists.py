"""The stream's own lists, asked of the stream in memory just before each event."""

from __future__ import annotations

from collections.abc import Sequence

from stream_app.evaluation.judging import Lists, ListsOf
from stream_app.models import list_rule, load_encoder, served_model
from stream_app.offline import Moment, OfflineStream
from stream_app.records import Event
from stream_app.settings import Settings

ALL_CANDIDATES = 1_000_000
"""Longest list asked for: a list holds all its candidates, some hundreds."""


def listed(moment: Moment) -> list[str]:
    """All candidates of a moment in their order, best first: the one place where lists come from."""
    return [item.item_id for item in moment.listed(ALL_CANDIDATES)]


def stream_lists(settings: Settings) -> ListsOf:
    """Lists of the model that the settings name, with the scorer learned as the stream learns it.

    Raises:
        ModelError: The model is missing, damaged, or trained for other settings.
    """
    encoder = load_encoder(settings)
    rule = list_rule(settings, served_model(settings))

    def lists_of(events: Sequence[Event], from_ms: int) -> Lists:
        for moment in OfflineStream(settings, encoder, rule).walk(events, ask_from_ms=from_ms):
            yield listed(moment) if moment.found is not None else None

    return lists_of
