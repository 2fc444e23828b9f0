"""Lanes: the runs of each partition are worked off in order, partitions beside each other.

A partition that waits for acknowledgements must not hold up the others, and what came in meanwhile is best done at
once: so each partition has a lane, a task that takes all its waiting runs together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from stream_app.faustkit.run import MAX_RUN_BYTES, MAX_RUN_RECORDS, Run, merge_runs

MAX_WAITING_RUNS = 2
"""With more records than so many full runs waiting in a lane, nothing more is taken in: the next run is ready when
this one is done."""

FINISH_S = 5.0
"""How long a run in work may take to finish when its partition is given away: a run takes well under a second, but
one that waits for something (a replayed event for its epoch) could wait longer than the group does for us."""


class Lane:
    """The waiting runs of one partition and the task that handles them.

    Args:
        handle: Handles one run; must not raise.
        max_run_records: Most records of one run.
    """

    def __init__(self, handle: Callable[[Run], Awaitable[None]], max_run_records: int = MAX_RUN_RECORDS) -> None:
        self._handle = handle
        self._max_run_records = max_run_records
        self._max_waiting = MAX_WAITING_RUNS * max_run_records
        self._waiting: deque[Run] = deque()
        self._num_waiting = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._task: asyncio.Task[None] | None = None
        self._num_closings = 0

    async def put(self, run: Run) -> None:
        """Add a run; waits while too much is waiting already, and forgets it if the lane was closed meanwhile."""
        num_closings = self._num_closings
        await self._has_room.wait()
        if num_closings != self._num_closings:
            return
        self._waiting.append(run)
        self._num_waiting += len(run)
        if self._num_waiting > self._max_waiting:
            self._has_room.clear()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off())

    async def close(self) -> None:
        """Forget what waits, and wait for the run in work, at most `FINISH_S`; then it is broken off.

        Breaking off is like dying at that point: nothing of the run was committed, so it is done again.
        """
        self._num_closings += 1
        self._waiting.clear()
        self._num_waiting = 0
        self._has_room.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=FINISH_S)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work_off(self) -> None:
        while self._waiting:
            await self._handle(self._next_run())

    def _next_run(self) -> Run:
        """The waiting runs, as many as fit in one."""
        taken = [self._waiting.popleft()]
        num_records, num_bytes = len(taken[0]), taken[0].num_bytes
        while self._waiting:
            following = self._waiting[0]
            num_records += len(following)
            num_bytes += following.num_bytes
            if num_records > self._max_run_records or num_bytes > MAX_RUN_BYTES:
                break
            taken.append(self._waiting.popleft())
        self._num_waiting -= sum(map(len, taken))
        if self._num_waiting <= self._max_waiting:
            self._has_room.set()
        return merge_runs(taken)
