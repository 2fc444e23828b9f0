"""A span for a request that publishes, and its trace in the headers of what is published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_SCHEME
from opentelemetry.trace import SpanKind, StatusCode

from stream_app.faustkit.run import Headers
from stream_app.tracing.headers import context_of
from stream_app.tracing.process import ProcessTracing
from stream_app.tracing.spans import NO_PARENT, headers_from, parent_of

FAILED: Final = HTTPStatus.INTERNAL_SERVER_ERROR
"""From this status on it is the server's fault; and of an error without a status, too."""


class RequestTracer:
    """Traces requests; where no client began a trace, it begins here.

    Args:
        tracing: Of this process.
    """

    def __init__(self, tracing: ProcessTracing) -> None:
        self._tracing = tracing

    @contextmanager
    def request(
        self, method: str, path: str, given: Headers, *, scheme: str = "http", good: HTTPStatus = HTTPStatus.OK
    ) -> Iterator[Headers]:
        """A span around the block; gives the headers of the records that follow from the request.

        Args:
            method: HTTP method.
            path: Of the request, and its route's: one without parameters, so that it names nobody.
            given: The request's headers `traceparent` and `tracestate`.
            scheme: ``http`` or ``https``.
            good: The status where nothing is raised; what is raised may have one of its own, as `status`.
        """
        context = context_of(given)
        span = self._tracing.tracer.start_span(
            f"{method} {path}",
            context=NO_PARENT if context is None else parent_of(context),
            kind=SpanKind.SERVER,
            attributes={HTTP_REQUEST_METHOD: method, HTTP_ROUTE: path, URL_PATH: path, URL_SCHEME: scheme},
        )
        status: int = good
        try:
            yield headers_from(span)
        except Exception as error:
            status = getattr(error, "status", FAILED)
            raise
        finally:
            span.set_attribute(HTTP_RESPONSE_STATUS_CODE, int(status))
            if status >= FAILED:
                span.set_status(StatusCode.ERROR)
            span.end()

    async def close(self) -> None:
        """Send the last spans."""
        await self._tracing.close()
