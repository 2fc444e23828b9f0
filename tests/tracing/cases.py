"""What the tests of traces share: a tracer whose spans stay in memory, and headers that name a trace."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stream_app.faustkit import Run
from stream_app.faustkit.run import Headers
from stream_app.tracing.headers import SAMPLED, TraceContext, headers_of
from stream_app.tracing.process import ProcessTracing


class Recorded:
    """The tracing of a process whose spans are kept."""

    def __init__(self, share: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = ProcessTracing("sequence", "here", share, SimpleSpanProcessor(self._exporter))

    def spans(self) -> Sequence[ReadableSpan]:
        """Those that ended, in that order."""
        return self._exporter.get_finished_spans()


def ids_of(span: ReadableSpan) -> tuple[int, int]:
    """The ids of its trace and its own."""
    found = span.get_span_context()
    assert found is not None
    return found.trace_id, found.span_id


def context(number: int, *, flags: int = SAMPLED) -> TraceContext:
    """A span of a trace of its own, somewhere else."""
    return TraceContext(trace_id=number, span_id=number + 1000, flags=flags)


def run_of(*records: tuple[bytes | None, Headers], topic: str = "events") -> Run:
    """A run of records with these keys and headers, from offset 10 on."""
    size = len(records)
    keys, headers = zip(*records, strict=True)
    return Run(topic, 3, range(10, 10 + size), keys, [b"secret"] * size, [0] * size, headers)


def sampled(number: int) -> Headers:
    """The headers of a record that follows from `context(number)`."""
    return headers_of(context(number))
