"""A request on its way to its handler, and the way of the handler's answer back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from aiohttp import web

from stream_app.stages.clean import MAX_ID_CHARS
from stream_app.web.problems import Problem

if TYPE_CHECKING:
    from stream_app.web.service import Service

JSON: Final = "application/json"

Query = TypeVar("Query", bound=msgspec.Struct)
Body = TypeVar("Body")

Result = msgspec.Struct | bytes | web.StreamResponse
"""What a handler gives: something to be sent as JSON, JSON that is ready, or an answer of its own."""


@dataclass(frozen=True)
class Call:
    """One request.

    Args:
        request: As aiohttp gives it.
        service: What the server knows and can do.
    """

    request: web.Request
    service: Service

    def id_in_path(self, name: str) -> str:
        """An id that is part of the path.

        Raises:
            Problem: 400 where no id can look like that.
        """
        text = self.request.match_info[name]
        if not 0 < len(text) <= MAX_ID_CHARS or "\0" in text:
            raise Problem(400, f"The path's {name} has {len(text)} characters; expected 1 to {MAX_ID_CHARS}, no NUL.")
        return _encodable(text, f"path's {name}")

    def query(self, form: type[Query]) -> Query:
        """The query of the address.

        Raises:
            Problem: 400 where it names something unknown, or a value is out of its range.
        """
        given = self.request.rel_url.query
        if len(set(given)) != len(given):
            raise Problem(400, "The query names something twice.", mend="see /openapi.json")
        try:
            found = msgspec.convert(dict(given), form, strict=False)
        except msgspec.ValidationError as error:
            raise Problem(400, f"The query is wrong: {error}.", mend="see /openapi.json") from error
        for value in given.values():
            _encodable(value, "query")
        return found

    async def body(self, decoder: msgspec.json.Decoder[Body]) -> Body:
        """The body, which must be JSON.

        Raises:
            Problem: 415 for another type of content, 400 where it is not of the form expected.
        """
        if self.request.content_type != JSON:
            raise Problem(
                415, f"The body is {self.request.content_type}; expected {JSON}.", mend=f"send Content-Type: {JSON}"
            )
        try:
            return decoder.decode(await self.request.read())
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(400, f"The body is wrong: {error}.", mend="see /openapi.json") from error


Handler = Callable[[Call], Awaitable[Result]]


@dataclass(frozen=True)
class Route:
    """One entry of the API: from these both routing and its description are made.

    Args:
        method: HTTP method.
        path: With parameters in braces.
        summary: One line for people.
        handler: Answers.
        answer: Type of the answer's JSON; None for another type of content.
        query: Type of the query; None where there is none.
        body: Type of the body; None where there is none.
        status: Of a good answer.
        content_type: Of a good answer.
        cost: For how many requests it counts.
        is_public: It needs no token.
    """

    method: str
    path: str
    summary: str
    handler: Handler
    answer: Any = None
    query: type[msgspec.Struct] | None = None
    body: Any = None
    status: int = 200
    content_type: str = JSON
    cost: float = 1.0
    is_public: bool = False

    @property
    def name(self) -> str:
        """What people and Prometheus call it."""
        return f"{self.method} {self.path}"


def response_of(route: Route, result: Result) -> web.StreamResponse:
    """The answer to be sent."""
    if isinstance(result, web.StreamResponse):
        return result
    body = result if isinstance(result, bytes) else msgspec.json.encode(result)
    return web.Response(status=route.status, body=body, content_type=route.content_type)


def _encodable(text: str, what: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Problem(400, f"The {what} is no UTF-8.") from error
    return text
