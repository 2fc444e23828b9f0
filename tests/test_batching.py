"""The batcher: what waits together is encoded together, and everybody gets their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from encoders.contract import Float32Array, MergeSpec, SliceBatch, SliceCodes
from stream_app.batching import SliceBatcher
from stream_app.records import SliceEvent, SliceRecord, SliceVectorRecord, unpack_vector
from stream_app.stages.merging import UserMemory

DIM = 3


class CountingEncoder:
    """Codes that tell the slice: its item's number. Notes the size of each batch."""

    release = "counting-1"
    dim = DIM
    slice_events = 4
    context_events = 0
    merge = MergeSpec("decayed", 1, (1000.0,))
    half_lives_ms = np.array([1000.0])

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.error: Exception | None = None

    def rows_of(self, item_ids: Sequence[str]) -> np.ndarray:
        return np.array([int(item_id) for item_id in item_ids], dtype=np.int64)

    def type_rows_of(self, names: Sequence[str]) -> np.ndarray:
        return np.ones(len(names), dtype=np.int64)

    def encode(self, batch: SliceBatch) -> SliceCodes:
        if self.error is not None:
            raise self.error
        self.batches.append(len(batch))
        codes = np.repeat(batch.item_rows_SL[:, :1], DIM, axis=1).astype(np.float32)
        return SliceCodes(codes, codes)

    def recalled(self, batch: SliceBatch, merged_SRD: Float32Array, has_merged_S: np.ndarray) -> Float32Array:
        raise NotImplementedError

    def carried(self, carried_D: Float32Array, code_D: Float32Array, weight: float, age_ms: int) -> Float32Array:
        raise NotImplementedError

    def user_vectors(self, locals_SD: Float32Array, merged_SRD: Float32Array, has_merged_S: np.ndarray) -> Float32Array:
        return locals_SD + 100

    def item_vectors(self) -> tuple[list[str], Float32Array]:
        return [], np.zeros((0, DIM), dtype=np.float32)


def slice_of(user_id: str, item: int) -> SliceRecord:
    """A first slice of one event."""
    event = SliceEvent(str(item), "click", 1000, -1)
    return SliceRecord(
        user_id=user_id, seq=0, revision=1, closed=False, fresh=True, events=[event], partition=0, offset=item
    )


def ask_together(encoder: CountingEncoder, users: Sequence[str]) -> list[list[SliceVectorRecord]]:
    """Each user's slice in a request of its own, all at once; the memories must come back too."""

    async def ask(batcher: SliceBatcher, user_id: str, item: int) -> list[SliceVectorRecord]:
        memories: dict[str, UserMemory] = {}
        vectors = await batcher.encode([slice_of(user_id, item)], memories)
        newest = memories[user_id].newest
        assert newest is not None and list(memories) == [user_id]
        assert np.frombuffer(newest.code, dtype="<f4").tolist() == [item] * DIM
        return vectors

    async def main() -> list[list[SliceVectorRecord]]:
        with ThreadPoolExecutor(1) as executor:
            batcher = SliceBatcher(encoder, executor, {"click": 1.0})
            return await asyncio.gather(*(ask(batcher, user, place + 2) for place, user in enumerate(users)))

    return asyncio.run(main())


def test_requests_that_wait_share_a_batch_and_get_their_own_answers() -> None:
    encoder = CountingEncoder()
    answers = ask_together(encoder, ["a", "b", "c"])
    assert encoder.batches == [3]
    assert [[vector.user_id for vector in answer] for answer in answers] == [["a"], ["b"], ["c"]]
    assert [unpack_vector(answer[0].user_vector)[0] for answer in answers] == [102, 103, 104]


def test_an_error_reaches_everybody_who_waits() -> None:
    encoder = CountingEncoder()
    encoder.error = RuntimeError("the device is gone")
    with pytest.raises(RuntimeError, match="the device is gone"):
        ask_together(encoder, ["a", "b"])
