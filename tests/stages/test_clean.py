"""Cleaning: every reason has its record, and the quick path says nothing the thorough path would not."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import SettingsError
from stream_app.records import Event, encode
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules
from stream_app.stages import clean
from stream_app.stages.clean import CleanRules, clean_event, clean_thoroughly
from stream_app.stages.strict_json import SHOWN_CHARS, Rejection, shown
from tests.examples import examples

NOW_MS = 1_717_171_717_000
RULES = CleanRules(event_types={"click": 1.0, "purchase": 3.0}, max_future_ms=1000)
GOOD: Mapping[str, Any] = {"user_id": "ann", "item_id": "book", "type": "click", "ts": NOW_MS}


def body(**changes: Any) -> bytes:
    """A good event with some fields changed, as JSON."""
    return json.dumps({**GOOD, **changes}).encode()


def raw(field: str, text: str) -> bytes:
    """A good event with one more (or another) field, its value written as given."""
    kept = {name: value for name, value in GOOD.items() if name != field}
    return f'{json.dumps(kept)[:-1]}, "{field}": {text}}}'.encode()


def cleaned(value: bytes | None, key: bytes | None = b"ann", rules: CleanRules = RULES) -> Event | Rejection:
    """The answer for one record; both paths are asked, and must agree."""
    answer = clean_event(key, value, NOW_MS, rules)
    assert answer == clean_thoroughly(key, value, NOW_MS, rules)
    return answer


def nested(depth: int) -> dict[str, Any]:
    """An object in an object, `depth` levels in all."""
    made: dict[str, Any] = {}
    for _ in range(depth - 1):
        made = {"in": made}
    return made


REJECTED: dict[str, tuple[bytes | None, str]] = {
    "no value": (None, "null_value"),
    "empty value": (b"", "not_json"),
    "no JSON": (b"hello", "not_json"),
    "cut off": (body()[:-1], "not_json"),
    "something behind": (body() + b"x", "not_json"),
    "byte order mark": (b"\xef\xbb\xbf" + body(), "not_json"),
    "control character as it is": (raw("item_id", '"a\x07b"'), "not_json"),
    "leading zero": (raw("price", "01"), "not_json"),
    "bad UTF-8": (body().replace(b"book", b"b\xffok"), "bad_utf8"),
    "bad UTF-8 in an ignored field": (raw("page", '"?"').replace(b"?", b"\xff"), "bad_utf8"),
    "half a surrogate pair": (raw("item_id", r'"\ud800"'), "bad_utf8"),
    "half a surrogate pair in an ignored field": (raw("page", r'["\udc00"]'), "bad_utf8"),
    "half a surrogate pair in a key": (raw("context", r'{"\ud800": 1}'), "bad_utf8"),
    "too large": (raw("page", '"' + "x" * clean.MAX_VALUE_BYTES + '"'), "value_too_large"),
    "lists without end": (b"[" * 60_000, "too_deep"),
    "objects without end": (b'{"a":' * 10_000, "too_deep"),
    "an ignored field without end": (raw("page", "[" * 30_000 + "]" * 30_000), "too_deep"),
    "an ignored field too deep": (raw("page", "[" * 40 + "]" * 40), "too_deep"),
    "a context too deep": (body(context=nested(9)), "too_deep"),
    "a list": (b"[1, 2]", "not_an_object"),
    "a text": (b'"click"', "not_an_object"),
    "null as JSON": (b"null", "not_an_object"),
    "NaN": (raw("price", "NaN"), "not_finite"),
    "Infinity": (raw("page", "Infinity"), "not_finite"),
    "-Infinity": (raw("ts", "-Infinity"), "not_finite"),
    "a price that overflows": (raw("price", "1e400"), "number_out_of_range"),
    "a price of 400 digits": (raw("price", "9" * 400), "number_out_of_range"),
    "a price beyond all prices": (body(price=1e16), "number_out_of_range"),
    "a time of 400 digits": (raw("ts", "9" * 400), "number_out_of_range"),
    "a time that overflows": (raw("ts", "1e400"), "number_out_of_range"),
    "a context number that overflows": (raw("context", '{"a": [1e400]}'), "number_out_of_range"),
    "a context integer over 64 bits": (raw("context", f'{{"a": {2**64}}}'), "number_out_of_range"),
    "the user twice": (raw("user_id", '"ann", "user_id": "bob"'), "duplicate_key"),
    "the user twice, once escaped": (raw("user_id", r'"ann", "user_\u0069d": "ann"'), "duplicate_key"),
    "an ignored key twice": (raw("page", '1, "page" : 2'), "duplicate_key"),
    "a context key twice": (raw("context", '{"a": 1, "a": 1}'), "duplicate_key"),
    "no user": (json.dumps({**GOOD, "user_id": None}).encode(), "wrong_type"),
    "a fraction of a millisecond": (body(ts=NOW_MS + 0.5), "wrong_type"),
    "a time written as a float": (body(ts=float(NOW_MS)), "wrong_type"),
    "a time that is a boolean": (body(ts=True), "wrong_type"),
    "a price that is a boolean": (body(price=True), "wrong_type"),
    "a price that is text": (body(price="9.99"), "wrong_type"),
    "a quantity that is a list": (body(quantity=[1]), "wrong_type"),
    "a user that is a number": (body(user_id=7), "wrong_type"),
    "an event id that is a number": (body(event_id=7), "wrong_type"),
    "a context that is a list": (body(context=[]), "wrong_type"),
    "an empty user": (body(user_id=""), "empty_id"),
    "an empty item": (body(item_id=""), "empty_id"),
    "an empty event id": (body(event_id=""), "empty_id"),
    "an item too long": (body(item_id="x" * 257), "text_too_long"),
    "a session too long": (body(session_id="x" * 257), "text_too_long"),
    "a query too long": (body(query="x" * 1025), "text_too_long"),
    "NUL in an id": (body(item_id="a\0b"), "nul_character"),
    "NUL in a query": (body(query="\0"), "nul_character"),
    "NUL in a context": (body(context={"a": ["\0"]}), "nul_character"),
    "another user": (body(user_id="bob"), "key_mismatch"),
    "an unknown type": (body(type="stare"), "unknown_type"),
    "a time before 1970": (body(ts=-1), "negative_ts"),
    "a time text before 1970": (body(ts="1969-12-31T23:59:59.999Z"), "negative_ts"),
    "a time too far ahead": (body(ts=NOW_MS + 1001), "ts_in_future"),
    "a time without a zone": (body(ts="2024-05-31T12:00:00"), "bad_timestamp"),
    "a day without a time": (body(ts="2024-05-31"), "bad_timestamp"),
    "a month that is none": (body(ts="2024-13-31T12:00:00Z"), "bad_timestamp"),
    "a time in other digits": (body(ts="٢٠٢٤-05-31T12:00:00Z"), "bad_timestamp"),
}


@pytest.mark.parametrize(("value", "reason"), REJECTED.values(), ids=REJECTED)
def test_each_reason(value: bytes | None, reason: str) -> None:
    answer = cleaned(value)
    assert isinstance(answer, Rejection)
    assert answer.reason == reason, answer.detail
    assert answer.detail.isascii()
    assert answer.detail.isprintable()


@pytest.mark.parametrize("name", clean.REQUIRED_FIELDS)
def test_a_missing_field_is_named(name: str) -> None:
    answer = cleaned(json.dumps({field: value for field, value in GOOD.items() if field != name}).encode())
    assert isinstance(answer, Rejection)
    assert (answer.reason, name in answer.detail) == ("missing_field", True)


@pytest.mark.parametrize(("name", "value"), [("price", "x"), ("query", 1), ("context", 1), ("event_id", {})])
def test_a_wrong_type_names_its_field(name: str, value: object) -> None:
    answer = cleaned(body(**{name: value}))
    assert isinstance(answer, Rejection)
    assert (answer.reason, name in answer.detail) == ("wrong_type", True)


@pytest.mark.parametrize(
    ("key", "reason"),
    [(None, "null_key"), (b"", "key_mismatch"), (b"Ann", "key_mismatch"), (b"\xff", "bad_utf8")],
)
def test_the_key_is_the_user(key: bytes | None, reason: str) -> None:
    answer = cleaned(body(), key)
    assert isinstance(answer, Rejection)
    assert answer.reason == reason


def test_a_full_event_comes_through_whole() -> None:
    event = Event(
        user_id="zoë",
        item_id="a\x07b",
        type="purchase",
        ts=NOW_MS + 1000,
        event_id="e1",
        session_id="s1",
        query='"quoted": yes',
        price=9.99,
        quantity=2.0,
        recommendation_id="r1",
        context={"url": "https://shop/?a:b", "flags": [True, None, 1, 2.5, {"deep": {}}]},
    )
    assert cleaned(encode(event), "zoë".encode()) == event


@pytest.mark.parametrize(
    ("text", "ts_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01.5z", 1500),
        ("1970-01-01 01:00:00.0019+01:00", 1),
        ("1969-12-31T23:00:00.25-01:30", 1_800_250),
    ],
)
def test_times_as_text(text: str, ts_ms: int) -> None:
    answer = cleaned(body(ts=text))
    assert isinstance(answer, Event)
    assert answer.ts == ts_ms


def test_nulls_unknown_fields_and_white_space_change_nothing() -> None:
    plain = cleaned(body())
    assert cleaned(body(page={"url": "a:b"}, price=None, context=None)) == plain
    assert cleaned(raw("page", "1e999")) == plain
    assert cleaned(json.dumps(GOOD, indent=2, separators=(" ,", " : ")).encode()) == plain


def test_a_context_may_be_as_deep_as_the_limit() -> None:
    assert isinstance(cleaned(body(context=nested(clean.MAX_CONTEXT_DEPTH))), Event)


def test_details_show_little_of_the_payload() -> None:
    secret = "s" * 250
    for value in (body(user_id=secret), body(type=secret), body(ts=secret), body()[:-1] + secret.encode()):
        answer = cleaned(value)
        assert isinstance(answer, Rejection)
        assert answer.detail.count("s" * (SHOWN_CHARS + 1)) == 0
        assert len(answer.detail) < 300


@given(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.booleans()))
def test_what_is_shown_is_short_and_printable(seen: object) -> None:
    text = shown(seen)
    assert len(text) <= SHOWN_CHARS
    assert text.isascii()
    assert text.isprintable()


# ---------------------------------------------------------------- any bytes

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["\ud800", "\0"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=12,
)
FIELD_VALUES = st.one_of(
    JSON,
    st.sampled_from(["ann", "book", "click", "", "x" * 257, "2024-05-31T12:00:00Z", NOW_MS, 1.5, 0, -1, 2**70]),
)
FIELDS = st.sampled_from([*Event.__struct_fields__, "page", "visitor"])


@st.composite
def almost_events(draw: st.DrawFn) -> bytes:
    """JSON that is nearly a good event: fields changed, keys given twice, any spacing, bytes changed."""
    pairs = [(name, value) for name, value in GOOD.items() if draw(st.integers(0, 9))]
    pairs += draw(st.lists(st.tuples(FIELDS, FIELD_VALUES), max_size=3))
    colon = draw(st.sampled_from([":", ": ", " :", "\n:\t"]))
    ascii_only = draw(st.booleans())
    written = (f"{json.dumps(name)}{colon}{json.dumps(value, ensure_ascii=ascii_only)}" for name, value in pairs)
    data = bytearray(("{" + ",".join(written) + "}").encode("utf-8", "surrogatepass"))
    if not draw(st.integers(0, 3)):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@examples(400)
@given(almost_events(), st.sampled_from([b"ann", b"", b"x" * 257, None]))
def test_both_paths_agree_on_nearly_good_events(value: bytes, key: bytes | None) -> None:
    assert isinstance(cleaned(value, key), (Event, Rejection))


@examples(300)
@given(st.one_of(st.none(), st.binary(max_size=300)), st.one_of(st.none(), st.binary(max_size=300)))
def test_any_bytes_give_an_answer(key: bytes | None, value: bytes | None) -> None:
    assert isinstance(cleaned(value, key), (Event, Rejection))


@examples(200)
@given(almost_events())
def test_a_cleaned_event_cleans_to_itself(value: bytes) -> None:
    answer = cleaned(value)
    if isinstance(answer, Event):
        assert cleaned(encode(answer)) == answer


HOSTILE = {
    "ten thousand keys, the last one twice": "{" + "".join(f'"{n}":0,' for n in range(7000)) + '"6999":0}',
    "one number of sixty thousand digits": '{"a":' + "9" * 60_000 + "}",
    "escapes without end": '{"a":"' + '\\"' * 30_000,
    "quotes without end": '"' * 60_000,
    "thirty thousand small things": "[" + "[],{}," * 10_000 + "0]",
    "a fraction of sixty thousand digits": '{"a":0.' + "9" * 60_000 + "}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_values_are_refused_in_linear_work(text: str) -> None:
    started = time.process_time()  # CPU time of this process, not the clock: load elsewhere does not count
    assert isinstance(cleaned(text.encode()), Rejection)
    assert time.process_time() - started < 1.0  # quadratic work on these takes tens of seconds


# ---------------------------------------------------------------- the field map

FIELD_MAP = {"user_id": "visitor", "ts": "time", "price": "user_id"}
MAPPED = CleanRules(event_types=RULES.event_types, max_future_ms=1000, field_map=FIELD_MAP)


@examples(200)
@given(almost_events())
def test_a_mapped_event_is_the_same_event(value: bytes) -> None:
    plain = clean_event(b"ann", value, NOW_MS, RULES)
    if not isinstance(plain, Event):
        return
    written = json.loads(encode(plain))
    theirs = {FIELD_MAP.get(name, name): field for name, field in written.items()}
    assert cleaned(json.dumps(theirs).encode(), rules=MAPPED) == plain


def test_a_mapped_rejection_speaks_of_the_producers_field() -> None:
    answer = cleaned(b'{"visitor": "ann", "item_id": "book", "type": "click", "ts": 1}', rules=MAPPED)
    assert answer == Rejection("missing_field", "the field time is missing")


def test_our_own_name_is_an_unknown_field_when_it_is_mapped_away() -> None:
    rules = CleanRules(event_types=RULES.event_types, max_future_ms=1000, field_map={"user_id": "visitor"})
    value = b'{"visitor": "ann", "user_id": 3, "item_id": "book", "type": "click", "ts": 1}'
    assert cleaned(value, rules=rules) == Event(user_id="ann", item_id="book", type="click", ts=1)


@pytest.mark.parametrize("field_map", [{"nope": "x"}, {"user_id": "item_id"}, {"ts": "t", "price": "t"}])
def test_a_map_that_cannot_be_is_refused(field_map: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="field map"):
        CleanRules(event_types={"click": 1.0}, max_future_ms=1, field_map=field_map)


def test_rules_follow_the_settings() -> None:
    rules = clean_rules(Settings(event_types={"play": 1.0}, max_future_s=2.5, fields={"user_id": "who"}))
    assert (rules.event_types, rules.max_future_ms, rules.producer_name("user_id")) == (
        {"play": 1.0},
        2500,
        "who",
    )
    with pytest.raises(SettingsError, match="field map"):
        clean_rules(Settings(fields={"user_id": "item_id"}))
