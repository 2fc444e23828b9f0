"""An hour of steady load with kills at random moments: memory stays flat, nothing is lost, and lists keep coming.

    python -m tests.faults.soak --minutes 60

Every few minutes `sliceflow audit` looks at everything there is. In the end there is a picture of memory, lag and
latency, with a line at each kill, and the samples behind it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from stream_app.broker import EmbeddedBroker
from stream_app.broker.errors import BrokerError
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.errors import KafkaUnreachableError
from stream_app.kafka import admin_client, partition_of
from stream_app.lag import committed_offsets, group_name
from stream_app.records import Recommendation
from stream_app.replay.caught_up import behind_of, wait_caught_up
from stream_app.replay.planning import PlannedRecord
from stream_app.replay.sender import BatchSender
from stream_app.role_process import settings_environment
from stream_app.roles import ROLE_INPUTS, ROLES
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader
from stream_app.topics import EVENTS, RECOMMENDATIONS, prefixed
from tests.bench.common import ROOT
from tests.faults.chain import Chain, supervised
from tests.faults.feeds import BROKEN, good_rows
from tests.faults.rig import Rig, example_settings
from tests.faults.soak_plot import draw

OUT: Final = ROOT / "build" / "soak"
SAMPLE_S: Final = 5.0
FEED_S: Final = 0.2
"""Between two batches of events."""

KILL_S: Final = (10.0, 40.0)
"""Shortest and longest time between two kills; a role is back in three seconds."""

BROKER_SHARE: Final = 0.1
"""Part of the kills that strike the broker."""

BROKEN_SHARE: Final = 0.01
"""Part of the records that are no events."""

AUDIT_BOUND_S: Final = 60
PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment.

    Args:
        at_s: Seconds since the start.
        memory_mib: Resident memory of each process.
        lag: Records that each role still has before it.
        latency_ms: From events to their lists, of all lists since the sample before, in order.
    """

    at_s: float
    memory_mib: Mapping[str, float]
    lag: Mapping[str, int]
    latency_ms: Sequence[float]


@dataclass
class Story:
    """All that happened: samples, kills as (seconds, victim), and what each audit said."""

    samples: list[Sample] = field(default_factory=list)
    kills: list[tuple[float, str]] = field(default_factory=list)
    audits: list[dict[str, Any]] = field(default_factory=list)

    @property
    def num_breaches(self) -> int:
        """Breaches that any audit found."""
        return sum(audit["num_breaches"] for audit in self.audits)


@dataclass(frozen=True)
class Plan:
    """How long, how much, and how often."""

    minutes: float
    events_per_s: float
    audit_minutes: float
    seed: int


class Soak:
    """One run.

    Args:
        plan: How long, how much, and how often.
        settings: With the address of `broker`.
        broker: Killed now and then.
        chain: The running roles.
    """

    def __init__(self, plan: Plan, settings: Settings, broker: EmbeddedBroker, chain: Chain) -> None:
        self.story = Story()
        self._plan = plan
        self._settings = settings
        self._broker = broker
        self._chain = chain
        self._rng = random.Random(plan.seed)
        self._started_s = time.monotonic()
        self._is_audited = asyncio.Lock()
        self._read_to: dict[int, int] = {}

    async def go(self) -> Story:
        """Feed, kill, look and audit until the time is over; then catch up, and audit once more."""
        meanwhile = [asyncio.create_task(work()) for work in (self._kill, self._sample, self._audit_regularly)]
        feeding = asyncio.create_task(self._feed())
        try:
            await asyncio.wait([feeding, *meanwhile], return_when=asyncio.FIRST_COMPLETED)
            for task in meanwhile:
                if task.done():
                    task.result()
            await feeding
        finally:
            for task in [feeding, *meanwhile]:
                task.cancel()
            await asyncio.gather(feeding, *meanwhile, return_exceptions=True)
        await wait_caught_up(self._settings)
        await self._audit()
        return self.story

    @property
    def _at_s(self) -> float:
        return time.monotonic() - self._started_s

    async def _feed(self) -> None:
        """Send events of now at a steady rate."""
        num_events = int(self._plan.minutes * 60 * self._plan.events_per_s)
        rows = good_rows(num_events, self._rng)
        async with BatchSender(self._settings, prefixed(self._settings.prefix, EVENTS)) as sender:
            while self._chain.num_sent < num_events:
                num_due = int(self._at_s * self._plan.events_per_s) - self._chain.num_sent
                async with self._chain.sending:
                    await sender.send(self._record(row) for row in islice(rows, max(0, num_due)))
                self._chain.num_sent += max(0, num_due)
                await asyncio.sleep(FEED_S)

    def _record(self, row: dict[str, Any]) -> PlannedRecord:
        now_ms = time.time_ns() // 1_000_000
        key = row["user_id"].encode("utf-8")
        is_broken = self._rng.random() < BROKEN_SHARE
        value = self._rng.choice(BROKEN) if is_broken else msgspec.json.encode({**row, "ts": now_ms})
        return PlannedRecord(partition_of(key, self._settings.partitions), now_ms, key, value, [])

    async def _kill(self) -> None:
        """Kill at random moments, but not under an audit: what it reads has to stand still for a moment."""
        while True:
            await asyncio.sleep(self._rng.uniform(*KILL_S))
            async with self._is_audited:
                victim = "broker" if self._rng.random() < BROKER_SHARE else self._rng.choice(ROLES)
                self.story.kills.append((self._at_s, victim))
                if victim != "broker":
                    await self._chain.kill(victim)
                    continue
                async with self._chain.sending:
                    self._broker.kill()
                    await asyncio.to_thread(self._broker.start)

    async def _sample(self) -> None:
        """Look at regular times; a look that falls into a broker's absence is left out."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            try:
                lag, latency_ms = await self._lag(), await self._latencies_ms()
            except KafkaUnreachableError:
                continue
            self.story.samples.append(Sample(round(self._at_s, 1), self._memory_mib(), lag, latency_ms))
            print(_line(self.story.samples[-1]), flush=True)

    def _memory_mib(self) -> dict[str, float]:
        pids = dict(self._chain.roles.pids)
        with suppress(BrokerError):  # it is being started again
            pids["broker"] = self._broker.pid
        return {name: resident for name, pid in pids.items() if (resident := _resident_mib(pid)) is not None}

    async def _lag(self) -> dict[str, int]:
        lag = {}
        async with admin_client(self._settings) as admin, TopicReader(self._settings) as reader:
            for role, name in ROLE_INPUTS.items():
                topic = prefixed(self._settings.prefix, name)
                offsets = await committed_offsets(admin, group_name(self._settings, role))
                committed = {number: offset for (seen, number), offset in offsets.items() if seen == topic}
                lag[role] = behind_of(await reader.bounds(topic), committed)
        return lag

    async def _latencies_ms(self) -> list[float]:
        """Of the lists since the last call."""
        topic = prefixed(self._settings.prefix, RECOMMENDATIONS)
        latencies: list[float] = []
        async with TopicReader(self._settings) as reader:
            bounds = await reader.bounds(topic)
            ranges = {number: (self._read_to.get(number, start), end) for number, (start, end) in bounds.items()}
            async for record in reader.read_range(topic, ranges):
                made = msgspec.json.decode(record.value or b"", type=Recommendation)
                latencies.append(float(record.timestamp_ms - made.event_ts))
            self._read_to = {number: end for number, (_, end) in ranges.items()}
        return sorted(latencies)

    async def _audit_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._plan.audit_minutes * 60)
            async with self._is_audited:
                await self._audit()

    async def _audit(self) -> None:
        command = [sys.executable, "-m", "stream_app.cli", "audit", "--json", "--bound-s", str(AUDIT_BOUND_S)]
        started_s = self._at_s
        process = await asyncio.create_subprocess_exec(
            *command, env=settings_environment(self._settings, os.environ), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        checks = [json.loads(line) for line in output.splitlines()]
        audit = {
            "at_s": round(started_s, 1),
            "took_s": round(self._at_s - started_s, 1),
            "exit_code": process.returncode,
            "num_breaches": sum(check["num_breaches"] for check in checks) if checks else 1,
            "checks": checks,
        }
        self.story.audits.append(audit)
        print(f"audit at {started_s:.0f} s: {audit['num_breaches']} breaches", flush=True)


def _resident_mib(pid: int) -> float | None:
    """Memory that a process holds now; None where it is gone, or the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * PAGE_KIB / 1024
    except OSError:
        return None


def _line(sample: Sample) -> str:
    memory = " ".join(f"{name} {mib:.0f}" for name, mib in sample.memory_mib.items())
    lag = " ".join(f"{role} {num}" for role, num in sample.lag.items())
    middle = sample.latency_ms[len(sample.latency_ms) // 2] if sample.latency_ms else float("nan")
    return f"{sample.at_s:.0f} s  MiB: {memory}  behind: {lag}  lists: {len(sample.latency_ms)}, {middle:.0f} ms"


async def _run(plan: Plan, broker: EmbeddedBroker, rig: Rig) -> Story:
    async with supervised(rig.settings, {}) as roles:
        assert roles.supervisor is not None
        return await roles.supervisor.watch(Soak(plan, rig.settings, broker, Chain(rig.settings, roles)).go())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 1 where an audit found a breach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--events-per-s", type=float, default=50.0)
    parser.add_argument("--audit-minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    plan = Plan(options.minutes, options.events_per_s, options.audit_minutes, options.seed)
    temporary = tempfile.TemporaryDirectory(prefix="sliceflow-soak-")
    with temporary as folder, terminate_as_interrupt(), EmbeddedBroker(None) as broker:
        rig = Rig(example_settings(broker.bootstrap_servers, "", Path(folder)), Path(folder))
        story = uvloop.run(_run(plan, broker, rig))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "soak.json").write_text(json.dumps({**asdict(story), "plan": asdict(plan)}), "utf-8")
    draw(story.samples, story.kills, OUT / "soak.png")
    print(f"{len(story.kills)} kills, {len(story.audits)} audits, {story.num_breaches} breaches; {OUT / 'soak.png'}")
    return 1 if story.num_breaches else 0


if __name__ == "__main__":
    sys.exit(main())
