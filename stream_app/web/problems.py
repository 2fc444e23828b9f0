"""What went wrong, as problem JSON (RFC 9457): what was seen, what was expected, and what mends it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

PROBLEM_JSON = "application/problem+json"

MAX_DETAIL_CHARS = 500
"""Longest detail: it quotes what others sent."""


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is an error."""

    type: str
    title: str
    status: int
    detail: str
    mend: str


class Problem(Exception):
    """An error that a client is told of.

    Args:
        status: HTTP status, 400 or above.
        detail: What was seen and what was expected.
        mend: What mends it; empty where nothing does.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, detail: str, *, mend: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail[:MAX_DETAIL_CHARS]
        self.mend = mend
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """The answer."""
        details = ProblemDetails(
            type="about:blank",
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            mend=self.mend,
        )
        body = msgspec.json.encode(details)
        return web.Response(status=self.status, body=body, content_type=PROBLEM_JSON, headers=self.headers)
