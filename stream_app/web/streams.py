"""Server-sent events: what is new goes to whoever listens, and who listens too slowly is let go.

An event is made into bytes once, however many listen; each listener has a short queue, and one whose queue is full is
disconnected: it comes back by itself and is told how things stand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import msgspec
from aiohttp import web

from stream_app.web.problems import Problem

MAX_WAITING: Final = 256
"""Events that may wait for one listener: seconds at the rates that streams send."""

MAX_LISTENERS: Final = 500
"""Listeners of all streams together; each costs a connection and its queue."""

PING_S: Final = 10.0
"""Longest silence: proxies cut connections that say nothing for half a minute."""

RETRY_MS: Final = 1000
"""After how long a browser comes back."""

PING: Final = b"event: ping\ndata: {}\n\n"


def event_bytes(name: str, data: msgspec.Struct | bytes, event_id: str = "") -> bytes:
    """One event as it is sent. Its data is JSON, so it has no line ends.

    >>> event_bytes("list", b"{}", "7")
    b'id: 7\\nevent: list\\ndata: {}\\n\\n'
    """
    body = data if isinstance(data, bytes) else msgspec.json.encode(data)
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {name}\ndata: ".encode() + body + b"\n\n"


class Listener:
    """One connection that is told events.

    Args:
        abort: Cuts the connection.
    """

    def __init__(self, abort: Callable[[], None]) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)
        self._abort = abort

    def tell(self, event: bytes) -> None:
        """Queue an event; where there is no room, the connection is cut: its other side does not read."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._abort()
            self.let_go()

    def let_go(self) -> None:
        """Have the stream end."""
        # Whatever waits is not sent any more, so there is room for the end.
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def next_event(self) -> bytes | None:
        """The next event, or a ping after `PING_S` of silence; None at the end."""
        try:
            return await asyncio.wait_for(self._queue.get(), PING_S)
        except TimeoutError:
            return PING


class Streams:
    """Listeners by what they listen to: a user, or (empty) everything."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def has(self, topic: str) -> bool:
        """Whether anybody listens."""
        return topic in self._listeners

    def tell(self, topic: str, event: bytes) -> None:
        """Send an event to all who listen."""
        for listener in list(self._listeners.get(topic, ())):
            listener.tell(event)

    def close(self) -> None:
        """Let all listeners go."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.let_go()

    async def serve(self, request: web.Request, topic: str, first: Iterable[bytes]) -> web.StreamResponse:
        """Answer a request with a stream, until either side ends it.

        Args:
            request: The request.
            topic: What is listened to.
            first: Events sent at once: how things stand.

        Raises:
            Problem: 429 where too many listen already.
        """
        if self._num >= MAX_LISTENERS:
            raise Problem(
                429, f"{self._num} streams are open already.", mend="close some", headers={"Retry-After": "10"}
            )
        headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        listener = Listener(lambda: request.transport.abort() if request.transport else None)
        self._listeners.setdefault(topic, set()).add(listener)
        self._num += 1
        try:
            with suppress(ConnectionError):
                await _send_all(request, response, listener, first)
        finally:
            self._num -= 1
            listeners = self._listeners[topic]
            listeners.discard(listener)
            if not listeners:
                del self._listeners[topic]
        return response


async def _send_all(
    request: web.Request, response: web.StreamResponse, listener: Listener, first: Iterable[bytes]
) -> None:
    await response.prepare(request)
    await response.write(f"retry: {RETRY_MS}\n".encode() + PING + b"".join(first))
    while (event := await listener.next_event()) is not None:
        await response.write(event)
