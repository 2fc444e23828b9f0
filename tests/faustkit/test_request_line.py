"""The line in front of a broker: nothing is lost, doubled or mixed up, and what waits goes together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.faustkit import request_line
from stream_app.faustkit.request_line import LARGE_BYTES, Batch, Outcomes, RequestLine


@dataclass
class Broker:
    """Answers each batch with its own offset, once it is let."""

    requests: list[list[Batch]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    async def answer(self, batches: Sequence[Batch]) -> Outcomes:
        """As a broker does."""
        self.requests.append(list(batches))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {batch.target: offset_of(batch.data) for batch in batches}


def offset_of(data: bytes) -> int:
    """Another for each content."""
    return int.from_bytes(b"\1" + data)


def piece(partition: int, data: bytes = b"x") -> Batch:
    """A batch for a partition."""
    return Batch(("topic", partition), data, num_records=1)


@given(
    st.lists(
        st.dictionaries(st.integers(0, 3), st.binary(min_size=1, max_size=4), min_size=1, max_size=3), max_size=12
    ),
    st.integers(0, 5),
)
def test_everybody_gets_the_own_answers_and_each_batch_goes_once(
    publications: list[dict[int, bytes]], num_at_first: int
) -> None:
    async def scenario() -> tuple[list[Outcomes], Broker]:
        broker = Broker()
        line = RequestLine(broker.answer)
        sends = []
        for number, wanted in enumerate(publications):
            sends.append(asyncio.create_task(line.send([piece(*one) for one in wanted.items()])))
            if number == num_at_first:
                await asyncio.sleep(0)
        broker.gate.set()
        return await asyncio.gather(*sends), broker

    answers, broker = asyncio.run(scenario())
    assert answers == [{("topic", one): offset_of(data) for one, data in wanted.items()} for wanted in publications]
    sent = [(batch.target[1], batch.data) for request in broker.requests for batch in request]
    assert sorted(sent) == sorted(pair for wanted in publications for pair in wanted.items())
    assert all(len({batch.target for batch in request}) == len(request) for request in broker.requests)


def requests_of(
    *publications: Sequence[Batch], error: Exception | None = None
) -> tuple[list[list[Batch]], list[object]]:
    """The requests for publications that all come while the first one's is on its way, and what came of each."""

    async def scenario() -> tuple[list[list[Batch]], list[object]]:
        broker = Broker(error=error)
        line = RequestLine(broker.answer)
        sends = [asyncio.create_task(line.send(publications[0]))]
        async with asyncio.timeout(10):
            while not broker.requests:
                await asyncio.sleep(0)
        sends += [asyncio.create_task(line.send(batches)) for batches in publications[1:]]
        for _ in publications:
            await asyncio.sleep(0)
        broker.gate.set()
        return broker.requests, await asyncio.gather(*sends, return_exceptions=True)

    return asyncio.run(scenario())


def test_what_waits_goes_together() -> None:
    requests, _ = requests_of([piece(0)], [piece(1)], [piece(2), piece(3)])
    assert requests == [[piece(0)], [piece(1), piece(2), piece(3)]]


def test_one_partition_has_one_batch_in_a_request() -> None:
    requests, _ = requests_of([piece(0)], [piece(1, b"a")], [piece(1, b"b"), piece(2)], [piece(3)])
    assert requests == [[piece(0)], [piece(1, b"a"), piece(3)], [piece(1, b"b"), piece(2)]]


def test_large_batches_wait_for_nobody() -> None:
    large = piece(1, bytes(LARGE_BYTES))
    requests, _ = requests_of([piece(0)], [piece(2)], [large])
    assert requests == [[piece(0)], [large], [piece(2)]]


def test_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_line, "MAX_REQUEST_BYTES", 10)
    requests, _ = requests_of([piece(0)], [piece(1, bytes(6))], [piece(2, bytes(6))], [piece(3, bytes(40))])
    assert [[batch.target[1] for batch in request] for request in requests] == [[0], [1], [2], [3]]


def test_an_error_reaches_all_whose_batches_were_in_the_request() -> None:
    error = ConnectionError("lost")
    _, answers = requests_of([piece(0)], [piece(1)], [piece(2)], error=error)
    assert answers == [error, error, error]
