"""The arithmetic of the latency measurement: what is sent, which list answers an event, what the hops are."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import MARK_KEY
from stream_app.topic_reader import StoredRecord
from tests.bench.latency import Appended, Load, RunResult, answer_of, hop_rows, result_of, waits_ms

APPENDED = st.builds(
    Appended, st.sampled_from(["u", "v", "w"]), st.integers(min_value=0, max_value=12), st.integers(0, 1000)
)


def waits_one_by_one(events: list[Appended], answers: list[Appended]) -> list[float]:
    """The slow oracle: for each event look through all answers."""
    waits = []
    for event in events:
        holding = [one for one in answers if one.user_id == event.user_id and one.offset >= event.offset]
        waits.append(float(holding[0].append_ms - event.append_ms) if holding else float("nan"))
    return waits


@given(st.lists(APPENDED, max_size=20), st.lists(APPENDED, max_size=20))
def test_each_event_counts_with_the_first_answer_that_holds_it(events: list[Appended], answers: list[Appended]) -> None:
    np.testing.assert_array_equal(waits_ms(events, answers), waits_one_by_one(events, answers))


def test_an_event_without_a_list_of_its_own_counts_with_the_next() -> None:
    events = [Appended("u", 3, 100), Appended("v", 4, 101), Appended("u", 5, 104), Appended("u", 6, 110)]
    answers = [Appended("u", 5, 112), Appended("v", 2, 113), Appended("v", 4, 120)]
    np.testing.assert_array_equal(waits_ms(events, answers), [12, 19, 8, np.nan])


def test_the_load_is_even_seeded_and_of_known_users() -> None:
    load = Load(rate=200, seconds=3, seed=7)
    events = load.events(["u", "v"], ["a", "b", "c"], start_ms=1_000)
    assert events == load.events(["u", "v"], ["a", "b", "c"], start_ms=1_000)
    assert events != Load(200, 3, seed=8).events(["u", "v"], ["a", "b", "c"], start_ms=1_000)
    assert [event.ts for event in events] == [1_000 + 5 * place for place in range(600)]
    assert {event.user_id for event in events} == {"u", "v"}
    assert {event.item_id for event in events} == {"a", "b", "c"}


def test_hops_add_up_to_the_way() -> None:
    stages_ms_ES = np.array([[2.0, 5.0, 9.0], [4.0, 9.0, 15.0], [1.0, np.nan, np.nan]])
    assert hop_rows(stages_ms_ES) == [
        ["events -> slices", "3.0", "3.9", "4.0", "3.0"],
        ["slices -> slice-vectors", "4.0", "4.9", "5.0", "4.0"],
        ["slice-vectors -> recommendations", "5.0", "5.9", "6.0", "5.0"],
    ]


def test_figures_are_the_median_of_the_runs() -> None:
    def run(*latencies_ms: float) -> RunResult:
        return RunResult(np.array([[1.0, 2.0, latency] for latency in latencies_ms]), len(latencies_ms), 0.5)

    result = result_of(Load(2, 1, 0), [run(10, 10), run(14, 14), run(90, 90)])
    p50 = result.figures["p50_ms"]
    assert (p50.value, p50.spread, p50.reached) == (14.0, (10.0, 90.0), True)
    assert result.figures["events"].value == 6
    assert result.is_sound


def test_an_event_without_an_answer_is_told() -> None:
    lost = RunResult(np.array([[1.0, 2.0, 3.0], [1.0, np.nan, np.nan]]), 1, 0.0)
    result = result_of(Load(2, 1, 0), [lost])
    assert result.figures["unanswered"].value == 1
    assert not result.is_sound


def record(key: bytes, value: bytes) -> StoredRecord:
    return StoredRecord("slices", 0, 3, 1_000, key, value, ())


def test_marks_and_what_asks_for_no_list_answer_nothing() -> None:
    asking = b'{"user_id":"u","partition":0,"offset":7,"fresh":true}'
    assert answer_of(record(b"u", asking)) == Appended("u", 7, 1_000)
    assert answer_of(record(b"u", asking.replace(b"true", b"false"))) is None
    assert answer_of(record(MARK_KEY, b'{"partition":0,"epoch":4,"strict":false}')) is None
