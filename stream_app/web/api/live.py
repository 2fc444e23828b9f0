"""Everything as it comes, and the numbers of the flow."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from stream_app.web.answers import DeadLettersAnswer, FlowAnswer
from stream_app.web.calls import Call
from stream_app.web.live import LIVE
from stream_app.web.state.dead_letters import MAX_KEPT
from stream_app.web.streams import event_bytes


class DeadLettersQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How dead letters are asked for."""

    count: Annotated[int, Meta(ge=1, le=MAX_KEPT, description="dead letters at most")] = 50


async def stream(call: Call) -> web.StreamResponse:
    """Events, lists and dead letters as they come, and figures once a second."""
    figures = event_bytes("figures", call.service.live.figures())
    return await call.service.streams.serve(call.request, LIVE, [figures])


async def dead_letters(call: Call) -> DeadLettersAnswer:
    """The newest dead letters."""
    query = call.query(DeadLettersQuery)
    return DeadLettersAnswer(dead_letters=call.service.held.dead_letters.newest(query.count))


async def flow(call: Call) -> FlowAnswer:
    """How much flows, and how far each role is behind."""
    return call.service.held.flow.answer()
