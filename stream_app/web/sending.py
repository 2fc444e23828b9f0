"""Events that came over HTTP, checked by the very rules that the consumers use, and sent to their topic."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

import msgspec
from aiohttp import web
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_app import tables
from stream_app.erasing import erasure_value
from stream_app.faustkit.run import Headers
from stream_app.kafka import connection
from stream_app.records import Erasure, Event
from stream_app.roles import SERVE
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules
from stream_app.stages.clean import Rejection, clean_event
from stream_app.topics import EVENTS, prefixed
from stream_app.tracing.headers import TRACEPARENT, TRACESTATE
from stream_app.tracing.setup import request_tracer
from stream_app.web.answers import Placed
from stream_app.web.problems import Problem

MAX_EVENTS: Final = 500
"""Events of one request."""


Wish = TypeVar("Wish", bound=Event | Erasure, covariant=True)


@dataclass(frozen=True)
class Checked(Generic[Wish]):
    """An event or an erasure that will be accepted, and the value of its record."""

    event: Wish
    value: bytes


class Sender:
    """Sends events; `start` it in a running loop.

    Args:
        settings: With a Kafka address.

    Raises:
        SettingsError: Requests are to be traced, and OpenTelemetry is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        self._rules = clean_rules(settings)
        self._tracer = request_tracer(settings, f"{socket.gethostname()}-{SERVE}")
        self._topic = prefixed(settings.prefix, EVENTS)
        self._connection = connection(settings)
        self._producer: Any = None

    async def start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(**self._connection, acks="all", enable_idempotence=True)
        await self._producer.start()

    async def stop(self) -> None:
        """Send what waits, and disconnect."""
        if self._producer is not None:
            await self._producer.stop()
        if self._tracer is not None:
            await self._tracer.close()

    def traced(self, request: web.BaseRequest) -> AbstractContextManager[Headers]:
        """Traces the block, which answers a request; gives the headers that its events are to bear."""
        if self._tracer is None:
            return nullcontext(())
        given = [
            (name, text.encode("utf-8", "surrogateescape"))
            for name in (TRACEPARENT, TRACESTATE)
            for text in request.headers.getall(name, ())
        ]
        return self._tracer.request(
            request.method, request.path, given, scheme=request.scheme, good=HTTPStatus.ACCEPTED
        )

    def checked(self, given: Sequence[dict[str, Any]]) -> list[Checked[Event]]:
        """The events, with the server's time where they have none.

        Raises:
            Problem: 422 where one would be refused; then none is sent.
        """
        if not 0 < len(given) <= MAX_EVENTS:
            raise Problem(422, f"The body holds {len(given)} events; expected 1 to {MAX_EVENTS}.")
        now_ms = time.time_ns() // 1_000_000
        return [self._checked(fields, place, now_ms) for place, fields in enumerate(given)]

    def erasure(self, user_id: str) -> Checked[Erasure]:
        """What asks for a user to be erased, now; the id is one that events may have."""
        erasure = Erasure(user_id=user_id, ts=time.time_ns() // 1_000_000)
        return Checked(erasure, erasure_value(erasure, self._rules))

    async def send(self, events: Sequence[Checked[Event | Erasure]], headers: Headers = ()) -> list[Placed]:
        """Send events in order, each with these headers, and wait until Kafka has acknowledged all of them.

        Raises:
            Problem: 503 where Kafka did not.
        """
        borne = list(headers)
        try:
            waiting = [await self._producer.send(*self._record(one), headers=borne) for one in events]
            placed = await asyncio.gather(*waiting)
        except KafkaError as error:
            raise Problem(
                503,
                f"Kafka has not acknowledged the events: {type(error).__name__}. Some of them may be on the topic.",
                mend="send them again, with an event_id each, so that none counts twice",
                headers={"Retry-After": "2"},
            ) from error
        return [
            Placed(partition=place.partition, offset=place.offset, ts=one.event.ts)
            for place, one in zip(placed, events, strict=True)
        ]

    def _record(self, one: Checked[Event | Erasure]) -> tuple[str, bytes, bytes, None, int]:
        # The record's own time is the event's, as in a replay: both then make the same lists.
        return self._topic, one.value, tables.key_of(one.event.user_id), None, one.event.ts

    def _checked(self, fields: dict[str, Any], place: int, now_ms: int) -> Checked[Event]:
        fields = {self._rules.producer_name("ts"): now_ms, **fields}
        value = msgspec.json.encode(fields)
        user = fields.get(self._rules.producer_name("user_id"))
        key = user.encode("utf-8") if isinstance(user, str) else b""
        found = clean_event(key, value, now_ms, self._rules)
        if isinstance(found, Rejection):
            raise Problem(
                422,
                f"Event {place} would be refused ({found.reason}): {found.detail}.",
                mend="correct it and send all again: none was sent",
            )
        return Checked(found, value)
