"""Comparing two recordings: the first record that differs, field by field, and how many do.

On one kind of processor equal means equal bytes. On another the last bits of vectors differ, and so may the sixth
decimal of a score, and the order of items whose scores are that close; a tolerance for scores lets that pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import msgspec

from stream_app.recording import Key, Record, RecordedList, RecordedReplay, RecordedSlice, Recording, key_of

MAX_SHOWN_FIELDS: Final = 20
"""Fields shown for people: where an item is missing on top of a list, every line below it differs."""


class Nothing:
    """Stands where one side has no value at all."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING: Final = Nothing()


@dataclass(frozen=True)
class FieldDifference:
    """One field, by its path in the record (``items[3].score``), with both values; `NOTHING` where there is none."""

    path: str
    expected: object
    found: object


@dataclass(frozen=True)
class RecordDifference:
    """One record that differs: what it is, its line in the expected recording (None: not there), and its fields."""

    name: str
    line: int | None
    fields: tuple[FieldDifference, ...]

    def text(self) -> str:
        """For people: a line for each field."""
        where = "" if self.line is None else f" (line {self.line})"
        shown = [
            f"  {field.path}: expected {_shown(field.expected)}, is {_shown(field.found)}"
            for field in self.fields[:MAX_SHOWN_FIELDS]
        ]
        if (left := len(self.fields) - len(shown)) > 0:
            shown.append(f"  and {left} more fields")
        return "\n".join([f"{self.name}{where} differs:", *shown])


@dataclass(frozen=True)
class Comparison:
    """The outcome: how many records the two have together, how many differ, and the first of those."""

    num_records: int
    num_differing: int
    first: RecordDifference | None


def compare(expected: Recording, found: Recording, *, score_tolerance: float = 0.0) -> Comparison:
    """Compare record by record, in the order of a recording; one that only one side has differs too.

    Args:
        expected: What should be.
        found: What is.
        score_tolerance: By how much a score may differ; items of one list that are no further apart may change places.
    """
    num_records, num_differing = 0, 0
    first: RecordDifference | None = None
    for line, one, other in _paired(expected, found):
        num_records += 1
        if isinstance(one, RecordedList) and isinstance(other, RecordedList) and score_tolerance > 0:
            other = _without_rounding(one, other, score_tolerance)
        if one == other:
            continue
        num_differing += 1
        if first is None:
            first = _difference(line, one, other)
    return Comparison(num_records, num_differing, first)


def _without_rounding(expected: RecordedList, found: RecordedList, tolerance: float) -> RecordedList:
    """`found`, with the expected score and place wherever it differs by no more than rounding."""
    scores = {item.item_id: item.score for item in expected.items}
    items = [
        msgspec.structs.replace(item, score=scores[item.item_id])
        if abs(scores.get(item.item_id, math.inf) - item.score) <= tolerance
        else item
        for item in found.items
    ]
    if len(items) == len(scores) == len({item.item_id for item in items} & scores.keys()):
        places = {item.item_id: place for place, item in enumerate(expected.items)}
        steps = (abs(one.score - other.score) for one, other in zip(items, expected.items, strict=True))
        if all(step <= tolerance for step in steps):
            items.sort(key=lambda item: places[item.item_id])
    return msgspec.structs.replace(found, items=items)


def _paired(expected: Recording, found: Recording) -> Iterator[tuple[int | None, Record | None, Record | None]]:
    """Records of the same key side by side, with the line of the expected one; None where a side has none."""
    ones, others = enumerate(expected.records(), start=1), found.records()
    numbered, other = next(ones, None), next(others, None)
    while numbered is not None or other is not None:
        first, second = _key(None if numbered is None else numbered[1]), _key(other)
        takes_one, takes_other = first <= second, second <= first
        line, one = numbered if numbered is not None and takes_one else (None, None)
        yield line, one, other if takes_other else None
        numbered = next(ones, None) if takes_one else numbered
        other = next(others, None) if takes_other else other


def _key(record: Record | None) -> Key:
    """The key of a record; where a side has ended, one that comes after all others."""
    return (3, "", 0) if record is None else key_of(record)


def _difference(line: int | None, one: Record | None, other: Record | None) -> RecordDifference:
    name = _name(one if one is not None else other)
    expected, found = (NOTHING if record is None else msgspec.to_builtins(record) for record in (one, other))
    return RecordDifference(name, line, tuple(_fields("", expected, found)))


def _name(record: Record | None) -> str:
    if isinstance(record, RecordedList):
        return f"The list of user {_shown(record.user_id)}"
    if isinstance(record, RecordedSlice):
        return f"Slice {record.seq} of user {_shown(record.user_id)}"
    assert isinstance(record, RecordedReplay), "one of two compared records is there"
    return "The first line, totals and settings,"


def _fields(path: str, expected: Any, found: Any) -> Iterator[FieldDifference]:
    """The smallest parts that differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in dict.fromkeys([*expected, *found]):
            inner = f"{path}.{name}" if path else str(name)
            yield from _fields(inner, expected.get(name, NOTHING), found.get(name, NOTHING))
    elif isinstance(expected, list) and isinstance(found, list):
        for place, (one, other) in enumerate(zip_longest(expected, found, fillvalue=NOTHING)):
            yield from _fields(f"{path}[{place}]", one, other)
    elif expected != found:
        yield FieldDifference(path or "the record", expected, found)


def _shown(value: object) -> str:
    """A value as ASCII JSON: ids come from others, and could steer the terminal."""
    return "nothing" if isinstance(value, Nothing) else json.dumps(value)
