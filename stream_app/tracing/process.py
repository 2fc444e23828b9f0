"""The spans of one process on their way out."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Final, Self

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from stream_app.settings import Settings

NAMESPACE: Final = "sliceflow"

FLUSH_S: Final = 3.0
"""How long the last spans may take at the end: a collector that does not answer must not hold up a restart."""


class ProcessTracing:
    """Makes the tracer of a process, and sends what it recorded in a thread of its own.

    No span is waited for: where the exporter is slower than the spans come, the oldest that wait are dropped.

    Args:
        role: The process's role; with the namespace its service's name.
        instance_id: What tells it from others of its role.
        share: The share (0 to 1) of the traces that begin here which are recorded; others follow their parent.
        spans_out: Takes the spans that ended.
    """

    def __init__(self, role: str, instance_id: str, share: float, spans_out: SpanProcessor) -> None:
        described = {
            SERVICE_NAMESPACE: NAMESPACE,
            SERVICE_NAME: f"{NAMESPACE}-{role}",
            SERVICE_INSTANCE_ID: instance_id,
        }
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create(described),
            shutdown_on_exit=False,  # it could take half a minute
        )
        self._provider.add_span_processor(spans_out)
        self.tracer = self._provider.get_tracer(NAMESPACE)

    @classmethod
    def of(cls, settings: Settings, role: str, instance_id: str) -> Self:
        """As the settings say; where spans go, and all about the way there, is OpenTelemetry's own environment's."""
        exporter: SpanExporter = OTLPSpanExporter() if settings.trace_exporter == "otlp" else _console()
        return cls(role, instance_id, settings.trace_share, BatchSpanProcessor(exporter))

    async def close(self) -> None:
        """Send what waits, for at most `FLUSH_S`."""
        # Neither way out of it can be told how long it may take; so it is left behind, and ends with the process.
        flushing = threading.Thread(target=self._provider.shutdown, name="trace flush", daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, FLUSH_S)


def _console() -> ConsoleSpanExporter:
    """Spans as JSON, a line each, on stderr like the log: standard output is the commands' own."""
    return ConsoleSpanExporter(out=sys.stderr, formatter=_line)


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"
