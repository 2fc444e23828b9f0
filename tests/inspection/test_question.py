"""What an inspection is asked for, and what it answers where there is nothing to show."""

from __future__ import annotations

import pytest

from stream_app.errors import SliceflowError, UsageError
from stream_app.inspection.question import Question, check_found, offsets_without, parse_time, shown_time
from stream_app.inspection.trace import TracedEvent
from tests.inspection.cases import click, log_of

NOON_MS = 1_717_156_800_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0", 0),
        (str(NOON_MS), NOON_MS),
        ("2024-05-31T12:00:00Z", NOON_MS),
        ("2024-05-31T12:00:00", NOON_MS),
        ("2024-05-31T14:00:00.250+02:00", NOON_MS + 250),
        ("2024-05-31", NOON_MS - 12 * 3_600_000),
    ],
)
def test_times(text: str, ms: int) -> None:
    assert parse_time(text) == ms
    assert parse_time(shown_time(ms)) == ms


@pytest.mark.parametrize("text", ["noon", "", "-1", "²", "2024-13-01", "1e3"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--at"):
        parse_time(text)


def test_a_time_beyond_the_calendar_is_shown_as_it_is() -> None:
    assert shown_time(10**18) == str(10**18)


def test_an_unknown_user_and_a_time_too_early_are_told_apart() -> None:
    records = [click("a", "p", NOON_MS)]
    check_found(Question("a"), log_of("a", records), "log")
    with pytest.raises(SliceflowError, match="no event of the user 'b' in log"):
        check_found(Question("b", NOON_MS), log_of("b", records, NOON_MS), "log")
    early = NOON_MS - 1000
    with pytest.raises(SliceflowError, match=r"first event .* 2024-05-31T12:00:00Z, after 2024-05-31T11:59:59Z"):
        check_found(Question("a", early), log_of("a", records, early), "log")


def test_an_event_is_named_by_its_id_or_offset() -> None:
    def traced(offset: int, event_id: str | None = None) -> TracedEvent:
        return TracedEvent(offset=offset, outcome="applied", event_id=event_id)

    events = [traced(3, "7"), traced(5), traced(7), traced(9, "7")]
    assert offsets_without("5", events) == {5}
    assert offsets_without("7", events) == {3, 9}, "an id goes before an offset, and names every record that has it"
    with pytest.raises(UsageError, match=r"--without 4 .* 4 records .* 3, 5, 7, 9"):
        offsets_without("4", events)
