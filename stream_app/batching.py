"""One batch for the encoder out of the slices of all partitions that wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from encoders.contract import SliceEncoder
from stream_app.records import SliceRecord, SliceVectorRecord
from stream_app.slice_encoding import encode_slices
from stream_app.stages.merging import UserMemory


@dataclass(frozen=True)
class _Request:
    """Slices of one partition with the memories of their users, and where the answer goes."""

    records: Sequence[SliceRecord]
    memories: dict[str, UserMemory]
    answer: asyncio.Future[list[SliceVectorRecord]]


class SliceBatcher:
    """Encodes slices in batches as large as what came in while the batch before was at work: small when idle, large
    under load, without a timer.

    Args:
        encoder: The trained encoder; called in `executor` only, never on the event loop.
        executor: One thread: the device has one user.
        weights: Weight of each event type.
        note_batch: Told of each batch: how many slices, in how many seconds.
    """

    def __init__(
        self,
        encoder: SliceEncoder,
        executor: Executor,
        weights: Mapping[str, float],
        note_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._encoder = encoder
        self._executor = executor
        self._weights = weights
        self._note_batch = note_batch
        self._waiting: list[_Request] = []
        self._task: asyncio.Task[None] | None = None

    async def encode(self, records: Sequence[SliceRecord], memories: dict[str, UserMemory]) -> list[SliceVectorRecord]:
        """As `slice_encoding.encode_slices`; no other request may hold the same users at the same time."""
        answer: asyncio.Future[list[SliceVectorRecord]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(records, memories, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off())
        return await answer

    async def _work_off(self) -> None:
        while self._waiting:
            requests, self._waiting = self._waiting, []
            try:
                answers = await asyncio.get_running_loop().run_in_executor(self._executor, self._encode, requests)
            except Exception as error:
                for request in requests:
                    _settle(request.answer, error)
            else:
                for request, vectors in zip(requests, answers, strict=True):
                    _settle(request.answer, vectors)

    def _encode(self, requests: Sequence[_Request]) -> list[list[SliceVectorRecord]]:
        memories = {user: memory for request in requests for user, memory in request.memories.items()}
        records = [record for request in requests for record in request.records]
        owners = {record.user_id: place for place, request in enumerate(requests) for record in request.records}
        answers: list[list[SliceVectorRecord]] = [[] for _ in requests]
        begun_s = time.perf_counter()
        for vector in encode_slices(self._encoder, records, memories, self._weights):
            place = owners[vector.user_id]
            answers[place].append(vector)
            requests[place].memories[vector.user_id] = memories[vector.user_id]
        if self._note_batch is not None:
            self._note_batch(len(records), time.perf_counter() - begun_s)
        return answers


def _settle(answer: asyncio.Future[list[SliceVectorRecord]], result: list[SliceVectorRecord] | BaseException) -> None:
    """Give an answer to whoever still waits for it."""
    if answer.done():
        return
    if isinstance(result, BaseException):
        answer.set_exception(result)
    else:
        answer.set_result(result)
