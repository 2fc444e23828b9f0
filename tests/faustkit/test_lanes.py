"""Lanes: order, merging, back-pressure, and letting go."""

from __future__ import annotations

import asyncio

import pytest

from stream_app.faustkit import lanes
from stream_app.faustkit.lanes import MAX_WAITING_RUNS, Lane
from stream_app.faustkit.run import MAX_RUN_RECORDS, Run

MAX_WAITING = MAX_WAITING_RUNS * MAX_RUN_RECORDS


def run_at(offset: int, num_records: int = 1) -> Run:
    """Records with offsets from `offset` on; each value is its offset."""
    offsets = list(range(offset, offset + num_records))
    return Run(
        topic="t",
        partition=0,
        offsets=offsets,
        keys=[b"k"] * num_records,
        values=[b"%d" % number for number in offsets],
        timestamps_ms=offsets,
        headers=[()] * num_records,
    )


class Handler:
    """Notes the runs it is given; each waits until it is let through."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.gate = asyncio.Semaphore(0)

    async def __call__(self, run: Run) -> None:
        self.runs.append(run)
        await self.gate.acquire()


def new_lane(handler: Handler, told: list[str] | None = None) -> Lane:
    """A lane that notes in `told` when it is full and when it has room again."""
    notes = [] if told is None else told
    return Lane(handler, on_full=lambda: notes.append("full"), on_room=lambda: notes.append("room"))


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_came_in_meanwhile_is_one_run_in_order() -> None:
    async def scenario() -> list[Run]:
        handler = Handler()
        lane = new_lane(handler)
        for offset in range(5):
            lane.put(run_at(offset))
            await settle()
        handler.gate.release()
        await settle()
        return handler.runs

    first, second = asyncio.run(scenario())
    assert (first.offsets, second.offsets) == ([0], [1, 2, 3, 4])
    assert second.values == [b"1", b"2", b"3", b"4"] and second.next_offset == 5


def test_a_run_is_never_merged_beyond_its_bound() -> None:
    async def scenario() -> list[int]:
        handler = Handler()
        lane = new_lane(handler)
        lane.put(run_at(0))
        await settle()
        lane.put(run_at(1, MAX_RUN_RECORDS - 1))
        lane.put(run_at(MAX_RUN_RECORDS, 2))
        for _ in range(2):
            handler.gate.release()
            await settle()
        return [len(run) for run in handler.runs]

    assert asyncio.run(scenario()) == [1, MAX_RUN_RECORDS - 1, 2]


def test_a_full_lane_says_so_once_and_again_when_little_is_left() -> None:
    async def scenario() -> list[list[str]]:
        handler = Handler()
        told: list[str] = []
        lane = new_lane(handler, told)
        lane.put(run_at(0))
        await settle()
        seen = []
        for number in range(MAX_WAITING_RUNS + 1):
            lane.put(run_at(1 + number * MAX_RUN_RECORDS, MAX_RUN_RECORDS))
            seen.append(list(told))
        lane.put(run_at(1 + (MAX_WAITING_RUNS + 1) * MAX_RUN_RECORDS, MAX_RUN_RECORDS))  # was on its way already
        for _ in range(4):
            handler.gate.release()
            await settle()
            seen.append(list(told))
        assert sum(map(len, handler.runs)) == 1 + 4 * MAX_RUN_RECORDS
        return seen

    full, room = ["full"], ["full", "room"]
    # Four full runs wait when the first of seven steps is done; with one of them left there is room.
    assert asyncio.run(scenario()) == [[], [], full, full, full, room, room]


def test_closing_finishes_the_run_in_work_and_forgets_the_rest() -> None:
    async def scenario() -> list[list[int]]:
        handler = Handler()
        lane = new_lane(handler)
        lane.put(run_at(0))
        await settle()
        lane.put(run_at(1))
        closing = asyncio.create_task(lane.close())
        await settle()
        assert not closing.done()
        handler.gate.release()
        await closing
        return [list(run.offsets) for run in handler.runs]

    assert asyncio.run(scenario()) == [[0]]


def test_a_run_that_does_not_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "FINISH_S", 0.01)

    async def scenario() -> bool:
        lane = new_lane(Handler())
        lane.put(run_at(0))
        await settle()
        await lane.close()
        return True

    assert asyncio.run(scenario())


def test_a_closed_lane_takes_nothing_more() -> None:
    async def scenario() -> list[list[int]]:
        handler = Handler()
        told: list[str] = []
        lane = new_lane(handler, told)
        lane.put(run_at(0))
        await settle()
        lane.put(run_at(1, MAX_WAITING + 1))
        handler.gate.release()
        await lane.close()
        lane.put(run_at(MAX_WAITING + 2))
        await settle()
        assert told == ["full"]
        return [list(run.offsets) for run in handler.runs]

    # The records from 1 on were forgotten: going on behind them would skip them.
    assert asyncio.run(scenario()) == [[0]]
