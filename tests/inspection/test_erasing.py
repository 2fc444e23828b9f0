"""Inspecting a user who was erased: the erasure is shown, and what is made of the user begins behind it."""

from __future__ import annotations

from stream_app.inspection.trace import APPLIED, ERASED, Trace, trace
from stream_app.records import Erasure, encode
from tests.inspection.cases import SETTINGS, Raw, click, log_of


def erasure(user_id: str, ts: int) -> Raw:
    """The record of an erasure."""
    return Raw(user_id.encode(), encode(Erasure(user_id=user_id, ts=ts)), ts)


def traced(records: list[Raw], until_ms: int | None = None) -> Trace:
    return trace("a", 0, log_of("a", records, until_ms).entries, SETTINGS)


RECORDS = [click("a", "p", 1), click("a", "q", 30), erasure("b", 31), erasure("a", 32), click("a", "r", 60)]


def test_slices_begin_behind_the_erasure_and_all_records_are_shown() -> None:
    made, anew = traced(RECORDS), traced(RECORDS[4:])
    assert [(one.offset, one.outcome, one.ts) for one in made.events] == [
        (0, APPLIED, 1),
        (1, APPLIED, 30),
        (3, ERASED, 32),
        (4, APPLIED, 60),
    ]
    assert [(one.seq, one.revision, one.events) for one in made.revisions] == [
        (one.seq, one.revision, one.events) for one in anew.revisions
    ]
    assert (made.kept, made.closed_by) == (frozenset({0}), {})
    assert made.answered is not None and made.answered.offset == 4


def test_behind_an_erasure_there_is_nothing_and_before_it_all_is_as_it_was() -> None:
    erased = traced(RECORDS, 40)
    assert (erased.revisions, erased.answered, erased.kept) == ([], None, frozenset())
    before = traced(RECORDS, 31)
    assert before.answered is not None and before.answered.offset == 1
