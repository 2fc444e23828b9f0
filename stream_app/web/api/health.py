"""Whether the server works, for those who look after it."""

from __future__ import annotations

from aiohttp import web

from stream_app.web.answers import Health
from stream_app.web.calls import Call
from stream_app.web.metrics import CONTENT_TYPE


async def alive(call: Call) -> Health:
    """The process answers."""
    return Health(status="ok")


async def ready(call: Call) -> Health:
    """All that was there at the start is read."""
    call.service.require_caught_up()
    return Health(status="ready")


async def metrics(call: Call) -> web.Response:
    """What Prometheus asks for."""
    return web.Response(body=call.service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
