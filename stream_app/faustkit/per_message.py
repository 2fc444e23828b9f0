"""Per-message topics: Faust's own agents, made safe.

An agent that is joined to a topic with ``@app.agent(app.topic(...))`` gets decoded values, one at a time. Stock Faust
acknowledges an event whenever its agent lets go of it, also by an exception. Here:

- An event is done when its agent asks for the next one, or returns. A partition is committed up to the first event
  that is not done (`delivered.Delivered`), whatever the order in which several actors finish.
- An exception in an agent, a record that cannot be decoded, and a record of the agent's that Kafka does not
  acknowledge end the process. Nothing that they concern is committed, and no payload is logged. An agent that is to
  go on after bad data reads raw bytes (``value_serializer="raw"``) and judges them itself.
- What an agent sends with ``await topic.send(...)`` is acknowledged before its event is committed. While Kafka takes
  no records, nothing is committed.
- When partitions are given away or the process is stopped, the events in work are finished and committed, and those
  that wait are left to the next owner.

Delivery is at least once: events since the last commit come again after a crash. Faust's tables are not offered to
agents; a handler that keeps values is given to `each.each`, which also tells replays from news. All topics of an app
are fetched together, so an agent that is slow for long holds back the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, NoReturn

import faust
from faust.types import Message

from stream_app.faustkit.failure import end_process


class SafeAgent(faust.Agent):
    """An agent whose failure ends the process instead of acknowledging the event."""

    async def _execute_actor(self, coro: Awaitable[Any], aref: Any) -> None:
        await super()._execute_actor(self._or_end(coro, aref.stream), aref)

    async def _or_end(self, coro: Awaitable[Any], stream: Any) -> None:
        # The stream acknowledges its event when it is closed, which comes after this.
        try:
            await coro
        except Exception as error:
            place = _place(stream.current_event.message) if stream.current_event else "its stream"
            end_process(f"Agent {self.name} failed at {place}: {type(error).__name__}: {error}", error)


class SafeTopic(faust.Topic):
    """A topic whose bad records and failed sends end the process instead of being logged and passed over."""

    async def on_decode_error(self, exc: Exception, message: Message) -> None:
        """End the process: Faust has counted the record as done already.

        The error is not told, for it may quote the record.
        """
        end_process(
            f"{_place(message)} could not be decoded ({type(exc).__name__}). To mend it: correct the topic's types, or "
            'read it with value_serializer="raw" and put what is bad aside.'
        )

    def _on_published(self, fut: asyncio.Future[Any], message: Any, producer: Any, state: Any) -> None:
        if (error := fut.exception()) is not None:
            topic = self._topic_name_or_default(message.message.channel)
            end_process(f"A record for {topic} was not acknowledged: {error!r}", error)
        super()._on_published(fut, message, producer, state)

    def send_soon(self, **_: Any) -> NoReturn:
        """Refused: a commit would not wait for what lies in Faust's buffer.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("send_soon may be committed past before it is sent. Use `await topic.send(...)`.")


class SafeStream(faust.Stream[Any]):
    """A stream of single events; gathering them by time acknowledges all of them when one fails."""

    def take(self, *_: Any, **__: Any) -> NoReturn:
        """Refused, like its variants.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "take() acknowledges all its events when one fails. Use `BatchApp.attach`: whole runs."
        )

    take_events = take_with_timestamp = noack_take = take


def _place(message: Message) -> str:
    return f"{message.topic}[{message.partition}] at offset {message.offset}"
