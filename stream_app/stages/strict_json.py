"""Strict JSON: one meaning or a refusal.

Python's reader lets pass what two readers may understand differently: keys given twice, NaN, halves of
surrogate pairs, nesting without end. Here each of them is refused, with a reason. So are fields of another kind than
expected, and times that are none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 32
"""Deepest nesting of a whole value, ignored fields included."""

MAX_INT_DIGITS: Final = 20
"""Longest integer read as one (2**64 has 20 digits): longer ones cost quadratic time and mean nothing."""

SHOWN_CHARS: Final = 80
"""How many characters of a payload a detail may show, escapes included."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_UNIX_START: Final = datetime(1970, 1, 1, tzinfo=UTC)

TYPE_NAMES: Final[Mapping[type, str]] = {
    str: "text",
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
"""What a JSON value is called in a detail."""


@dataclass(frozen=True)
class Rejection:
    """Why a record is no event.

    `reason` is a stable snake_case class, fit for a header or a metric label; `detail` says what was seen and
    what was expected, with at most `SHOWN_CHARS` escaped characters of the payload.
    """

    reason: str
    detail: str


class RefusedError(Exception):
    """Carries a rejection out of the reading functions; it never leaves the stage."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(reason, detail)


def refuse(reason: str, detail: str) -> NoReturn:
    """Give up on this record.

    Raises:
        RefusedError: Always, with that rejection.
    """
    raise RefusedError(reason, detail)


def shown(seen: object, max_chars: int = SHOWN_CHARS) -> str:
    """At most `max_chars` printable ASCII characters of what was seen; of objects only what they are."""
    if isinstance(seen, bytes):
        escaped = repr(seen[:max_chars])[2:-1]
    elif isinstance(seen, str):
        escaped = ascii(seen[:max_chars])[1:-1]
    elif isinstance(seen, (int, float, bool)) or seen is None:
        escaped = json.dumps(seen)
    else:
        return TYPE_NAMES.get(type(seen), "something else")
    return escaped if len(escaped) <= max_chars else escaped[: max_chars - 3] + "..."


def utf8_text(what: str, data: bytes) -> str:
    """The text in `data`, which the rejection calls `what`.

    Raises:
        RefusedError: `bad_utf8`.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        around = shown(data[max(0, error.start - 8) : error.start + 8])
        refuse("bad_utf8", f"the {what} is no UTF-8 at byte {error.start}, near {around}")


def strict_object(text: str) -> dict[str, Any]:
    """The JSON object in `text`, read strictly.

    Raises:
        RefusedError: `not_json`, `not_finite`, `duplicate_key`, `bad_utf8` (half a surrogate pair),
            `too_deep` or `not_an_object`. Numbers too large to read are no error here: they come out as infinity.

    Cost: O(len(text)); nesting is bounded by Python's recursion limit, which gives `too_deep`.
    """
    try:
        document = _STRICT_JSON.decode(text)
    except json.JSONDecodeError as error:
        around = shown(text[max(0, error.pos - 8) : error.pos + 8])
        refuse("not_json", f"{error.msg} at character {error.pos}, near {around or 'the end'}")
    except RecursionError:
        refuse("too_deep", f"the value is nested hundreds of levels deep; at most {MAX_DEPTH} are read")
    _check_depth_and_text(document)
    if not isinstance(document, dict):
        refuse("not_an_object", f"the value is {TYPE_NAMES[type(document)]}; expected a JSON object")
    return document


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                refuse("duplicate_key", f"an object names the key {shown(name)} more than once")
            seen.add(name)
    return made


def _no_constant(name: str) -> NoReturn:
    refuse("not_finite", f"{name} is no JSON number; expected a finite number")


def _bounded_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else math.inf


_STRICT_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_int=_bounded_int
)


def _check_depth_and_text(document: Any) -> None:
    waiting = [(document, 1)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, str):
            if _SURROGATE.search(node):
                refuse("bad_utf8", f"the text {shown(node)} holds half a surrogate pair, which is no character")
        elif isinstance(node, (dict, list)):
            if depth > MAX_DEPTH:
                refuse("too_deep", f"the value is nested more than {MAX_DEPTH} levels deep")
            waiting.extend((child, depth + 1) for child in node)
            if isinstance(node, dict):
                waiting.extend((child, depth + 1) for child in node.values())


def wrong_type(name: str, seen: object, expected: str) -> NoReturn:
    """Refuse a field for what is seen in it."""
    if isinstance(seen, float) and math.isinf(seen):
        refuse(
            "number_out_of_range",
            f"the field {shown(name)} is a number too large to read; expected {expected}",
        )
    refuse("wrong_type", f"the field {shown(name)} is {TYPE_NAMES[type(seen)]}; expected {expected}")


def timestamp_ms(seen: Any, name: str) -> int:
    """Milliseconds since 1970 of an integer or an RFC 3339 text with a zone; parts below 1 ms are cut off."""
    if isinstance(seen, int) and not isinstance(seen, bool):
        return seen
    if not isinstance(seen, str):
        wrong_type(name, seen, "integer milliseconds since 1970, or RFC 3339 text")
    if (parts := _RFC3339.fullmatch(seen)) is None:
        refuse(
            "bad_timestamp",
            f"the field {shown(name)} is {shown(seen)}; expected like 2024-05-31T12:00:00.000Z",
        )
    day, time, fraction, zone = parts.groups()
    try:
        whole = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError as error:
        refuse("bad_timestamp", f"the field {shown(name)} is {shown(seen)}, which is no time: {error}")
    return (whole - _UNIX_START) // timedelta(milliseconds=1) + int((fraction or "0")[:3].ljust(3, "0"))
