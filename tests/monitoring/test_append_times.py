"""The time of the oldest event, found on `events`, carried behind a run's outputs, found again by the next role."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.faustkit import OutRecord, Run
from stream_app.monitoring.append_times import APPENDED_HEADER, carry_on, oldest_carried, oldest_live
from stream_app.records import MARK_KEY, STRICT_HEADER, TICK_HEADER
from tests.examples import examples

Headers = list[tuple[str, bytes | None]]


def run_of(times_ms: list[int], headers: list[Headers]) -> Run:
    """A run of as many records."""
    places = range(len(times_ms))
    return Run("events", 0, list(places), [b"k"] * len(places), [b"v"] * len(places), times_ms, headers)


@given(st.lists(st.integers(0, 2**42), min_size=1, max_size=8))
@examples(20)
def test_the_oldest_live_event_counts_and_foreign_headers_do_not(times_ms: list[int]) -> None:
    headers: list[Headers] = [[("traceparent", b"00-1")] for _ in times_ms]
    assert oldest_live(run_of(times_ms, headers)) == sorted(times_ms)[0]


def test_a_replay_has_no_append_times() -> None:
    for name in (STRICT_HEADER, TICK_HEADER):
        assert oldest_live(run_of([5, 6], [[], [(name, b"7")]])) is None


@given(st.lists(st.none() | st.integers(0, 2**42), min_size=1, max_size=8))
@examples(20)
def test_what_is_carried_on_is_found_again(times_ms: list[int | None]) -> None:
    headers: list[Headers] = []
    for time_ms in times_ms:
        carried = carry_on([OutRecord("slices", 0, b"ann", b"{}")], "slices", time_ms)
        headers.append(list(carried[0].headers))
    known = [time_ms for time_ms in times_ms if time_ms is not None]
    assert oldest_carried(run_of([0] * len(times_ms), headers)) == (min(known) if known else None)


def test_the_last_record_of_the_topic_that_is_no_mark_carries_it() -> None:
    outputs = [
        OutRecord("slices", 0, b"ann", b"{}"),
        OutRecord("slices", 0, b"bob", b"{}", [("other", b"1")]),
        OutRecord("slices", 0, MARK_KEY, b"{}"),
        OutRecord("item-activity", 0, b"i1", b"{}"),
    ]
    carried = carry_on(outputs, "slices", 12)
    assert [list(record.headers) for record in carried] == [[], [("other", b"1"), (APPENDED_HEADER, b"12")], [], []]
    assert carry_on(outputs[2:], "slices", 12) == outputs[2:]
    assert carry_on(outputs, "slices", None) == outputs


def test_what_is_no_time_is_ignored() -> None:
    for text in (b"", b"-1", b"soon", b"9" * 16, "²".encode()):
        assert oldest_carried(run_of([0], [[(APPENDED_HEADER, text)]])) is None
