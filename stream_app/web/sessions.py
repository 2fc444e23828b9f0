"""Lists for somebody without a name: a session is cut, encoded and ranked by the roles' own stages; nothing is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cached_property
from typing import Final

from stream_app.item_search import nearest_items
from stream_app.models import list_rule, served_model
from stream_app.records import Event, Recommendation, SliceRecord
from stream_app.settings import Settings
from stream_app.settings_rules import slicing_rule
from stream_app.stages.item_columns import ItemColumns
from stream_app.stages.listing import KnownItems, ListRule, make_list, queries_of, search_of, take_vectors
from stream_app.stages.profile import UserProfile
from stream_app.stages.slicing import UserHistory, apply_event, events_before, slice_record
from stream_app.web.encoder import LazyEncoder
from stream_app.web.state.held import Held

Found = list[list[str]]
Compute = Callable[[Callable[[], Found]], Awaitable[Found]]

NOBODY: Final = "session"
"""The user id that a session has on its way through the stages; it is in no answer."""


class Sessions:
    """Makes such lists.

    Args:
        settings: How the stream is cut and ranked.
        held: What the server knows.
        encoder: Of the model.
        compute: Runs what would hold up the event loop.
    """

    def __init__(self, settings: Settings, held: Held, encoder: LazyEncoder, compute: Compute) -> None:
        self._settings = settings
        self._held = held
        self._encoder = encoder
        self._compute = compute

    async def recommend(self, events: list[Event]) -> Recommendation:
        """The list after these events (at least one), with the trends and the scorer as they are now.

        Raises:
            ModelError: The model cannot be loaded.
        """
        held = self._held
        vectors = await self._encoder.slice_vectors(session_slices(events, self._settings))
        profiles: dict[str, UserProfile] = {}
        asked = take_vectors(vectors, profiles, held.model.release)
        search = search_of([NOBODY], profiles, self._settings.candidates)
        found = await self._compute(lambda: nearest_items(held.index, search))
        query = queries_of(search, profiles, found)[NOBODY]
        items = KnownItems(held.item_view.version, ItemColumns(held.index, held.item_view.is_available))
        in_force = held.running.in_force(self._rule.scorer)
        return make_list(asked[-1], query, held.trends.view, items, self._rule, in_force)

    @cached_property
    def _rule(self) -> ListRule:
        return list_rule(self._settings, served_model(self._settings))


def session_slices(events: list[Event], settings: Settings) -> list[SliceRecord]:
    """The events (at least one) cut as the stream cuts them, nothing forgotten; the last slice asks for a list."""
    rule = replace(slicing_rule(settings), history_events=len(events), repair_slices=len(events))
    history = UserHistory()
    for offset, event in enumerate(sorted(events, key=lambda event: event.ts)):
        apply_event(history, event, offset, rule)
    last = history.slices[-1]
    return [
        slice_record(
            NOBODY,
            part,
            events_before(history, part, rule.slice_events),
            0,
            fresh=part is last,
            join_epoch=None,
        )
        for part in history.slices
    ]
