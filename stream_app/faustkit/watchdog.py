"""The watchdog: ends a process that stands still, or that stood still for so long that others have taken its place.

It is a thread of its own, so that a blocked event loop cannot silence it. It replaces Faust's live-lock detector, which
compares times of two different clocks and only writes to the log. What it looks for:

- a blocked event loop: a callback was handed to the loop and did not run;
- input that is fetched but not committed: a run that never ends, or a commit that never comes;
- input that is there but not fetched, though all that was fetched is done;
- a topic that Kafka does not name any more: aiokafka would try for ever to commit on it;
- a position below the committed offset: the topic was deleted and created anew;
- its own pause: a process that did not run for a whole session (SIGSTOP, a suspended machine) has lost its partitions.

A thread that holds Python's interpreter lock for ever silences this one too; for that, `faulthandler` has a thread
that needs no lock.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from stream_app.faustkit.failure import FAILED, end_process
from stream_app.faustkit.standing import InputStanding, PartitionProgress, StandingLog

log = logging.getLogger("sliceflow.watchdog")

TICK_S = 0.5
"""Time between two looks: a small part of every limit, and no load."""

MISSING_S = 5.0
"""How long a topic may be missing in what Kafka names, as it may while brokers change: a few hundred milliseconds."""

REPORT_S = 5.0
"""How long the report of the end may take. The thread that is blocked may hold the lock of the log, or the log may
go into a pipe that nobody reads; then the process ends without its last words."""

STDERR = 2
"""File descriptor for `faulthandler`, which can use no Python object."""

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Where the system has it (Linux), the clock that goes on while the machine is suspended."""

MEND_RESTART = "start the process again; what was not committed is read again"


@dataclass(frozen=True)
class Limits:
    """How long what may stand still before the process is ended.

    Args:
        loop_blocked_s: How long the app's event loop may be blocked. The longest work that is rightly done on it is a
            processor's reading of its whole store at an assignment: about a million values a second.
        stalled_s: How long a partition's committed offset may stay where it is while fetched input waits, and its
            position while input waits to be fetched. Longer than a rebalance may take (60 s), than the time between
            two commits, and than a processor may wait on purpose without calling `Watchdog.note_progress`.
        interpreter_blocked_s: How long Python's interpreter lock may be held. Then the process ends without a reason
            but the stacks of all threads, so this is longer than pauses that are to be explained.
    """

    loop_blocked_s: float = 60.0
    stalled_s: float = 120.0
    interpreter_blocked_s: float = 600.0


@dataclass(frozen=True)
class Progress:
    """What a consumer does at one moment.

    Args:
        generation_id: Changes with each rebalance.
        is_opening: Stores are being recovered: nothing is to be fetched meanwhile.
        is_flowing: What is fetched is handed on; not while partitions are being given away or recovered.
        num_polls: How often the consumer has come back for more.
        is_polling: Whether it waits for more just now, so all that it has fetched was handed on.
        missing: The topics that the consumer reads, changelogs too, but that Kafka does not name.
        partitions: The assigned input partitions.
    """

    generation_id: int
    is_opening: bool
    is_flowing: bool
    num_polls: int
    is_polling: bool
    missing: Sequence[str]
    partitions: Sequence[PartitionProgress]


class StallJudge:
    """Judges from one look after the other whether the input of a consumer gets on; has no clock of its own.

    Args:
        stalled_s: See `Limits`.
    """

    def __init__(self, stalled_s: float) -> None:
        self._stalled_s = stalled_s
        self._marks: dict[tuple[str, str], tuple[int | None, float]] = {}
        self._generation_id = -1
        self._num_polls = -1

    def judge(self, progress: Progress, now_s: float) -> str | None:
        """Why the process has to end, or None.

        Args:
            progress: What the consumer does now.
            now_s: The time of the look, in seconds of any clock that only goes forward.
        """
        if progress.is_opening or progress.generation_id != self._generation_id:
            self.forgive()
        self._generation_id = progress.generation_id
        is_taking = progress.is_polling or progress.num_polls != self._num_polls
        self._num_polls = progress.num_polls
        # A consumer that cannot hand on what it has fetched waits for some partition to get on: one whose commits do
        # not come. That one is judged by its commits.
        is_held_up = not is_taking and any(one.is_uncommitted for one in progress.partitions)
        for topic in progress.missing:
            if now_s - self._marks.setdefault(("missing", topic), (None, now_s))[1] > MISSING_S:
                return (
                    f"Kafka does not name the topic {topic} any more: it was deleted, or may not be read any more. "
                    f"To mend it: restore the topic and the right to read it, then {MEND_RESTART}."
                )
        for one in progress.partitions:
            # While partitions are given away, a position may be set back to a commit that is just being replaced.
            reason = (progress.is_flowing and _lost(one)) or self._stalled(one, is_held_up, now_s)
            if reason:
                return reason
        return None

    def forgive(self) -> None:
        """Count from the next look on."""
        self._marks.clear()

    def _stalled(self, seen: PartitionProgress, is_held_up: bool, now_s: float) -> str | None:
        # Both are noted at each look, whatever the other one says.
        uncommitted_s = self._unmoved_s("committed", seen, seen.committed, seen.is_uncommitted, now_s)
        unfetched_s = self._unmoved_s("position", seen, seen.position, seen.has_input and not is_held_up, now_s)
        if uncommitted_s > self._stalled_s:
            return (
                f"Nothing of {seen} was committed for {uncommitted_s:.0f} s (limit {self._stalled_s:g} s): "
                f"committed {_told(seen.committed)}, fetched up to {seen.fetched}. A run does not end, or its commit "
                f"does not. To mend it: {MEND_RESTART}; if it comes again, see what its processor waits for."
            )
        if unfetched_s > self._stalled_s:
            return (
                f"Nothing of {seen} was fetched for {unfetched_s:.0f} s (limit {self._stalled_s:g} s), though all that "
                f"was fetched is done: position {seen.position}, end {seen.end}. To mend it: {MEND_RESTART}."
            )
        return None

    def _unmoved_s(self, name: str, seen: PartitionProgress, offset: int | None, is_due: bool, now_s: float) -> float:
        """How long `offset` has been what it is though it should have moved."""
        key = (name, str(seen))
        noted = self._marks.get(key)
        if noted is None or noted[0] != offset or not is_due:
            noted = self._marks[key] = (offset, now_s)
        return now_s - noted[1]


def _lost(seen: PartitionProgress) -> str | None:
    if seen.position is None or seen.position >= seen.committed:
        return None
    return (
        f"{seen} is read at offset {seen.position}, below the committed offset {seen.committed}: its topic was deleted "
        "and created anew, or has lost records. To mend it: restore the topic, or let the group begin anew with empty "
        "stores and changelogs."
    )


class Pulse:
    """Whether an event loop runs: a callback is handed to it, and has to be called.

    Args:
        name: Of the loop, for people.
        loop: The loop.
        thread_id: Of the thread that it runs in.
        limit_s: How long it may be blocked.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, thread_id: int, limit_s: float) -> None:
        self.name = name
        self.limit_s = limit_s
        self._loop = loop
        self._thread_id = thread_id
        self._is_answered = threading.Event()
        self._is_answered.set()
        self._asked_s = 0.0

    def ask(self, now_s: float) -> float:
        """Hand the loop a callback, if the last one was called; for how many seconds it has not been called.

        Raises:
            RuntimeError: The loop is closed.
        """
        if self._is_answered.is_set():
            self._is_answered.clear()
            self._asked_s = now_s
            self._loop.call_soon_threadsafe(self._is_answered.set)
        return 0.0 if self._is_answered.is_set() else now_s - self._asked_s

    def stack(self) -> traceback.StackSummary:
        """What the loop's thread is doing, outermost call first; empty when it has ended."""
        frame = sys._current_frames().get(self._thread_id)
        return traceback.StackSummary() if frame is None else traceback.extract_stack(frame)


class Watchdog:
    """Looks every `TICK_S` at the loops and the input it was told of, and ends the process if they stand still.

    Args:
        limits: What may take how long.
        session_timeout_s: How long Kafka waits for a silent member of a group before it gives its partitions away.
    """

    def __init__(self, limits: Limits, session_timeout_s: float) -> None:
        self.limits = limits
        self.session_timeout_s = session_timeout_s
        self._pulses: list[Pulse] = []
        self._progress: Callable[[], Progress] | None = None
        self._judge = StallJudge(limits.stalled_s)
        self._standings = StandingLog()
        self._is_forgiven = False
        self._stopping = threading.Event()
        self._last_tick_s = 0.0
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def watch_loop(self, name: str, limit_s: float) -> None:
        """From now on the running event loop may not be blocked for more than `limit_s` seconds.

        Args:
            name: Of the loop, for people.
            limit_s: The limit.
        """
        self._pulses = [*self._pulses, Pulse(name, asyncio.get_running_loop(), threading.get_ident(), limit_s)]

    def watch_input(self, progress: Callable[[], Progress]) -> None:
        """From now on the input has to get on; `progress` is called from the watchdog's thread and must not wait."""
        self._progress = progress

    def input_standings(self) -> Sequence[InputStanding]:
        """The assigned input at the last look, at most some `TICK_S` ago; may be called from any thread."""
        return self._standings.newest

    def note_progress(self) -> None:
        """For a processor that waits on purpose: what it waits for has moved, so the limits count from now again."""
        self._is_forgiven = True

    def start(self) -> None:
        """Begin to look."""
        self._last_tick_s = _now_s()
        self._arm()
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def check_pause(self) -> None:
        """End the process if it has just woken from a pause longer than the session.

        The watchdog's thread does so too, but after a pause it wakes together with all others; whoever is about to
        write asks first.
        """
        pause_s = _now_s() - self._last_tick_s
        if self._thread.is_alive() and pause_s > self.session_timeout_s:
            _end(
                f"This process did not run for {pause_s:.1f} s, and Kafka waits for {self.session_timeout_s:g} s "
                "(session_timeout_s): others may have its partitions, so it must write no more. To mend it: "
                f"{MEND_RESTART}; if nobody paused it, see whether the machine swaps, or raise session_timeout_s."
            )

    def _run(self) -> None:
        try:
            while not self._stopping.wait(TICK_S):
                self._look()
        except Exception as error:
            _end(f"The watchdog failed: {error!r}. To mend it: {MEND_RESTART}.", error)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _look(self) -> None:
        self.check_pause()
        self._arm()
        now_s = self._last_tick_s = _now_s()
        for pulse in self._pulses:
            self._feel(pulse, now_s)
        if self._is_forgiven:
            self._is_forgiven = False
            self._judge.forgive()
        if self._progress is not None:
            progress = self._progress()
            self._standings.look(progress.partitions, now_s)
            if reason := self._judge.judge(progress, now_s):
                _end(reason)

    def _arm(self) -> None:
        faulthandler.dump_traceback_later(self.limits.interpreter_blocked_s, exit=True, file=STDERR)

    def _feel(self, pulse: Pulse, now_s: float) -> None:
        try:
            blocked_s = pulse.ask(now_s)
        except RuntimeError:
            # Closed: it has nothing to do any more.
            self._pulses = [other for other in self._pulses if other is not pulse]
            return
        if blocked_s <= pulse.limit_s:
            return
        stack = pulse.stack()
        place = f" by {stack[-1].name} ({stack[-1].filename}:{stack[-1].lineno})" if stack else ""
        _end(
            f"The event loop of {pulse.name} is blocked for {blocked_s:.0f} s (limit {pulse.limit_s:g} s){place}. To "
            f"mend it: {MEND_RESTART}; if it comes again, let that work be done by a thread of its own.",
            details=f"what the thread of {pulse.name} does:\n{''.join(stack.format())}",
        )


def _end(reason: str, error: BaseException | None = None, details: str = "") -> NoReturn:
    last_resort = threading.Timer(REPORT_S, os._exit, [FAILED])
    last_resort.daemon = True
    last_resort.start()
    if details:
        log.critical("%s", details)
    end_process(reason, error)


def _told(offset: int) -> str:
    return "nothing" if offset < 0 else str(offset)


def _now_s() -> float:
    return time.clock_gettime(CLOCK)
