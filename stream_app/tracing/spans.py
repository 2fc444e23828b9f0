"""Spans and the headers that lead to and from them."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from stream_app.faustkit.run import Headers
from stream_app.tracing.headers import TraceContext, headers_of

NO_PARENT = Context()
"""Of a span that begins a trace."""


def span_context(context: TraceContext) -> SpanContext:
    """A span of another process, in OpenTelemetry's form."""
    return SpanContext(
        context.trace_id,
        context.span_id,
        is_remote=True,
        trace_flags=TraceFlags(context.flags),
        trace_state=TraceState(list(context.state)),
    )


def parent_of(context: TraceContext) -> Context:
    """Where a span is begun that follows from one of another process."""
    return set_span_in_context(NonRecordingSpan(span_context(context)), NO_PARENT)


def headers_from(span: Span) -> Headers:
    """The headers of what follows from a span; none where its trace is not recorded."""
    found = span.get_span_context()
    if not found.is_valid or not found.trace_flags.sampled:
        return ()
    state = tuple(found.trace_state.items())
    return headers_of(TraceContext(found.trace_id, found.span_id, int(found.trace_flags), state))
