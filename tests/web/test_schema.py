"""What the description promises holds for whatever a fuzzer asks, and nothing it asks breaks the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given

from stream_app.broker import EmbeddedBroker
from stream_app.settings import Settings
from stream_app.web.calls import Route
from stream_app.web.openapi import description
from stream_app.web.routes import EVENT_STREAM, ROUTES
from stream_app.web.server import serve
from tests.examples import examples
from tests.support import DEADLINE_S
from tests.web.cases import Seeder, web_settings

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    # Schemathesis draws from `random`, which Hypothesis now warns of.
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning"),
]

ANSWER_S = 120.0
"""The first session loads the encoder: seconds, on a busy machine a minute."""

ASKED = [
    route
    for route in ROUTES
    # A stream has no end, and the page is no JSON.
    if route.content_type not in (EVENT_STREAM, "text/html", "text/css")
]

AS_MANY = examples(30, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


class Background:
    """A server in a thread of its own, as the fuzzer waits for each answer.

    Args:
        settings: Of a namespace that is seeded here.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._address: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, name="server")

    def __enter__(self) -> str:
        self._thread.start()
        return self._address.result(DEADLINE_S).rstrip("/")

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            await Seeder(self._settings).all()
            await serve(self._settings, self._stop, self._address.set_result, any_port=False)
        except Exception as error:
            self._address.set_exception(error)


@pytest.fixture(scope="module")
def address(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a namespace of this module."""
    folder: Path = tmp_path_factory.mktemp("schema")
    with Background(web_settings(broker.bootstrap_servers, "t-schema-", folder)) as address:
        yield address


@pytest.mark.parametrize("route", ASKED, ids=lambda route: f"{route.method} {route.path}")
def test_no_request_breaks_the_server(route: Route, address: str) -> None:
    # Imported here, as it takes seconds and pytest imports every file; its plugin would be loaded for all tests.
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

    checks = [not_a_server_error, content_type_conformance, response_schema_conformance]
    operation = schemathesis.openapi.from_dict(description(ASKED))[route.path][route.method]
    valid, invalid = (operation.as_strategy(mode) for mode in GenerationMode)

    @AS_MANY
    @given(case=valid | invalid)
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(base_url=address, timeout=ANSWER_S)
        if answer.status_code == 400 and b"more than 8190 bytes" in answer.content:
            return  # the server's parser says so itself, in plain text
        case.validate_response(answer, checks=checks)

    ask()
