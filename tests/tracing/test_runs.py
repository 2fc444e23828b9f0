"""Runs that are traced: a span for each sampled record, its trace on what follows from it, and nothing else changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind

from stream_app.audit.findings import Check
from stream_app.audit.repeats import Repeats, list_output
from stream_app.faustkit import Effects, OutRecord, Run, Stored
from stream_app.monitoring.append_times import APPENDED_HEADER
from stream_app.records import MARK_KEY
from stream_app.tracing.headers import TRACEPARENT, TRACESTATE, TraceContext, context_of, headers_of
from stream_app.tracing.runs import RunTracer
from tests.tracing.cases import Recorded, context, ids_of, run_of, sampled

CARRYING = ("slices", "slice-vectors")
APPENDED = (APPENDED_HEADER, b"1200")


def out(key: bytes | None, topic: str = "slices", headers: Sequence[tuple[str, bytes]] = ()) -> OutRecord:
    """An output of a key."""
    return OutRecord(topic, 3, key, b"value", headers)


def traced(
    recorded: Recorded, run: Run, outputs: Sequence[OutRecord], on_published: Callable[[], None] | None = None
) -> Effects:
    """What a traced run causes."""
    given_effects = Effects(
        list(outputs), {b"ann": Stored(10, b"kept")}, facts=[out(None, "status")], on_published=on_published
    )

    async def process() -> Effects:
        return given_effects

    effects = asyncio.run(RunTracer(recorded.tracing, "sequence", "group", CARRYING).process(run, process()))
    assert (effects.changes, effects.facts) == (given_effects.changes, given_effects.facts)
    return effects


def publish(effects: Effects) -> None:
    """The outputs are acknowledged."""
    assert effects.on_published is not None
    effects.on_published()


def carried(record: OutRecord) -> TraceContext | None:
    """The span that an output follows from."""
    return context_of(record.headers)


def test_a_sampled_record_has_a_span_and_its_trace_is_on_what_has_its_key() -> None:
    recorded = Recorded()
    run = run_of((b"bob", ()), (b"ann", sampled(7)))
    effects = traced(recorded, run, [out(b"bob"), out(b"ann", headers=[APPENDED]), out(MARK_KEY), out(None)])
    assert recorded.spans() == ()  # not before the outputs are acknowledged
    publish(effects)
    [span] = recorded.spans()
    assert (span.name, span.kind) == ("process events", SpanKind.CONSUMER)
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (7, 1007)
    assert span.links == ()
    assert span.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "group",
        "messaging.destination.name": "events",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 11,
        "sliceflow.role": "sequence",
    }
    bob, ann, mark, nobody = effects.outputs
    assert (bob, mark, nobody) == (out(b"bob"), out(MARK_KEY), out(None))
    assert ann.headers[0] == APPENDED
    assert carried(ann) == TraceContext(*ids_of(span), 1)


def test_spans_name_neither_users_nor_what_they_did() -> None:
    recorded = Recorded()
    publish(traced(recorded, run_of((b"ann", sampled(7))), [out(b"ann")]))
    [span] = recorded.spans()
    assert "ann" not in span.to_json()
    assert "secret" not in span.to_json()


def test_of_several_records_of_a_key_the_newest_is_carried_and_links_the_others() -> None:
    recorded = Recorded()
    run = run_of((b"ann", sampled(1)), (b"bob", sampled(2)), (b"ann", sampled(3)), (b"ann", sampled(4)), (b"ann", ()))
    effects = traced(recorded, run, [out(b"ann"), out(b"bob")])
    publish(effects)
    spans = {ids_of(span)[0]: span for span in recorded.spans()}
    assert sorted(spans) == [1, 2, 3, 4]
    assert [[link.context.trace_id for link in spans[number].links] for number in (1, 2, 3, 4)] == [[], [], [], [1, 3]]
    assert [found.trace_id for record in effects.outputs if (found := carried(record))] == [4, 2]


def test_what_is_not_sampled_leaves_everything_as_it_was() -> None:
    recorded = Recorded()
    untouched = [out(b"ann", headers=[APPENDED]), out(b"bob")]
    run = run_of((b"ann", headers_of(context(7, flags=0))), (b"bob", [(TRACEPARENT, b"no trace")]), (b"bob", ()))
    effects = traced(recorded, run, untouched)
    assert (effects.outputs, effects.on_published, recorded.spans()) == (untouched, None, ())


def test_other_topics_carry_no_trace() -> None:
    dead = out(b"ann", "events-dead-letter", headers=[("class", b"rejected")])
    effects = traced(Recorded(), run_of((b"ann", sampled(7))), [dead, out(b"ann")])
    assert effects.outputs[0] == dead
    assert carried(effects.outputs[1]) is not None


def test_marks_never_carry_a_trace_even_where_a_record_has_their_key() -> None:
    run = run_of((MARK_KEY, sampled(7)), (None, sampled(8)))
    effects = traced(Recorded(), run, [out(MARK_KEY), out(None)])
    assert effects.outputs == [out(MARK_KEY), out(None)]


def test_what_else_is_to_be_done_at_the_acknowledgement_is_done() -> None:
    recorded = Recorded()
    told: list[int] = []
    effects = traced(recorded, run_of((b"ann", sampled(7))), [out(b"ann")], lambda: told.append(len(recorded.spans())))
    publish(effects)
    assert (told, len(recorded.spans())) == ([0], 1)


def test_the_state_of_vendors_is_carried_on() -> None:
    state = (("vendor", "x"), ("other", "y"))
    given_headers = headers_of(msgspec.structs.replace(context(7), state=state))
    effects = traced(Recorded(), run_of((b"ann", given_headers)), [out(b"ann")])
    found = carried(effects.outputs[0])
    assert found is not None
    assert (found.trace_id, found.state) == (7, state)


KEYS = st.sampled_from([b"ann", b"bob", b"", None])
HEADERS = st.sampled_from([(), sampled(1), sampled(2), headers_of(context(3, flags=0)), [(TRACEPARENT, b"\xff")]])
OUTPUTS = st.builds(out, KEYS, st.sampled_from(["slices", "item-activity"]), st.sampled_from([(), [APPENDED]]))


@given(st.lists(st.tuples(KEYS, HEADERS), min_size=1, max_size=6), st.lists(OUTPUTS, max_size=6))
def test_without_its_trace_every_output_is_what_it_was(records: list, outputs: list[OutRecord]) -> None:
    effects = traced(Recorded(), run_of(*records), outputs)
    without = [
        msgspec.structs.replace(
            output, headers=[header for header in output.headers if header[0] not in (TRACEPARENT, TRACESTATE)]
        )
        for output in effects.outputs
    ]
    assert without == [msgspec.structs.replace(output, headers=list(output.headers)) for output in outputs]
    with_trace = {key for key, headers in records if key and (found := context_of(headers)) and found.is_sampled}
    for output in effects.outputs:
        assert (carried(output) is not None) == (output.topic in CARRYING and output.key in with_trace)


def test_a_list_that_comes_again_in_another_trace_is_no_breach_but_other_bytes_are() -> None:
    check = Check("A2", "same id, same bytes")
    repeats = Repeats(check, list_output)
    value = b'{"recommendation_id": "r", "user_id": "ann"}'
    repeats.take(Run("recommendations", 0, [0, 1], [b"ann"] * 2, [value] * 2, [0, 0], [sampled(1), sampled(2)]))
    assert (check.num_checked, check.num_breaches, repeats.num_identities) == (2, 0, 1)
    repeats.take(Run("recommendations", 0, [2], [b"ann"], [value + b" "], [0], [sampled(1)]))
    assert check.num_breaches == 1
