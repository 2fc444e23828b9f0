"""A span for each sampled record of a run, and its trace in the headers of what follows from it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from opentelemetry.trace import Link, Span, SpanKind

from stream_app.faustkit import Effects, OutRecord, Run
from stream_app.faustkit.run import Headers
from stream_app.tracing.headers import TraceContext, context_of
from stream_app.tracing.process import ProcessTracing
from stream_app.tracing.spans import headers_from, parent_of, span_context

OPERATION: Final = "process"
"""What is done to a record, in the words of the semantic conventions for messaging; they are still in development, so
OpenTelemetry has no stable constants for them. A record's key is left out: it is a user's id."""


@dataclass(frozen=True)
class SampledRecord:
    """A record whose trace is recorded: its place in the run, and the span that it follows from."""

    place: int
    context: TraceContext


def sampled_records(run: Run) -> dict[bytes | None, list[SampledRecord]]:
    """The sampled records of a run by key, each key's in order. Cost: a look at each record's headers."""
    found: dict[bytes | None, list[SampledRecord]] = defaultdict(list)
    for place, headers in enumerate(run.headers):
        if headers and (context := context_of(headers)) is not None and context.is_sampled:
            found[run.keys[place]].append(SampledRecord(place, context))
    return found


class RunTracer:
    """Traces the runs of a role: faustkit's `RunObserver`.

    A record on one of the `carrying` topics follows from the records of the run that have its key. It carries the trace
    of the newest sampled one of them, whose span links those of the others. A span lasts from the beginning of the run
    until its outputs are acknowledged. A run that fails ends the process, and one that is broken off is done
    again: neither leaves a span.

    Args:
        tracing: Of this process.
        role: The role, on every span.
        group: Its consumer group.
        carrying: Full names of the topics whose records carry traces.
    """

    def __init__(self, tracing: ProcessTracing, role: str, group: str, carrying: Collection[str]) -> None:
        self._tracing = tracing
        self._carrying = frozenset(carrying)
        self._attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": OPERATION,
            "messaging.operation.type": OPERATION,
            "messaging.consumer.group.name": group,
            "sliceflow.role": role,
        }

    async def process(self, run: Run, processing: Awaitable[Effects]) -> Effects:
        """What the processing gives, with traces on its outputs."""
        begun_ns = time.time_ns()
        effects = await processing
        by_key = sampled_records(run)
        if not by_key:
            return effects
        spans: list[Span] = []
        carried: dict[bytes | None, Headers] = {}
        for key, records in by_key.items():
            of_key = [self._begin(run, record, records, begun_ns) for record in records]
            carried[key] = headers_from(of_key[-1])
            spans += of_key
        return replace(
            effects,
            outputs=self._with_traces(effects.outputs, carried),
            on_published=_ending(spans, effects.on_published),
        )

    async def close(self) -> None:
        """Send the last spans."""
        await self._tracing.close()

    def _begin(self, run: Run, record: SampledRecord, same_key: Sequence[SampledRecord], begun_ns: int) -> Span:
        """Begin the span of a record; that of the newest of its key links the others."""
        others = same_key[:-1] if record is same_key[-1] else ()
        return self._tracing.tracer.start_span(
            f"{OPERATION} {run.topic}",
            context=parent_of(record.context),
            kind=SpanKind.CONSUMER,
            attributes={
                **self._attributes,
                "messaging.destination.name": run.topic,
                "messaging.destination.partition.id": str(run.partition),
                "messaging.kafka.offset": run.offsets[record.place],
            },
            links=[Link(span_context(other.context)) for other in others],
            start_time=begun_ns,
        )

    def _with_traces(self, outputs: Sequence[OutRecord], carried: Mapping[bytes | None, Headers]) -> list[OutRecord]:
        return [
            msgspec.structs.replace(output, headers=[*output.headers, *carried[output.key]])
            # Records without a key, or with an empty one (marks), are nobody's.
            if output.key and output.key in carried and output.topic in self._carrying
            else output
            for output in outputs
        ]


def _ending(spans: Sequence[Span], first: Callable[[], None] | None) -> Callable[[], None]:
    """Ends spans, after what else is to be done."""

    def end() -> None:
        if first is not None:
            first()
        for span in spans:
            span.end()

    return end
