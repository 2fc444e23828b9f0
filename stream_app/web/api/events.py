"""Events in."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from stream_app.web.answers import Accepted
from stream_app.web.calls import Call

EventsBody = dict[str, Any] | list[dict[str, Any]]
"""One event or several, with the producers' field names, as on the topic; `ts` may be left out."""

_BODY: Final[msgspec.json.Decoder[EventsBody]] = msgspec.json.Decoder(EventsBody)


async def send(call: Call) -> Accepted:
    """Send events, and say where they lie once Kafka has them."""
    sender = call.service.sender
    with sender.traced(call.request) as headers:
        body = await call.body(_BODY)
        events = sender.checked(body if isinstance(body, list) else [body])
        return Accepted(accepted=await sender.send(events, headers))
