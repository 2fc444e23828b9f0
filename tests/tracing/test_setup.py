"""Whether a process is traced: off by default, by its settings, and with a clear word where packages are missing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import SpanProcessor

from stream_app.errors import SettingsError
from stream_app.faustkit import Effects
from stream_app.settings import Settings, parse_settings
from stream_app.tracing import process
from stream_app.tracing.process import ProcessTracing
from stream_app.tracing.setup import request_tracer, run_tracer
from tests.support import DEADLINE_S
from tests.tracing.cases import run_of, sampled


def test_nothing_is_traced_by_default() -> None:
    assert run_tracer(Settings(), "sequence", "here") is None
    assert request_tracer(Settings(), "here") is None


def test_nothing_of_opentelemetry_is_loaded_by_default() -> None:
    code = (
        "import sys, stream_app.tracing.setup as setup, stream_app.settings as settings\n"
        "setup.run_tracer(settings.Settings(), 'sequence', 'here')\n"
        "sys.exit(any(name.partition('.')[0] == 'opentelemetry' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=DEADLINE_S).returncode == 0


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.sdk.trace"])
def test_missing_packages_are_told_with_the_extra_that_brings_them(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(trace_exporter="otlp")
    for name in [name for name in sys.modules if name.startswith("stream_app.tracing.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delattr("stream_app.tracing.process")
    with pytest.raises(SettingsError, match=r"sliceflow\[tracing\]") as caught:
        run_tracer(settings, "sequence", "here")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("wrong", [{"trace_exporter": "jaeger"}, {"trace_share": 1.5}, {"trace_share": -0.1}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        parse_settings(wrong)


def test_the_console_gets_a_line_of_json_for_each_span(capfd: pytest.CaptureFixture[str]) -> None:
    settings = Settings(trace_exporter="console", prefix="p-")

    async def trace_a_run() -> None:
        tracer = run_tracer(settings, "sequence", "here")
        assert tracer is not None
        for number in (1, 2):
            effects = await tracer.process(run_of((b"ann", sampled(number)), topic="p-events"), nothing())
            assert effects.on_published is not None
            effects.on_published()
        await tracer.close()

    asyncio.run(trace_a_run())
    out, err = capfd.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [line["attributes"]["messaging.destination.name"] for line in lines] == ["p-events", "p-events"]
    assert {line["resource"]["attributes"]["service.name"] for line in lines} == {"sliceflow-sequence"}


async def nothing() -> Effects:
    """The effects of a run that causes nothing."""
    return Effects()


class Collector:
    """Takes what is sent to it by OTLP over HTTP."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        taken = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                taken.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector whose address stands in OpenTelemetry's own variable."""
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{made.server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_otlp_sends_the_last_spans_before_the_end_to_where_the_environment_says(collector: Collector) -> None:
    tracer = request_tracer(Settings(trace_exporter="otlp"), "here")
    assert tracer is not None
    with tracer.request("POST", "/events", sampled(7)):
        assert collector.requests == []
    asyncio.run(tracer.close())
    [sent] = collector.requests
    [of_process] = sent.resource_spans
    attributes = {one.key: one.value.string_value for one in of_process.resource.attributes}
    assert (attributes["service.name"], attributes["service.instance.id"]) == ("sliceflow-serve", "here")
    [span] = of_process.scope_spans[0].spans
    assert (span.name, int.from_bytes(span.trace_id, "big")) == ("POST /events", 7)


class _NeverDone(SpanProcessor):
    """Takes until it is released to shut down."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def shutdown(self) -> None:
        """As a collector that does not answer."""
        self.released.wait()


def test_a_way_out_that_does_not_end_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FLUSH_S", 0.01)
    stuck = _NeverDone()
    asyncio.run(ProcessTracing("sequence", "here", 1.0, stuck).close())
    assert not stuck.released.is_set()
    stuck.released.set()
