"""Requests that are traced: where traces begin, where they go on, and what their spans say."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Literal

import pytest
from aiohttp import web
from opentelemetry.trace import SpanKind, StatusCode

from stream_app.faustkit.run import Headers
from stream_app.settings import KafkaSettings, Settings
from stream_app.tracing.headers import TRACEPARENT, context_of, headers_of
from stream_app.tracing.requests import RequestTracer
from stream_app.web.problems import Problem
from stream_app.web.sending import Sender
from tests.tracing.cases import Recorded, context, ids_of, sampled


def headers_given(recorded: Recorded, given: Headers = ()) -> Headers:
    """What a request with these headers gives to its records."""
    with RequestTracer(recorded.tracing).request("POST", "/events", given, good=HTTPStatus.ACCEPTED) as headers:
        assert recorded.spans() == ()
    return headers


@pytest.mark.parametrize("given", [(), [(TRACEPARENT, b"no trace")], [*sampled(1), *sampled(2)]])
def test_a_trace_begins_where_no_client_began_one(given: Headers) -> None:
    recorded = Recorded()
    found = context_of(headers_given(recorded, given))
    [span] = recorded.spans()
    assert found is not None
    assert (found.trace_id, found.span_id) == ids_of(span)
    assert (span.parent, span.name, span.kind) == (None, "POST /events", SpanKind.SERVER)
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/events",
        "http.response.status_code": 202,
        "url.path": "/events",
        "url.scheme": "http",
    }
    assert span.resource.attributes["service.name"] == "sliceflow-sequence"
    assert span.resource.attributes["service.instance.id"] == "here"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_clients_trace_goes_on_whatever_our_share(share: float) -> None:
    recorded = Recorded(share)
    found = context_of(headers_given(recorded, sampled(7)))
    [span] = recorded.spans()
    assert found is not None and span.parent is not None
    assert (found.trace_id, found.is_sampled, span.parent.span_id) == (7, True, 1007)


@pytest.mark.parametrize(
    ("share", "given"), [(0.0, ()), (1.0, headers_of(context(7, flags=0)))], ids=["our share", "the client's word"]
)
def test_what_is_not_sampled_is_not_recorded_and_not_carried(share: float, given: Headers) -> None:
    recorded = Recorded(share)
    assert (headers_given(recorded, given), recorded.spans()) == ((), ())


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Problem(422, "wrong"), 422, StatusCode.UNSET),
        (Problem(503, "Kafka"), 503, StatusCode.ERROR),
        (OSError("of user ann"), 500, StatusCode.ERROR),
    ],
)
def test_errors_are_raised_on_and_told_by_their_status_alone(error: Exception, status: int, code: StatusCode) -> None:
    recorded = Recorded()
    with pytest.raises(type(error)), RequestTracer(recorded.tracing).request("POST", "/events", ()):
        raise error
    [span] = recorded.spans()
    assert span.attributes is not None
    assert (span.attributes["http.response.status_code"], span.status.status_code) == (status, code)
    assert "ann" not in span.to_json()


async def taken(sender: Sender, value: bytes) -> list[Headers]:
    """What a request with this `traceparent`, sent byte for byte, gives to its records."""
    found: list[Headers] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        with sender.traced(request) as headers:
            found.append(headers)
        return web.Response()

    loop = asyncio.get_running_loop()
    listening = await loop.create_server(web.Server(handle), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    writer.write(b"POST /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTraceParent: " + value + b"\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    listening.close()
    await sender.stop()
    return found


def sender_with(exporter: Literal["none", "console"]) -> Sender:
    """A sender that need not connect."""
    return Sender(Settings(kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"), trace_exporter=exporter))


@pytest.mark.parametrize(
    ("value", "goes_on"),
    [(sampled(7)[0][1] or b"", True), (b"\xff" * 55, False), ("é".encode() * 27, False), (b"", False)],
    ids=range(4),
)
def test_the_server_takes_the_header_of_a_request_whatever_it_is(
    value: bytes, goes_on: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    [headers] = asyncio.run(taken(sender_with("console"), value))
    found = context_of(headers)
    assert found is not None
    assert (found.trace_id == 7) == goes_on
    assert json.loads(capfd.readouterr().err)["name"] == "POST /events"


def test_without_tracing_the_server_gives_its_events_no_headers() -> None:
    assert asyncio.run(taken(sender_with("none"), sampled(7)[0][1] or b"")) == [()]
