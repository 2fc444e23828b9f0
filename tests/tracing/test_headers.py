"""Headers that carry a trace: they mean what they mean to OpenTelemetry, and nothing that anybody sends breaks them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stream_app.faustkit.run import Headers
from stream_app.tracing.headers import (
    MAX_FURTHER_BYTES,
    MAX_STATE_BYTES,
    MAX_STATE_MEMBERS,
    TRACEPARENT,
    TRACESTATE,
    TraceContext,
    context_of,
    headers_of,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01".encode()
FOUND = TraceContext(int(TRACE, 16), int(SPAN, 16), 1)

KEYS = st.from_regex(r"[a-z][a-z0-9_*/-]{0,10}", fullmatch=True)
STATE_VALUES = st.from_regex(r"[!-+\--<>-~]{1,12}", fullmatch=True)
CONTEXTS = st.builds(
    TraceContext,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    flags=st.integers(0, 3),
    state=st.lists(st.tuples(KEYS, STATE_VALUES), max_size=4, unique_by=lambda member: member[0]).map(tuple),
)

# Nearly good ones: pieces of a good header, each perhaps spoilt.
PIECES = st.sampled_from(
    ["00", "01", "fe", "ff", "0", TRACE, TRACE.upper(), "0" * 32, TRACE[1:], SPAN, "0" * 16, SPAN + "0", "g", "", "é"]
)
NEARLY = st.lists(PIECES, min_size=1, max_size=6).map(lambda pieces: "-".join(pieces).encode())
WELL_FORMED = st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]*)?", fullmatch=True).map(
    str.encode
)
HOSTILE_VALUES = st.none() | st.binary(max_size=80) | NEARLY | st.just(GOOD)
NAMES = st.sampled_from([TRACEPARENT, TRACESTATE, "Traceparent", "sliceflow-strict"]) | st.text(max_size=8)


class _FromHeaders(Getter[Sequence[tuple[str, str]]]):
    """Gives OpenTelemetry's propagator the values of a name."""

    def get(self, carrier: Sequence[tuple[str, str]], key: str) -> list[str] | None:
        """All values of a name."""
        return [value for name, value in carrier if name == key] or None

    def keys(self, carrier: Sequence[tuple[str, str]]) -> list[str]:
        """All names."""
        return [name for name, _ in carrier]


def oracle(headers: Headers) -> TraceContext | None:
    """What OpenTelemetry makes of headers in ASCII."""
    carrier = [(name, (value or b"").decode("ascii")) for name, value in headers]
    extracted = TraceContextTextMapPropagator().extract(carrier, Context(), _FromHeaders())
    found = get_current_span(extracted).get_span_context()
    if not found.is_valid:
        return None
    return TraceContext(found.trace_id, found.span_id, int(found.trace_flags), tuple(found.trace_state.items()))


@given(CONTEXTS)
def test_what_is_written_is_read_again(made: TraceContext) -> None:
    headers = headers_of(made)
    assert context_of(headers) == made == oracle(headers)


@given(NEARLY.filter(bytes.isascii) | WELL_FORMED)
def test_one_header_means_what_it_means_to_opentelemetry(value: bytes) -> None:
    headers = [(TRACEPARENT, value)]
    assert context_of(headers) == oracle(headers)


@given(st.lists(st.sampled_from([b"a=1", b"b=2", b"a=3", b"", b" c=4 ", b"d", b"E=5", b"x@y=6", b"f=g=h"]), max_size=5))
def test_states_mean_what_they_mean_to_opentelemetry(states: list[bytes]) -> None:
    headers = [(TRACEPARENT, GOOD), *((TRACESTATE, state) for state in states)]
    assert context_of(headers) == oracle(headers)


@given(st.lists(st.tuples(NAMES, HOSTILE_VALUES), max_size=5))
def test_no_headers_whatsoever_are_an_error(headers: Headers) -> None:
    found = context_of(headers)
    if found is not None:
        assert 0 < found.trace_id < 2**128
        assert 0 < found.span_id < 2**64
        assert context_of(headers_of(found)) is not None


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        GOOD[:-1],
        GOOD + b"0",
        GOOD + b"-more",
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.upper(),
        GOOD.replace(b"7", b"g"),
        GOOD.replace(b"7", "７".encode()),
        b"ff" + GOOD[2:],
        b"01" + GOOD[2:] + b"-\xff",
        b"01" + GOOD[2:] + b"-" + b"x" * MAX_FURTHER_BYTES,
        GOOD * 20_000,
        b"00-" + b"0" * 32 + GOOD[35:],
        GOOD[:36] + b"0" * 16 + b"-01",
    ],
)
def test_a_bad_traceparent_is_no_trace(value: bytes) -> None:
    assert context_of([(TRACEPARENT, value)]) is None


def test_two_traceparents_are_no_trace_and_names_are_exact() -> None:
    assert context_of([]) is None
    assert context_of([(TRACEPARENT, GOOD), (TRACEPARENT, GOOD)]) is None
    assert context_of([("Traceparent", GOOD)]) is None
    assert context_of([("other", b"x"), (TRACEPARENT, GOOD)]) == FOUND


def test_a_later_version_is_read_as_far_as_it_is_known_and_answered_in_ours() -> None:
    later = context_of([(TRACEPARENT, b"cc" + GOOD[2:-2] + b"ff-what-comes-later")])
    assert later is not None
    assert (later.trace_id, later.span_id, later.is_sampled) == (FOUND.trace_id, FOUND.span_id, True)
    assert headers_of(later) == [(TRACEPARENT, GOOD[:-2] + b"03")]


@pytest.mark.parametrize(
    "states",
    [
        [b"a=1,a=2"],
        [b"a=1", b"a=2"],
        [b"a=1,=2"],
        [b"a=\xff"],
        ["a=é".encode()],
        [b"a=1\r\nX: y"],
        [b"a=" + b"x" * MAX_STATE_BYTES],
        [b",".join(b"k%d=v" % number for number in range(MAX_STATE_MEMBERS + 1))],
        [None],
    ],
)
def test_a_bad_tracestate_is_left_out_and_the_trace_goes_on(states: list[bytes]) -> None:
    assert context_of([(TRACEPARENT, GOOD), *((TRACESTATE, state) for state in states)]) == FOUND


def test_a_full_tracestate_is_carried_on() -> None:
    state = b",".join(b"k%d=v" % number for number in range(MAX_STATE_MEMBERS))
    found = context_of([(TRACEPARENT, GOOD), (TRACESTATE, state)])
    assert found is not None
    assert headers_of(found) == [(TRACEPARENT, GOOD), (TRACESTATE, state)]
