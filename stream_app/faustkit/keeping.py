"""Keeping the changes of many runs at once: in memory first, then changelog, store and commit.

The changes of a run are visible to the next one at once; they are kept (changelog, then store) a moment later,
together with those of the runs after it, and only then the inputs they came from may be committed. A crash in
between repeats those inputs, and since their outputs were acknowledged before, nothing is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from stream_app.faustkit.effects import Effects, OutRecord
from stream_app.faustkit.outbox import Outbox
from stream_app.faustkit.producing import Writer
from stream_app.faustkit.request_line import Target
from stream_app.faustkit.run import Run, part_of
from stream_app.faustkit.store import PartitionStore, Stored, seal_all

KEEP_S = 0.2
"""How long changes wait for others to be kept with. Few enough inputs are repeated after a crash, and a busy key's
value is written five times a second at most."""

MAX_PENDING_KEYS = 20_000
"""With more changed keys than this the next run waits until they are kept."""


class Values(Protocol):
    """What a processor may read."""

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """The values of `keys`, in their order; None where there is none."""


class KeepClock:
    """Has the changes of all partitions of a process kept at the same moments: they share requests and commits."""

    def __init__(self) -> None:
        self._due: list[Callable[[], Awaitable[None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Future[None]] = set()

    def add(self, keep: Callable[[], Awaitable[None]]) -> None:
        """Have `keep` called once, at most `KEEP_S` from now. Who is slow then holds up nobody."""
        self._due.append(keep)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEEP_S, self._tick)

    def _tick(self) -> None:
        due, self._due, self._timer = self._due, [], None
        for keep in due:
            task = asyncio.ensure_future(keep())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Call nobody any more, and wait for those that were called."""
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = [], None
        await asyncio.gather(*self._tasks, return_exceptions=True)


class PartitionState:
    """The values of one partition of a table: those in the store, and over them those that are not kept yet.

    Args:
        store: The open store.
        changelog: Topic and partition of the changelog.
        outbox: Publishes the changelog.
        writer: In whose name everything is published that this partition causes.
        clock: Says when changes are kept.
        on_kept: Told the offset up to which inputs may be committed.
        on_error: Called when the changes could not be kept; must end the process.
    """

    def __init__(
        self,
        store: PartitionStore,
        changelog: Target,
        outbox: Outbox,
        writer: Writer,
        clock: KeepClock,
        *,
        on_kept: Callable[[int], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self.store = store
        self.writer = writer
        self._changelog = changelog
        self._outbox = outbox
        self._clock = clock
        self._on_kept = on_kept
        self._on_error = on_error
        self._pending: dict[bytes, Stored | None] = {}
        self._keeping: dict[bytes, Stored | None] = {}
        self._facts: dict[tuple[str, int, bytes | None], OutRecord] = {}
        self._next_offset = -1
        self._is_kept = True
        self._is_due = False
        self._is_closed = False
        self._lock = asyncio.Lock()

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """The values of `keys`, in their order; None where there is none."""
        found: list[Stored | None] = [self._pending.get(key, self._keeping.get(key)) for key in keys]
        missing = [place for place, key in enumerate(keys) if key not in self._pending and key not in self._keeping]
        for place, stored in zip(missing, self.store.get_many([keys[place] for place in missing]), strict=True):
            found[place] = stored
        return found

    async def take_run(self, effects: Effects, run: Run) -> Run | None:
        """Take in what a run caused; what the processor has left of it, once all that it has taken is kept."""
        if effects.num_taken is None:
            await self.take(effects, run.next_offset)
            return None
        if effects.num_taken:
            await self.take(effects, run.offsets[effects.num_taken - 1] + 1)
        await self.keep()
        return part_of(run, effects.num_taken, len(run)) if effects.num_taken < len(run) else None

    async def take(self, effects: Effects, next_offset: int) -> None:
        """Take in the changes of a run whose outputs are acknowledged; waits while too much is pending."""
        # In the order of the last change: what vouches for all before it is to stay behind them in the changelog.
        for key in [*effects.changes, *effects.removed]:
            self._pending.pop(key, None)
        self._pending.update(effects.changes)
        self._pending.update(dict.fromkeys(effects.removed))
        self._facts.update(((fact.topic, fact.partition, fact.key), fact) for fact in effects.facts)
        self._next_offset = next_offset
        self._is_kept = False
        if len(self._pending) > MAX_PENDING_KEYS:
            await self.keep()
        else:
            self._keep_soon()

    async def keep(self) -> None:
        """Keep everything taken in so far: changelog and facts acknowledged, then the store, then the commit."""
        # In a task of its own, shielded: breaking off whoever waits for it must not break off a write half done.
        await asyncio.shield(asyncio.create_task(self._keep()))

    async def _keep(self) -> None:
        async with self._lock:
            if self._is_closed:  # whoever waited here while it was
                return
            self._keeping, self._pending = self._pending, {}
            facts, self._facts = list(self._facts.values()), {}
            next_offset = self._next_offset
            self._is_kept = True
            try:
                await self._write(facts)
            except Exception as error:
                self._on_error(error)
                return
            self._keeping = {}
            if next_offset >= 0:
                self._on_kept(next_offset)

    async def close(self) -> None:
        """Keep what is pending; nothing is kept afterwards."""
        await self.keep()
        self._is_closed = True

    async def _write(self, facts: list[OutRecord]) -> None:
        envelopes = seal_all(self._keeping)
        topic, partition = self._changelog
        records = [OutRecord(topic, partition, key, value) for key, value in envelopes.items()]
        acknowledged = await self._outbox.publish([*records, *facts], self.writer)
        if envelopes:
            self.store.write(envelopes, acknowledged[topic, partition])

    def _keep_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._clock.add(self._keep_when_due)

    async def _keep_when_due(self) -> None:
        if self._is_closed:
            return
        await self.keep()
        self._is_due = False
        # Again where something was taken in while the last was being kept: nobody else might come.
        if not self._is_kept:
            self._keep_soon()
