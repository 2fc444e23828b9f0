"""Lists: of a user, as they change, and of somebody without a name."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Final

import msgspec
from aiohttp import web

from stream_app.topics import RECOMMENDATIONS, prefixed
from stream_app.web.answering import (
    LIST,
    ListQuery,
    kept,
    list_answer,
    list_event,
    popular_answer,
    popular_lines,
)
from stream_app.web.answers import ListAnswer
from stream_app.web.calls import Call
from stream_app.web.filtering import added_lines
from stream_app.web.histories import slice_event
from stream_app.web.problems import Problem
from stream_app.web.service import Service
from stream_app.web.state.held import Held
from stream_app.web.state.lists import KEPT_S, KeptAnswer

_AGE: Final = b'"age_ms":0,'
"""Where an answer that is kept is cut, to put its age in. No text of its items can hold this: quotes are escaped."""


async def of_user(call: Call) -> bytes:
    """The newest list of a user."""
    held, asked = call.service.held, call.request.raw_path
    if (ready := kept_answer(held, asked)) is not None:
        return ready
    user_id, query = call.id_in_path("user_id"), call.query(ListQuery)
    value = held.lists.get(user_id) or await _looked_up(call.service, user_id)
    if value is None:
        return msgspec.json.encode(await _popular(call.service, user_id, query))
    made, catalogue = LIST.decode(value), held.catalogue.version
    added = await added_lines(call.service, user_id, made.items, query)
    body = msgspec.json.encode(list_answer(held, made, query, user_id=user_id, added=added))
    # Else it is made of its list and the catalogue alone.
    holds_s = KEPT_S if query.why or query.is_filtered else math.inf
    held.lists.keep(asked, KeptAnswer(user_id, value, catalogue, time.monotonic(), body, holds_s))
    return body


def kept_answer(held: Held, asked: str) -> bytes | None:
    """The answer to a request, given as its path with the query, where one is kept that still holds."""
    now_s = time.monotonic()
    kept = held.lists.answer(asked, held.catalogue.version, now_s)
    return None if kept is None else with_age(kept.body, int((now_s - kept.made_s) * 1000))


async def stream(call: Call) -> web.StreamResponse:
    """A user's lists and slices as they change; the newest ones at once. Old ones are not told as they are read."""
    call.service.require_caught_up()
    user_id = call.id_in_path("user_id")
    if call.service.held.lists.get(user_id) is None:
        await _looked_up(call.service, user_id)
    return await call.service.streams.serve(call.request, user_id, _now(call.service, user_id))


def with_age(answer: bytes, age_ms: int) -> bytes:
    """An answer whose age was 0 when it was put together, with the age that it has now.

    >>> with_age(b'{"epoch":3,"age_ms":0,"items":[]}', 12)
    b'{"epoch":3,"age_ms":12,"items":[]}'
    """
    return answer.replace(_AGE, b'"age_ms":%d,' % age_ms, 1)


async def _looked_up(service: Service, user_id: str) -> bytes | None:
    """The list of a user who is not held, where some lists may not be."""
    lists, topic = service.held.lists, prefixed(service.settings.prefix, RECOMMENDATIONS)
    if service.tail.is_whole(topic) and not lists.has_forgotten:
        return None
    found = await service.lookups.newest_list(user_id)
    # A newer one may have come meanwhile.
    if lists.get(user_id) is None and found is not None:
        lists.put(user_id, found)
    return lists.get(user_id)


async def _popular(service: Service, user_id: str, query: ListQuery) -> ListAnswer:
    lines = popular_lines(service.held)
    if not lines:
        raise Problem(
            404,
            f"There is no list of the user {user_id!r}, and nothing is known yet of what is popular.",
            mend="send events with POST /events, and see with /flow that the roles follow",
        )
    added = await added_lines(service, user_id, lines, query)
    return popular_answer(service.held, user_id, [*kept(service.held, lines, query), *added])


def _now(service: Service, user_id: str) -> Iterator[bytes]:
    value = service.held.lists.get(user_id)
    if value is not None:
        yield list_event(service.held, LIST.decode(value), None)
    yield slice_event(service.held, user_id)
