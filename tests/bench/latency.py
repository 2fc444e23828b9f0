"""How long it takes from an event's arrival on Kafka to its user's new list there, at a steady rate of live events.

Kafka itself stamps every record as it appends it, so that one clock measures all: an event's latency is the append
time of its list less its own. An event whose list was left out because a newer event of the same user came in the
same batch counts with the list that answers the newer one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer

from stream_app.cli._signals import terminate_as_interrupt
from stream_app.demo import AFTER_MS, CONFIG_FILE, EVENTS_FILE, ITEMS_FILE, MODEL_FOLDER, demo_settings
from stream_app.event_log import read_events
from stream_app.kafka import connection
from stream_app.records import MARK_KEY, Event, encode
from stream_app.replay.caught_up import wait_caught_up
from stream_app.replay.producer import replay_log, send_items
from stream_app.replay.readers import open_log
from stream_app.settings import Settings
from stream_app.topic_reader import StoredRecord, TopicReader
from stream_app.topics import EVENTS, RECOMMENDATIONS, SLICE_VECTORS, SLICES, prefixed
from tests.bench.common import EXAMPLE, BenchResult, Figure, finish, table
from tests.bench.pacing import Pace
from tests.bench.stack import fresh_broker, running_roles

P50_TARGET_MS: Final = 15.0
P99_TARGET_MS: Final = 60.0
SHARES: Final[Mapping[str, float]] = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99, "max_ms": 100}
STAGES: Final = (SLICES, SLICE_VECTORS, RECOMMENDATIONS)
"""Topics on the way, in order; each hop ends with the append to one of them."""

APPEND_TIME: Final = {"log.message.timestamp.type": "LogAppendTime"}

FloatArray = npt.NDArray[np.float64]
Bounds = Mapping[str, Mapping[int, tuple[int, int]]]


class Answer(msgspec.Struct, frozen=True):
    """What slices, slice vectors and lists have in common: the newest event they hold, by its place on `events`."""

    user_id: str
    partition: int
    offset: int
    fresh: bool = True


@dataclass(frozen=True)
class Appended:
    """An event, or an answer to all of its user's events up to it: the event's offset, and when Kafka took it."""

    user_id: str
    offset: int
    append_ms: int


@dataclass(frozen=True)
class Load:
    """How many events of whom are sent.

    Args:
        rate: Events a second.
        seconds: For how long.
        seed: Decides who touches what.
    """

    rate: float
    seconds: float
    seed: int

    def events(self, users: Sequence[str], items: Sequence[str], start_ms: int) -> list[Event]:
        """The events, evenly spread from the event time `start_ms` on; users and items are drawn with equal chances."""
        generator = np.random.default_rng(self.seed)
        num_events = round(self.rate * self.seconds)
        users_E = generator.integers(0, len(users), num_events)
        items_E = generator.integers(0, len(items), num_events)
        return [
            Event(user_id=users[user], item_id=items[item], type="click", ts=start_ms + int(1000 * place / self.rate))
            for place, (user, item) in enumerate(zip(users_E.tolist(), items_E.tolist(), strict=True))
        ]


@dataclass(frozen=True)
class RunResult:
    """One run: milliseconds from each event to each stage (E, stages), NaN where no answer came."""

    stages_ms_ES: FloatArray
    num_lists: int
    sender_late_ms: float

    @property
    def latencies_ms(self) -> FloatArray:
        """From event to list, of the events that were answered."""
        last_E = self.stages_ms_ES[:, -1]
        return last_E[~np.isnan(last_E)]

    @property
    def num_unanswered(self) -> int:
        """Events that no list answers."""
        return len(self.stages_ms_ES) - len(self.latencies_ms)


def waits_ms(events: Sequence[Appended], answers: Iterable[Appended]) -> FloatArray:
    """For each event (E,) the time until the first answer of its user that holds it; NaN where there is none.

    Args:
        events: The events.
        answers: In the order in which they were appended.
    """
    by_user: dict[str, list[Appended]] = {}
    for answer in answers:
        by_user.setdefault(answer.user_id, []).append(answer)
    waits_E = np.full(len(events), np.nan)
    open_places: dict[str, list[int]] = {}
    for place, event in enumerate(events):
        open_places.setdefault(event.user_id, []).append(place)
    for user_id, places in open_places.items():
        places.sort(key=lambda place: events[place].offset, reverse=True)
        for answer in by_user.get(user_id, []):
            while places and events[places[-1]].offset <= answer.offset:
                place = places.pop()
                waits_E[place] = answer.append_ms - events[place].append_ms
    return waits_E


def hop_rows(stages_ms_ES: FloatArray) -> list[list[str]]:
    """For each hop its name, and median, 95th and 99th percentile and mean of its milliseconds, as text."""
    answered_ES = stages_ms_ES[~np.isnan(stages_ms_ES).any(axis=1)]
    hops_ES = np.diff(answered_ES, axis=1, prepend=0.0)
    rows = []
    for place, (before, after) in enumerate(zip((EVENTS, *STAGES), STAGES, strict=False)):
        hop_E = hops_ES[:, place]
        figures = [*np.percentile(hop_E, [50, 95, 99]), hop_E.mean()] if len(hop_E) else [np.nan] * 4
        rows.append([f"{before} -> {after}", *(f"{figure:.1f}" for figure in figures)])
    return rows


def result_of(load: Load, runs: Sequence[RunResult]) -> BenchResult:
    """The figures of several runs: of each the median of the runs, with the lowest and the highest."""
    targets = {"p50_ms": P50_TARGET_MS, "p99_ms": P99_TARGET_MS}
    figures: dict[str, Figure] = {}
    for name, share in SHARES.items():
        of_runs = [float(np.percentile(run.latencies_ms, share)) for run in runs]
        spread = (min(of_runs), max(of_runs))
        figures[name] = Figure(float(np.median(of_runs)), targets.get(name), spread=spread)
    figures["events"] = Figure(sum(len(run.stages_ms_ES) for run in runs))
    figures["lists"] = Figure(sum(run.num_lists for run in runs))
    figures["unanswered"] = Figure(sum(run.num_unanswered for run in runs), 0, "same")
    figures["sender_late_ms"] = Figure(max(run.sender_late_ms for run in runs))
    hops = {row[0]: dict(zip(HOP_COLUMNS[1:], map(float, row[1:]), strict=True)) for row in _all_hops(runs)}
    details = {"rate": load.rate, "seconds": load.seconds, "runs": len(runs), "hops_ms": hops}
    return BenchResult("latency", figures, details)


HOP_COLUMNS: Final = ("hop (ms)", "p50", "p95", "p99", "mean")


def _all_hops(runs: Sequence[RunResult]) -> list[list[str]]:
    return hop_rows(np.concatenate([run.stages_ms_ES for run in runs]))


async def send_paced(settings: Settings, events: Sequence[Event], rate: float) -> float:
    """Send `rate` events a second, each at its time; the most milliseconds that one went later than it should."""
    topic = prefixed(settings.prefix, EVENTS)
    async with AIOKafkaProducer(**connection(settings), acks="all", linger_ms=0) as producer:
        await producer.partitions_for(topic)
        acknowledgements = []
        pace = Pace(rate)
        for place, event in enumerate(events):
            await pace.wait(place)
            acknowledgements.append(await producer.send(topic, encode(event), key=event.user_id.encode("utf-8")))
        await asyncio.gather(*acknowledgements)
    return pace.late_s * 1000


async def run_once(settings: Settings, load: Load, events: Sequence[Event]) -> RunResult:
    """Send the events, wait for all roles, and read off the topics when each came where."""
    before = await _bounds(settings)
    late_ms = await send_paced(settings, events, load.rate)
    await wait_caught_up(settings)
    after = await _bounds(settings)
    sent, *answers = [await _appended(settings, name, before, after) for name in (EVENTS, *STAGES)]
    stages_ms_ES = np.stack([waits_ms(sent, found) for found in answers], axis=1)
    return RunResult(stages_ms_ES, len(answers[-1]), late_ms)


async def _bounds(settings: Settings) -> Bounds:
    names = (EVENTS, *STAGES)
    async with TopicReader(settings) as reader:
        return {name: await reader.bounds(prefixed(settings.prefix, name)) for name in names}


async def _appended(settings: Settings, name: str, before: Bounds, after: Bounds) -> list[Appended]:
    """What was appended to a topic meanwhile; answers that ask for no list are left out."""
    ranges = {number: (before[name][number][1], end) for number, (_, end) in after[name].items()}
    found = []
    async with TopicReader(settings) as reader:
        async for record in reader.read_range(prefixed(settings.prefix, name), ranges):
            one = _event_of(record) if name == EVENTS else answer_of(record)
            if one is not None:
                found.append(one)
    return found


def _event_of(record: StoredRecord) -> Appended:
    return Appended((record.key or b"").decode("utf-8"), record.offset, record.timestamp_ms)


def answer_of(record: StoredRecord) -> Appended | None:
    """What a record of a stage answers; None where it asks for no list, or is a mark of progress."""
    if record.key == MARK_KEY:
        return None
    answer = msgspec.json.decode(record.value or b"", type=Answer)
    return Appended(answer.user_id, answer.offset, record.timestamp_ms) if answer.fresh else None


@dataclass
class Sample:
    """Users and items of the example's log, and the time of the newest event so far."""

    users: Sequence[str]
    items: Sequence[str]
    newest_ms: int

    def next_events(self, load: Load) -> list[Event]:
        """The events of a load, behind all there were."""
        events = load.events(self.users, self.items, self.newest_ms + AFTER_MS)
        self.newest_ms = events[-1].ts
        return events


def sample_of(settings: Settings) -> Sample:
    """The sample as it stands before the first load."""
    log = read_events(EXAMPLE / EVENTS_FILE, settings).events
    users, items = (list(dict.fromkeys(getattr(event, name) for event in log)) for name in ("user_id", "item_id"))
    return Sample(users, items, log[-1].ts)


async def measure(settings: Settings, loads: Sequence[Load]) -> list[RunResult]:
    """Bring the roles to the state after the sample, then one run for each load."""
    sample = sample_of(settings)
    runs = []
    async with running_roles(settings) as roles:
        assert roles.supervisor is not None
        await roles.supervisor.watch(warm(settings))
        for load in loads:
            runs.append(await roles.supervisor.watch(run_once(settings, load, sample.next_events(load))))
            rows = [[name, f"{np.percentile(runs[-1].latencies_ms, share):.1f}"] for name, share in SHARES.items()]
            print(f"run {len(runs)}: {', '.join(' '.join(row) for row in rows)}", flush=True)
        assert not roles.num_deaths, f"roles died: {roles.num_deaths}"
    return runs


async def warm(settings: Settings, limit: int | None = None) -> None:
    """Replay the example, or the first so many of its events, through the running roles."""
    await send_items(EXAMPLE / ITEMS_FILE, settings)
    sent = await replay_log(open_log(EXAMPLE / EVENTS_FILE), settings, limit=limit)
    await wait_caught_up(settings)
    print(f"warm: {sent.num_events:,} events of the sample worked off", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options: Any = parser.parse_args(arguments)
    loads = [Load(options.rate, options.seconds, options.seed + number) for number in range(options.runs)]
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder, terminate_as_interrupt():
        settings = demo_settings(Path(folder), EXAMPLE / CONFIG_FILE, EXAMPLE / MODEL_FOLDER)
        with fresh_broker(settings, APPEND_TIME) as (reached, _):
            runs = asyncio.run(measure(reached, loads))
    print(table(HOP_COLUMNS, _all_hops(runs)), end="\n\n")
    return finish(result_of(loads[0], runs))


if __name__ == "__main__":
    sys.exit(main())
