"""From rows to records: keys, partitions, times, and the ticks between the events."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.kafka import partition_of
from stream_app.records import STRICT_HEADER, TICK_HEADER
from stream_app.replay.pacing import MAX_LATE_S, SLACK_S, Pacer, Schedule, place_of
from stream_app.replay.planning import MALFORMED_KEY, MAX_TICK_MS, PlannedRecord, ReplayPlan, event_time_ms
from stream_app.replay.readers import Row

EPOCH_MS = 100


def row(user: str, ts: object, kind: str = "click") -> dict[str, Any]:
    """An event of a log."""
    return {"user_id": user, "item_id": "i", "type": kind, "ts": ts}


def tick_of(record: PlannedRecord) -> bytes | None:
    """The mark of a tick; None for an event."""
    return dict(record.headers).get(TICK_HEADER)


def planned(rows: list[Row], num_partitions: int = 3, **fields: Any) -> list[PlannedRecord]:
    """All records of a replay, the last ticks included."""
    plan = ReplayPlan(num_partitions, EPOCH_MS, **fields)
    return [*plan.records_of(rows), *plan.last_ticks()]


def test_an_event_as_a_record() -> None:
    ticks, (event, *_) = planned([row("ann", 1234)])[:3], planned([row("ann", 1234)])[3:]
    assert [tick_of(tick) for tick in ticks] == [b"1200"] * 3
    assert [tick.partition for tick in ticks] == [0, 1, 2]
    assert [(tick.key, tick.value) for tick in ticks] == [(None, b'{"tick":1200}')] * 3
    assert event == PlannedRecord(
        partition_of(b"ann", 3),
        1234,
        b"ann",
        b'{"user_id":"ann","item_id":"i","type":"click","ts":1234}',
        [(STRICT_HEADER, b"1")],
    )


def test_a_replay_ends_with_a_tick_that_lets_go_of_the_clock() -> None:
    assert [tick_of(record) for record in planned([row("ann", 1234)])[-3:]] == [b"1300 last"] * 3


def test_what_is_broken_off_and_goes_on_leaves_the_clock_where_it_was() -> None:
    plan = ReplayPlan(2, EPOCH_MS)
    assert [*plan.release_ticks(), *plan.resume_ticks()] == []
    list(plan.records_of([row("ann", 1234)]))
    assert [tick_of(record) for record in plan.release_ticks()] == [b"1200 last"] * 2
    assert [tick_of(record) for record in plan.resume_ticks()] == [b"1200"] * 2


def test_a_log_without_a_single_time_has_no_ticks() -> None:
    assert [tick_of(record) for record in planned([b"{", row("ann", -5), row("ann", "soon")])] == [None] * 3
    assert planned([]) == []


def test_a_malformed_row_goes_as_it_is() -> None:
    [record] = planned([b"{not json"])
    assert record == PlannedRecord(
        partition_of(MALFORMED_KEY, 3), 0, MALFORMED_KEY, b"{not json", [(STRICT_HEADER, b"1")]
    )


@pytest.mark.parametrize(
    ("ts", "expected"),
    [(0, 0), (17, 17), (-1, 0), (None, 0), ("17", 0), (1.5, 0), (MAX_TICK_MS, 0), (MAX_TICK_MS - 1, MAX_TICK_MS - 1)],
)  # fmt: skip
def test_times_that_are_none_become_0(ts: object, expected: int) -> None:
    assert event_time_ms(row("ann", ts)) == expected
    assert event_time_ms(b"17") == 0


def test_types_and_fields_are_written_as_the_roles_read_them() -> None:
    records = planned(
        [row("ann", 1, "view"), row("ann", 2, "buy")],
        type_map={"view": "browse"},
        fields={"user_id": "visitor"},
    )
    values = [orjson.loads(record.value or b"") for record in records if record.key]
    assert [value["type"] for value in values] == ["browse", "buy"]
    assert values[0] == {"visitor": "ann", "item_id": "i", "type": "browse", "ts": 1}


ROWS = st.lists(
    st.one_of(
        st.builds(row, st.sampled_from(["ann", "bob", "cat", "dan"]), st.integers(-50, 2000)),
        st.just(b"{"),
    ),
    max_size=60,
)


@given(ROWS, st.integers(1, 5), st.integers(0, 60))
def test_every_partition_holds_its_events_in_order_with_the_same_ticks(
    rows: list[Row], num_partitions: int, cut: int
) -> None:
    plan = ReplayPlan(num_partitions, EPOCH_MS)
    # How the rows are cut into chunks must not matter.
    records = [*plan.records_of(rows[:cut]), *plan.records_of(rows[cut:]), *plan.last_ticks()]
    assert records == planned(rows, num_partitions)
    lanes: list[list[PlannedRecord]] = [[] for _ in range(num_partitions)]
    for record in records:
        lanes[record.partition].append(record)
    marks = [[tick_of(record) for record in lane if tick_of(record)] for lane in lanes]
    assert all(lane == marks[0] for lane in marks)
    assert [record.value for record in records if not tick_of(record)] == [
        one if isinstance(one, bytes) else orjson.dumps(one) for one in rows
    ]
    assert plan.counted.num_events == len(rows)
    assert plan.counted.num_malformed == rows.count(b"{")


@given(ROWS)
def test_a_tick_comes_after_all_earlier_events_and_before_those_of_its_epoch(rows: list[Row]) -> None:
    """Beside a slow oracle: ticks are the times at which the newest epoch so far grows."""
    ticked_ms, newest = -1, -1
    for record in planned(rows, 1):
        mark = tick_of(record)
        if mark is None:
            epoch = record.timestamp_ms // EPOCH_MS if record.timestamp_ms else -1
            newest = max(newest, epoch)
            assert newest * EPOCH_MS <= ticked_ms
            continue
        ms = int(mark.split()[0])
        assert ms > ticked_ms and ms % EPOCH_MS == 0
        # All events of the epochs before were sent, and none of this one.
        assert newest < ms // EPOCH_MS
        ticked_ms = ms


# ---------------------------------------------------------------- pacing


def test_without_a_speed_everything_is_due_at_once() -> None:
    rows: list[Row] = [row("ann", 5), row("ann", 10**9)]
    assert list(Pacer(None).groups(rows)) == [(0.0, rows)]


def test_events_are_due_by_their_own_times() -> None:
    rows: list[Row] = [row("a", 1000), row("a", 1010), b"{", row("a", 61_000), row("a", 500), row("a", 121_000)]
    pacer = Pacer(60.0)
    groups = [*pacer.groups(rows[:3]), *pacer.groups(rows[3:])]
    assert [due_s for due_s, _ in groups] == pytest.approx([0.0, 1.0, 2.0])
    assert [len(listed) for _, listed in groups] == [3, 2, 1]


@given(ROWS, st.floats(0.01, 100))
def test_pacing_loses_nothing_and_never_goes_back(rows: list[Row], factor: float) -> None:
    groups = list(Pacer(factor).groups(rows))
    assert [one for _, listed in groups for one in listed] == rows
    times = [due_s for due_s, _ in groups]
    assert all(later - earlier > SLACK_S for earlier, later in pairwise(times))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_schedule_waits_until_things_are_due() -> None:
    clock = Clock()
    schedule = Schedule(clock)
    assert schedule.wait_s(0.0) == 0.0
    assert schedule.wait_s(2.5) == pytest.approx(2.5)
    clock.now_s += 2.0
    assert schedule.wait_s(2.5) == pytest.approx(0.5)


def test_after_standing_still_nothing_is_made_up_for() -> None:
    clock = Clock()
    schedule = Schedule(clock)
    clock.now_s += 3600.0  # Ctrl-Z, and an hour later fg
    assert schedule.wait_s(5.0) == 0.0
    assert schedule.wait_s(6.0) == pytest.approx(1.0)
    clock.now_s += 1.0 + MAX_LATE_S * 0.9
    assert schedule.wait_s(6.0) == 0.0
    # A small delay is made up for.
    assert schedule.wait_s(8.0) == pytest.approx(2.0 - MAX_LATE_S * 0.9)


def test_the_place_of_a_time() -> None:
    rows: list[Row] = [row("a", 5), b"{", row("a", 20), row("a", 10)]
    assert [place_of(rows, time_ms) for time_ms in (0, 5, 6, 20, 21)] == [0, 0, 2, 2, 4]
