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
"""With more records than so many full runs waiting, nothing more of this partition is fetched until less than one
is left: the next run is ready when this one is done. What was fetched already still comes (`MAX_RUN_BYTES` at most)."""

FINISH_S = 5.0
"""How long a run in work may take to finish when its partition is given away: a run takes well under a second, but
one that waits for something (a replayed event for its epoch) could wait longer than the group does for us."""


class Lane:
    """The waiting runs of one partition and the task that handles them, until it is closed.

    Args:
        handle: Handles one run; must not raise.
        on_full: Called when so much is waiting that no more should come.
        on_room: Called when there is room again; not after `close`.
        max_run_records: Most records of one run.
    """

    def __init__(
        self,
        handle: Callable[[Run], Awaitable[None]],
        *,
        on_full: Callable[[], None],
        on_room: Callable[[], None],
        max_run_records: int = MAX_RUN_RECORDS,
    ) -> None:
        self._handle = handle
        self._on_full = on_full
        self._on_room = on_room
        self._max_run_records = max_run_records
        self._max_waiting = MAX_WAITING_RUNS * max_run_records
        self._waiting: deque[Run] = deque()
        self._num_waiting = 0
        self._is_full = False
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None

    def put(self, run: Run) -> None:
        """Add a run. It is taken even when the lane is full: it was on its way already.

        A closed lane forgets it: others were forgotten before it, and going on behind them would skip them.
        """
        if self._is_closed:
            return
        self._waiting.append(run)
        self._num_waiting += len(run)
        if not self._is_full and self._num_waiting > self._max_waiting:
            self._is_full = True
            self._on_full()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off())

    async def close(self) -> None:
        """Forget what waits, and wait for the run in work, at most `FINISH_S`; then it is broken off.

        Breaking off is like dying at that point: nothing of the run was committed, so it is done again.
        """
        self._is_closed = True
        self._waiting.clear()
        self._num_waiting = 0
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
        if self._is_full and self._num_waiting <= self._max_run_records:
            self._is_full = False
            self._on_room()
        return merge_runs(taken)
