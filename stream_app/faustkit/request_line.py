"""The line in front of one broker: batches that come while a request is on its way go together in the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiokafka.errors import KafkaError

LARGE_BYTES = 256 * 1024
"""So much is worth a request of its own, sent at once: what it carries costs more than what every request costs, and
the next one can be on its way while the broker works off this one."""

MAX_REQUEST_BYTES = 8 * 1024 * 1024
"""Bytes of one request of gathered batches. Brokers take 100 MiB (`socket.request.max.bytes`)."""

Target = tuple[str, int]
"""Topic and partition."""

Outcomes = dict[Target, int | KafkaError]
"""Of each batch of a request the offset of its first record, or what went wrong."""


@dataclass(frozen=True)
class Batch:
    """A whole record batch for one partition, ready to be sent."""

    target: Target
    data: bytes
    num_records: int


@dataclass(frozen=True)
class _Waiting:
    batches: Sequence[Batch]
    answer: asyncio.Future[Outcomes]


class RequestLine:
    """Gathers small batches for one broker: small requests when idle, large ones under load, without a timer.

    A broker works off the requests of one connection one after the other, so a second small request on its way would
    not be done earlier; it would only cost both sides what a request costs.

    Args:
        request: Sends one request, with one batch for each of its partitions, and says what became of each.
    """

    def __init__(self, request: Callable[[Sequence[Batch]], Awaitable[Outcomes]]) -> None:
        self._request = request
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None

    async def send(self, batches: Sequence[Batch]) -> Outcomes:
        """Send batches, one for each of several partitions, in a request with whatever else waits.

        Returns:
            What became of each.
        """
        if _num_bytes(batches) >= LARGE_BYTES:
            return await self._request(batches)
        answer: asyncio.Future[Outcomes] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(batches, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off())
        return await answer

    async def _work_off(self) -> None:
        while self._waiting:
            taken = self._take()
            try:
                outcomes = await self._request([batch for waiting in taken for batch in waiting.batches])
            except Exception as error:
                for waiting in taken:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
            else:
                for waiting in taken:
                    if not waiting.answer.done():
                        waiting.answer.set_result({one.target: outcomes[one.target] for one in waiting.batches})

    def _take(self) -> list[_Waiting]:
        """What goes next, in the order in which it came; who has a batch for a partition that is in it goes later."""
        taken: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        targets: set[Target] = set()
        size_bytes = 0
        for waiting in self._waiting:
            wanted = {batch.target for batch in waiting.batches}
            num_bytes = _num_bytes(waiting.batches)
            if taken and (size_bytes + num_bytes > MAX_REQUEST_BYTES or not targets.isdisjoint(wanted)):
                left.append(waiting)
                continue
            taken.append(waiting)
            targets |= wanted
            size_bytes += num_bytes
        self._waiting = left
        return taken


def _num_bytes(batches: Sequence[Batch]) -> int:
    return sum(len(batch.data) for batch in batches)
