"""Cleaning: the bytes of one record on `events` become an `Event`, or a `Rejection` that names its class.

Two paths, one answer. `clean_thoroughly` is the definition: it reads the JSON strictly and knows every
reason. `clean_event` first tries a typed decode, and keeps its result only where cheap counts prove that the
thorough path would have said the same; everything doubtful takes the thorough path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from stream_app.records import ERASE_TYPE, Erasure, Event
from stream_app.stages.strict_json import (
    SHOWN_CHARS,
    RefusedError,
    Rejection,
    refuse,
    shown,
    strict_object,
    timestamp_ms,
    utf8_text,
    wrong_type,
)

__all__ = ["CleanRules", "Rejection", "clean_erasure", "clean_event", "clean_thoroughly", "may_be_erasure"]

MAX_VALUE_BYTES: Final = 64 * 1024
"""Longest value. A real event has 100 to 1,000 bytes; 64 KiB still fits hundreds in one fetch of 16 MiB."""

MAX_ID_CHARS: Final = 256
"""Longest id. Ids are keys of tables and topics; UUIDs have 36 characters, URLs used as ids up to 200."""

MAX_QUERY_CHARS: Final = 1024
"""Longest search query. Text encoders read about 512 word pieces, so more would be cut anyway."""

MAX_CONTEXT_DEPTH: Final = 8
"""Deepest nesting inside `context` (which itself is depth 1): its readers walk it recursively."""

MAX_NUMBER: Final = 1e15
"""Largest price or quantity: above it float64 no longer tells cents apart."""

ID_FIELDS: Final = ("user_id", "item_id", "event_id", "session_id", "recommendation_id")
REQUIRED_FIELDS: Final = ("user_id", "item_id", "type", "ts")

_ERASE_TYPE: Final = ERASE_TYPE.encode()
_ESCAPED_LETTER: Final = b"\\u00"
"""One of these two is in every erasure: its type, or a letter of it that is escaped."""

_NUM_FIELDS: Final = len(Event.__struct_fields__)
_SPACED_COLONS: Final = (b" :", b"\t:", b"\n:", b"\r:")


@dataclass(frozen=True)
class CleanRules:
    """What an event must look like.

    Args:
        event_types: The accepted types (with their weights, which are not used here).
        max_future_ms: How far the event time may be ahead of the record's own time, in milliseconds.
        field_map: Our field name to the producers' field name, where they differ.

    Raises:
        ValueError: The field map names no field of ours, or gives two of ours the same producer field; or an event
            type is that of erasures.
    """

    event_types: Mapping[str, float]
    max_future_ms: int
    field_map: Mapping[str, str] = field(default_factory=dict)
    _decoder: msgspec.json.Decoder[Event] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.field_map) - set(Event.__struct_fields__)):
            raise ValueError(f"the field map names {', '.join(unknown)}, which no event has")
        names = [self.producer_name(name) for name in Event.__struct_fields__]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the field map gives {', '.join(twice)} to two fields of ours")
        if ERASE_TYPE in self.event_types:
            raise ValueError(f"no event type may be called {ERASE_TYPE}, which asks for a user to be erased")
        object.__setattr__(self, "_decoder", msgspec.json.Decoder(_struct_for(self.field_map)))

    def producer_name(self, name: str) -> str:
        """The producers' name of our field `name`."""
        return self.field_map.get(name, name)

    def decode(self, value: bytes) -> Event:
        """A typed decode of `value`, without any check of contents.

        Raises:
            ValueError: The value is no such JSON.
            RecursionError: The value is nested too deeply.
        """
        event = self._decoder.decode(value)
        if not self.field_map:
            return event
        return Event(**dict(zip(Event.__struct_fields__, msgspec.structs.astuple(event), strict=True)))


def clean_event(key: bytes | None, value: bytes | None, record_ts_ms: int, rules: CleanRules) -> Event | Rejection:
    """The event in one record, or why there is none; never raises, whatever the bytes.

    Args:
        key: The record's key, which must be the user id in UTF-8.
        value: The record's value, a JSON object.
        record_ts_ms: The record's own time, milliseconds since 1970.
        rules: What an event must look like.

    Cost: O(len(value)); the same answer as `clean_thoroughly`, several times sooner for a plain good event.
    """
    if key is not None and value is not None and len(value) <= MAX_VALUE_BYTES:
        event = _clean_quickly(key, value, record_ts_ms, rules)
        if event is not None:
            return event
    return clean_thoroughly(key, value, record_ts_ms, rules)


def clean_thoroughly(key: bytes | None, value: bytes | None, record_ts_ms: int, rules: CleanRules) -> Event | Rejection:
    """What `clean_event` must answer: the slow definition, and the only place where rejections are made."""
    try:
        user_key, text = _texts(key, value)
        return _event_of(strict_object(text), user_key, record_ts_ms, rules)
    except RefusedError as refused:
        return refused.rejection


def may_be_erasure(value: bytes | None) -> bool:
    """Whether a value may be an erasure; most events are not in doubt."""
    return value is not None and (_ERASE_TYPE in value or _ESCAPED_LETTER in value)


def clean_erasure(
    key: bytes | None, value: bytes | None, record_ts_ms: int, rules: CleanRules
) -> Erasure | Rejection | None:
    """The erasure in one record, or why it is refused; None where the record is of no such type. Never raises.

    Arguments as of `clean_event`. Cost: two looks for a few bytes, where the record is of another type.
    """
    if not may_be_erasure(value):
        return None
    try:
        user_key, text = _texts(key, value)
        document = strict_object(text)
        if document.get(rules.producer_name("type")) != ERASE_TYPE:
            return None
        return _erasure_of(document, user_key, record_ts_ms, rules)
    except RefusedError as refused:
        return refused.rejection


# ---------------------------------------------------------------- the quick path


def _struct_for(field_map: Mapping[str, str]) -> type[Event]:
    """`Event` itself, or a struct of the same fields that reads the producers' names."""
    if not field_map:
        return Event
    fields: list[Any] = []
    for info in msgspec.structs.fields(Event):
        fields.append((info.name, info.type) if info.required else (info.name, info.type, None))
    mapped: Any = msgspec.defstruct("MappedEvent", fields, frozen=True, kw_only=True, rename=dict(field_map))
    return mapped  # type: ignore[no-any-return]  # same fields; `CleanRules.decode` makes a true Event of it


def _clean_quickly(key: bytes, value: bytes, record_ts_ms: int, rules: CleanRules) -> Event | None:
    """The event, where it is good beyond doubt; None says nothing but "look closer"."""
    if b"\\u0000" in value or value.count(b"{") + value.count(b"[") > MAX_CONTEXT_DEPTH:
        return None
    try:
        event = rules.decode(value)
        if event.user_id.encode("utf-8") != key:
            return None
    except (ValueError, RecursionError):
        return None
    if not 0 <= event.ts <= record_ts_ms + rules.max_future_ms or event.type not in rules.event_types:
        return None
    if not event.user_id or not event.item_id:
        return None
    num_seen = _NUM_FIELDS - msgspec.structs.astuple(event).count(None)
    if num_seen > len(REQUIRED_FIELDS):
        if not _optionals_hold(event):
            return None
        num_seen += _num_keys(event.context)
    if len(value) > MAX_ID_CHARS and not _lengths_hold(event):
        return None
    # As many colons as keys seen: there is no room for a second key of the same name, nor for an ignored field,
    # the only place where the decoder would not notice bad UTF-8. `_keys_differ` reads those as well.
    return event if value.count(b":") == num_seen or _keys_differ(value) else None


def _optionals_hold(event: Event) -> bool:
    return (
        event.event_id != ""
        and event.session_id != ""
        and event.recommendation_id != ""
        and (event.price is None or abs(event.price) <= MAX_NUMBER)
        and (event.quantity is None or abs(event.quantity) <= MAX_NUMBER)
        and (event.context is None or _context_fault(event.context, 1) is None)
    )


def _lengths_hold(event: Event) -> bool:
    ids = (event.user_id, event.item_id, event.event_id, event.session_id, event.recommendation_id)
    return all(text is None or len(text) <= MAX_ID_CHARS for text in ids) and (
        event.query is None or len(event.query) <= MAX_QUERY_CHARS
    )


def _keys_differ(value: bytes) -> bool:
    """Whether it is proven that no object in `value` names a key twice (False: not proven).

    A key ends in a quote, then a colon, with at most white space between. Where no white space stands before
    any colon, there are at most ``count('":')`` keys; as many distinct ones leave no room for a second.
    """
    if any(spaced in value for spaced in _SPACED_COLONS):
        return False
    try:
        return value.count(b'":') == _num_keys(orjson.loads(value))
    except orjson.JSONDecodeError:
        return False


def _num_keys(node: Any) -> int:
    # Recursion is bounded: the caller has counted the brackets.
    if isinstance(node, dict):
        return len(node) + sum(_num_keys(child) for child in node.values() if isinstance(child, (dict, list)))
    if isinstance(node, list):
        return sum(_num_keys(child) for child in node if isinstance(child, (dict, list)))
    return 0


# ---------------------------------------------------------------- the thorough path


def _texts(key: bytes | None, value: bytes | None) -> tuple[str, str]:
    if value is None:
        refuse("null_value", "the record has no value; expected a JSON object")
    if key is None:
        refuse("null_key", "the record has no key; expected the user id in UTF-8")
    if len(value) > MAX_VALUE_BYTES:
        refuse("value_too_large", f"the value has {len(value)} bytes; at most {MAX_VALUE_BYTES} are read")
    return utf8_text("key", key), utf8_text("value", value)


def _fields_of(document: Mapping[str, Any], required: Sequence[str], rules: CleanRules) -> dict[str, Any]:
    """The values of the document by our field names."""
    found = {
        name: document[theirs] for name in Event.__struct_fields__ if (theirs := rules.producer_name(name)) in document
    }
    for name in required:
        if name not in found:
            refuse("missing_field", f"the field {shown(rules.producer_name(name))} is missing")
    return found


def _erasure_of(document: Mapping[str, Any], user_key: str, record_ts_ms: int, rules: CleanRules) -> Erasure:
    found = _fields_of(document, ("user_id", "ts"), rules)
    if found.get("item_id") is not None:
        refuse("erasure_of_item", f"a record of the type {ERASE_TYPE} names an item; expected the user alone")
    erasure = Erasure(
        user_id=_required_text(found, "user_id", rules),
        ts=timestamp_ms(found["ts"], rules.producer_name("ts")),
        event_id=_text(found, "event_id", rules),
    )
    _check_user(erasure.user_id, user_key)
    _check_time(erasure.ts, record_ts_ms, rules)
    return erasure


def _event_of(document: Mapping[str, Any], user_key: str, record_ts_ms: int, rules: CleanRules) -> Event:
    found = _fields_of(document, REQUIRED_FIELDS, rules)
    event = Event(
        user_id=_required_text(found, "user_id", rules),
        item_id=_required_text(found, "item_id", rules),
        type=_required_text(found, "type", rules),
        ts=timestamp_ms(found["ts"], rules.producer_name("ts")),
        event_id=_text(found, "event_id", rules),
        session_id=_text(found, "session_id", rules),
        query=_text(found, "query", rules),
        price=_number(found, "price", rules),
        quantity=_number(found, "quantity", rules),
        recommendation_id=_text(found, "recommendation_id", rules),
        context=_context(found, rules),
    )
    _check_meaning(event, user_key, record_ts_ms, rules)
    return event


def _check_meaning(event: Event, user_key: str, record_ts_ms: int, rules: CleanRules) -> None:
    _check_user(event.user_id, user_key)
    if event.type not in rules.event_types:
        known = ", ".join(sorted(rules.event_types))
        refuse("unknown_type", f"the type is {shown(event.type)}; accepted are {known}")
    _check_time(event.ts, record_ts_ms, rules)


def _check_user(user_id: str, user_key: str) -> None:
    if user_id != user_key:
        key, user = shown(user_key, SHOWN_CHARS // 2), shown(user_id, SHOWN_CHARS // 2)
        refuse("key_mismatch", f"the key is {key}, the user {user}; they must be equal")


def _check_time(ts: int, record_ts_ms: int, rules: CleanRules) -> None:
    if ts < 0:
        refuse("negative_ts", f"the event time is {ts} ms; expected milliseconds since 1970, not negative")
    if ts > record_ts_ms + rules.max_future_ms:
        refuse(
            "ts_in_future",
            f"the event time {ts} ms is {ts - record_ts_ms} ms after the record's own; "
            f"at most {rules.max_future_ms} ms are allowed",
        )


def _required_text(found: Mapping[str, Any], name: str, rules: CleanRules) -> str:
    text = _text(found, name, rules)
    if text is None:
        wrong_type(rules.producer_name(name), None, "text")
    return text


def _text(found: Mapping[str, Any], name: str, rules: CleanRules) -> str | None:
    text = found.get(name)
    shown_name = rules.producer_name(name)
    if text is None:
        return None
    if not isinstance(text, str):
        wrong_type(shown_name, text, "text")
    if "\0" in text:
        refuse("nul_character", f"the field {shown(shown_name)} holds a NUL character")
    if name in ID_FIELDS and not text:
        refuse("empty_id", f"the field {shown(shown_name)} is empty; leave it out where there is none")
    limit = MAX_ID_CHARS if name in ID_FIELDS else MAX_QUERY_CHARS
    if name != "type" and len(text) > limit:
        refuse(
            "text_too_long",
            f"the field {shown(shown_name)} has {len(text)} characters; at most {limit} are read",
        )
    return text


def _number(found: Mapping[str, Any], name: str, rules: CleanRules) -> float | None:
    number = found.get(name)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        wrong_type(rules.producer_name(name), number, "a number")
    if not abs(number) <= MAX_NUMBER:
        shown_name = shown(rules.producer_name(name))
        refuse(
            "number_out_of_range",
            f"the field {shown_name} is beyond {MAX_NUMBER:.0e}; expected a real amount",
        )
    return float(number)


def _context(found: Mapping[str, Any], rules: CleanRules) -> dict[str, Any] | None:
    context = found.get("context")
    if context is None:
        return None
    if not isinstance(context, dict):
        wrong_type(rules.producer_name("context"), context, "an object")
    if fault := _context_fault(context, 1):
        reason, detail = fault
        refuse(reason, f"in the field {shown(rules.producer_name('context'))}: {detail}")
    return context


def _context_fault(node: Any, depth: int) -> tuple[str, str] | None:
    """Reason and detail of the first fault in `node`, part of a context at `depth`; None where none is."""
    if isinstance(node, str):
        return ("nul_character", f"the text {shown(node)} holds a NUL character") if "\0" in node else None
    if isinstance(node, bool) or node is None:
        return None
    if isinstance(node, int):
        return None if -(2**63) <= node < 2**64 else ("number_out_of_range", "an integer does not fit 64 bits")
    if isinstance(node, float):
        return None if math.isfinite(node) else ("number_out_of_range", "a number is too large to read")
    if depth > MAX_CONTEXT_DEPTH:
        return "too_deep", f"it is nested more than {MAX_CONTEXT_DEPTH} levels deep"
    children = [*node, *node.values()] if isinstance(node, dict) else node
    faults = (_context_fault(child, depth + 1) for child in children)
    return next((fault for fault in faults if fault is not None), None)
