"""Lists for somebody without a name."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from stream_app.settings import Settings
from stream_app.web.answering import MAX_COUNT, ListQuery, list_answer
from stream_app.web.answers import ListAnswer, Session
from stream_app.web.calls import Call
from stream_app.web.problems import Problem
from stream_app.web.sessions import NOBODY

SPACING_MS: Final = 30_000
"""Time between the events of a session that is given as items alone."""

_BODY: Final = msgspec.json.Decoder(Session)


async def recommend(call: Call) -> ListAnswer:
    """A list after the items or events of a session."""
    service, body = call.service, await call.body(_BODY)
    if bool(body.items) == bool(body.events):
        raise Problem(422, "The body holds both items and events, or neither; expected one of them.")
    if not 1 <= body.count <= MAX_COUNT:
        raise Problem(422, f"count is {body.count}; expected 1 to {MAX_COUNT}.")
    fields = body.events or _events_on(body.items, service.settings)
    user = service.settings.fields.get("user_id", "user_id")
    events = [one.event for one in service.sender.checked([{**event, user: NOBODY} for event in fields])]
    made = await service.sessions.recommend(events)
    return list_answer(service.held, made, ListQuery(count=body.count), user_id=None)


def _events_on(item_ids: list[str], settings: Settings) -> list[dict[str, Any]]:
    """Events of the first type on items, the last one now."""
    now_ms, name = time.time_ns() // 1_000_000, settings.fields.get
    event_type = next(iter(settings.event_types))
    return [
        {
            name("item_id", "item_id"): item_id,
            name("type", "type"): event_type,
            name("ts", "ts"): now_ms - SPACING_MS * (len(item_ids) - 1 - place),
        }
        for place, item_id in enumerate(item_ids)
    ]
