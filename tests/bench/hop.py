"""One hop: how long an event takes from its producer through one process to whoever waits for what it leads to.

A bare aiokafka relay (it only copies) and the sequence job on faustkit (it keeps state, and publishes before it
commits) take turns, each in a process of its own. One process sends the events at a steady rate and receives the
outputs, so that one clock measures both ends; it answers for a part of every figure, the same for both.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_app.broker import EmbeddedBroker
from stream_app.cli._signals import terminate_as_interrupt
from tests.bench.common import BenchResult, Figure, finish
from tests.bench.pacing import Pace
from tests.bench.sequence import relay, worker
from tests.bench.sequence.job import NUM_PARTITIONS, Load, Task, oracle
from tests.bench.sequence.worker import Worker, new_task

RATIO_TARGET: Final = 3.0
"""p99 of faustkit over that of the relay: what outputs acknowledged before a commit, and state, may cost."""

WARM_S: Final = 3.0
"""Seconds of events before those that count: connections, and the first hundreds of calls of everything."""

LAST_WITHIN_S: Final = 30.0
"""How long the outputs may take after the last event; then those that are missing count as such."""

NUM_USERS: Final = 5_000

FloatArray = npt.NDArray[np.float64]
Record = tuple[bytes, bytes]
"""Key and value."""


@dataclass(frozen=True)
class Contender:
    """Who makes the hop.

    Args:
        name: As it stands in figures.
        module: What to run.
        outputs_of: The values it must publish, one for each input.
    """

    name: str
    module: str
    outputs_of: Callable[[Iterable[Record]], Iterator[bytes]]


def _copies(records: Iterable[Record]) -> Iterator[bytes]:
    return (value for _, value in records)


RELAY: Final = Contender("relay", relay.MODULE, _copies)
OURS: Final = Contender("faustkit", worker.MODULE, oracle)


@dataclass(frozen=True)
class Round:
    """One contender once: milliseconds from each event to its output (E,), and what else was seen.

    Args:
        contender: Its name.
        hops_ms_E: NaN where the output is missing or not the one that was due.
        num_too_many: Outputs after the last one that was due of their user.
        sender_late_ms: The most that an event was sent after its time.
    """

    contender: str
    hops_ms_E: FloatArray
    num_too_many: int
    sender_late_ms: float

    @property
    def num_wrong(self) -> int:
        """Outputs that are missing, wrong or too many."""
        return int(np.isnan(self.hops_ms_E).sum()) + self.num_too_many

    def percentile_ms(self, share: float) -> float:
        """Of all outputs that came."""
        return float(np.nanpercentile(self.hops_ms_E, share))


def match(
    due: Sequence[Record], sent_s: Sequence[float], received: Iterable[tuple[Record, float]]
) -> tuple[FloatArray, int]:
    """Milliseconds from each event to its output, (E,), and how many outputs were too many.

    The n-th output of a user answers the n-th event of that user.

    Args:
        due: Key and value of the output of each event, in the order in which the events were sent.
        sent_s: When each event was sent.
        received: Outputs and when each was received.
    """
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, (key, _) in enumerate(due):
        places[key].append(place)
    hops_ms_E = np.full(len(due), np.nan)
    counts: Counter[bytes] = Counter()
    num_too_many = 0
    for (key, value), received_s in received:
        number = counts[key]
        counts[key] += 1
        if number >= len(places[key]):
            num_too_many += 1
        elif due[place := places[key][number]][1] == value:
            hops_ms_E[place] = 1000 * (received_s - sent_s[place])
    return hops_ms_E, num_too_many


def result_of(rate: float, seconds: float, rounds: Sequence[Round]) -> BenchResult:
    """The figures: of each the median of the rounds; the ratio is taken of each pair of rounds."""
    figures: dict[str, Figure] = {}
    p99_ms: dict[str, list[float]] = {}
    for name in (RELAY.name, OURS.name):
        of_name = [one for one in rounds if one.contender == name]
        p99_ms[name] = [one.percentile_ms(99) for one in of_name]
        figures[f"{name}_p50_ms"] = _middle([one.percentile_ms(50) for one in of_name])
        figures[f"{name}_p99_ms"] = _middle(p99_ms[name])
    ratios = [ours / relay for ours, relay in zip(p99_ms[OURS.name], p99_ms[RELAY.name], strict=True)]
    figures["p99_ratio"] = _middle(ratios, RATIO_TARGET)
    figures["wrong_outputs"] = Figure(sum(one.num_wrong for one in rounds), 0, "same")
    figures["sender_late_ms"] = Figure(max(one.sender_late_ms for one in rounds))
    by_round = [
        {"contender": one.contender, "p50_ms": one.percentile_ms(50), "p99_ms": one.percentile_ms(99)} for one in rounds
    ]
    return BenchResult("hop", figures, {"rate": rate, "seconds": seconds, "rounds": by_round})


def _middle(values: Sequence[float], target: float | None = None) -> Figure:
    return Figure(float(np.median(values)), target, spread=(min(values), max(values)))


class _Receiver:
    """Notes every output and when it was received."""

    def __init__(self, task: Task) -> None:
        self.received: list[tuple[Record, float]] = []
        self._partitions = [TopicPartition(task.output_topic, number) for number in range(NUM_PARTITIONS)]
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=task.servers, enable_auto_commit=False, auto_offset_reset="earliest"
        )

    async def run(self) -> None:
        """Receive until cancelled."""
        await self._consumer.start()
        try:
            self._consumer.assign(self._partitions)
            while True:
                # `getone` wakes with the next record; `getmany` takes those that came with it.
                first = await self._consumer.getone()
                others = await self._consumer.getmany()
                now_s = time.perf_counter()
                for record in (first, *chain.from_iterable(others.values())):
                    self.received.append(((record.key, record.value), now_s))
        finally:
            await self._consumer.stop()


async def _send_paced(task: Task, records: Sequence[Record], rate: float) -> tuple[list[float], float]:
    """Send `rate` records a second; when each was sent, and the most milliseconds that one went late."""
    sent_s = []
    async with AIOKafkaProducer(bootstrap_servers=task.servers, acks="all", linger_ms=0) as producer:
        await producer.partitions_for(task.input_topic)
        acknowledgements = []
        pace = Pace(rate)
        for place, (key, value) in enumerate(records):
            await pace.wait(place)
            sent_s.append(time.perf_counter())
            acknowledgements.append(await producer.send(task.input_topic, value, key=key))
        await asyncio.gather(*acknowledgements)
    return sent_s, pace.late_s * 1000


async def run_round(servers: str, who: Contender, load: Load, rate: float, folder: Path, number: int) -> Round:
    """One contender on topics of its own; the first `WARM_S` seconds of events do not count."""
    name = f"hop-{number}-{who.name}"
    task = await new_task(servers, name, folder / name, load.num_events)
    records = list(load.records())
    due = [(key, value) for (key, _), value in zip(records, who.outputs_of(records), strict=True)]
    with Worker(who.module, task, folder / f"{name}.log") as process:
        await process.wait_said("ready")
        receiver = _Receiver(task)
        receiving = asyncio.create_task(receiver.run())
        try:
            sent_s, late_ms = await _send_paced(task, records, rate)
            await _wait_received(receiver, len(due), process, receiving)
        finally:
            receiving.cancel()
            with suppress(asyncio.CancelledError):
                await receiving
        await process.stop()
    hops_ms_E, num_too_many = match(due, sent_s, receiver.received)
    return Round(who.name, hops_ms_E[round(WARM_S * rate) :], num_too_many, late_ms)


async def _wait_received(receiver: _Receiver, num_due: int, process: Worker, receiving: asyncio.Task[None]) -> None:
    end_s = time.monotonic() + LAST_WITHIN_S
    while len(receiver.received) < num_due and time.monotonic() < end_s:
        process.check()
        if receiving.done():
            receiving.result()
        await asyncio.sleep(0.1)


async def measure(servers: str, rate: float, seconds: float, num_rounds: int, folder: Path) -> list[Round]:
    """All rounds, the contenders in turn."""
    load = Load(round(rate * (WARM_S + seconds)), NUM_USERS)
    rounds = []
    for number in range(num_rounds):
        for contender in (RELAY, OURS):
            rounds.append(await run_round(servers, contender, load, rate, folder, number))
            p50_ms, p99_ms = rounds[-1].percentile_ms(50), rounds[-1].percentile_ms(99)
            print(f"round {number + 1}, {contender.name}: p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms", flush=True)
    return rounds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    temporary = tempfile.TemporaryDirectory(prefix="sliceflow-bench-")
    with temporary as folder, terminate_as_interrupt(), EmbeddedBroker(None) as broker:
        measured = measure(broker.bootstrap_servers, options.rate, options.seconds, options.rounds, Path(folder))
        rounds = uvloop.run(measured)
    return finish(result_of(options.rate, options.seconds, rounds))


if __name__ == "__main__":
    sys.exit(main())
