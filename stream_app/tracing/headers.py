"""The headers that carry a trace from record to record, and from a request: `traceparent` and `tracestate`.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/. Anybody may write such headers, so whatever is not as
it must be is passed over without a word: `traceparent` as if there were no trace, `tracestate` as if it were empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from stream_app.faustkit.run import Headers

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

MAX_FURTHER_BYTES: Final = 256
"""What a later version of `traceparent` may have behind what is known now."""

MAX_STATE_BYTES: Final = 512
"""Longest `tracestate` that is carried on: what the specification asks for, on every record that follows."""

MAX_STATE_MEMBERS: Final = 32
"""Most members of a `tracestate`, by the specification."""

SAMPLED: Final = 0x01
"""The flag of a trace that is recorded."""

KNOWN_FLAGS: Final = SAMPLED | 0x02
"""`SAMPLED`, and that the trace's id is random. Other flags mean nothing yet and must be written as 0."""

_PARENT: Final = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]{0,%d})?" % (MAX_FURTHER_BYTES - 1)
)
_KEY: Final = r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_STATE_VALUE: Final = r"[ -+\--<>-~]{0,255}[!-+\--<>-~]"
_MEMBER: Final = re.compile(f"({_KEY})=({_STATE_VALUE})".encode())
_INVALID_VERSION: Final = b"ff"
_FIRST_VERSION: Final = b"00"


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """A span as it is known to what follows from it.

    Args:
        trace_id: Of its trace, 128 bits, not 0.
        span_id: Its own, 64 bits, not 0.
        flags: Eight bits.
        state: What vendors carry along: keys and values, in order.
    """

    trace_id: int
    span_id: int
    flags: int
    state: tuple[tuple[str, str], ...] = ()

    @property
    def is_sampled(self) -> bool:
        """Whether the trace is recorded."""
        return bool(self.flags & SAMPLED)


def context_of(headers: Headers) -> TraceContext | None:
    """The trace that a record belongs to; None where its headers name none, or not one alone, or not well.

    >>> context_of([("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")]).is_sampled
    True
    >>> context_of([("traceparent", b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01")]) is None
    True
    """
    parents = [value for name, value in headers if name == TRACEPARENT]
    if len(parents) != 1:
        return None
    # Kafka has headers without a value, which come as None.
    match = _PARENT.fullmatch(parents[0] or b"")
    if match is None:
        return None
    version, trace_id, span_id, flags, further = match.groups()
    if version == _INVALID_VERSION or (version == _FIRST_VERSION and further is not None):
        return None
    found = TraceContext(int(trace_id, 16), int(span_id, 16), int(flags, 16))
    if not found.trace_id or not found.span_id:
        return None
    states = [value or b"" for name, value in headers if name == TRACESTATE]
    return msgspec.structs.replace(found, state=_state_of(states)) if states else found


def headers_of(context: TraceContext) -> list[tuple[str, bytes]]:
    """The headers of a record that follows from a span.

    >>> headers_of(TraceContext(10, 11, 1, (("a", "b"),)))
    [('traceparent', b'00-0000000000000000000000000000000a-000000000000000b-01'), ('tracestate', b'a=b')]
    """
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.flags & KNOWN_FLAGS:02x}"
    made = [(TRACEPARENT, parent.encode("ascii"))]
    if context.state:
        made.append((TRACESTATE, ",".join(f"{key}={value}" for key, value in context.state).encode("ascii")))
    return made


def _state_of(values: Sequence[bytes]) -> tuple[tuple[str, str], ...]:
    """The members of all `tracestate` headers together; none where any is wrong, twice there, or beyond a bound."""
    text = b",".join(values)
    if len(text) > MAX_STATE_BYTES:
        return ()
    matches = [_MEMBER.fullmatch(member) for part in text.split(b",") if (member := part.strip(b" \t"))]
    members = [(match[1].decode("ascii"), match[2].decode("ascii")) for match in matches if match is not None]
    is_whole = len({key for key, _ in members}) == len(matches) <= MAX_STATE_MEMBERS
    return tuple(members) if is_whole else ()
