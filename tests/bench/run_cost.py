"""What a run of one event costs the roles `sequence` and `encode` themselves: all between its record and its effects.

Kafka, the stores and the loop that carries runs are left out; the hop to the encoder's thread is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import msgspec

from encoders.contract import SliceEncoder
from stream_app.agents.encode import EncodeProcessor, EncodeTopics
from stream_app.agents.sequence import SequenceProcessor, SequenceTopics
from stream_app.batching import SliceBatcher
from stream_app.drift_meter import DriftMeter
from stream_app.erasing import CutAtErasures, erased_records, erasures_of_events
from stream_app.event_log import read_events
from stream_app.faustkit import Effects, OutRecord, Processor, Run, Stored
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules, sequence_stage
from tests.bench.common import EXAMPLE
from tests.bench.timing import Took, in_turn, median_cpu_s

SLICES: Final = "slices"
VECTORS: Final = "slice-vectors"

SEQUENCE: Final = "sequence"
ENCODE: Final = "encode"


@dataclass
class KeptInMemory:
    """The values of one partition of a table."""

    values: dict[bytes, Stored] = field(default_factory=dict)

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """As `faustkit.keeping.Values`."""
        return [self.values.get(key) for key in keys]

    def keep(self, effects: Effects) -> None:
        """What a run changed and removed."""
        self.values.update(effects.changes)
        for key in effects.removed:
            self.values.pop(key, None)


@dataclass(frozen=True)
class OneByOne:
    """Events of a log, each a run of its own.

    Args:
        settings: Of the roles.
        encoder: Of the encode role.
        num_events: Taken from the example's log.
    """

    settings: Settings
    encoder: SliceEncoder
    num_events: int

    def runs(self) -> list[Run]:
        """The events as runs of `events`."""
        events = read_events(EXAMPLE / "events.ndjson.gz", self.settings, limit=self.num_events).events
        return [
            _run_of_one("events", place, event.user_id.encode(), msgspec.json.encode(event), event.ts)
            for place, event in enumerate(events)
        ]

    def sequence(self) -> Processor:
        """The sequence role's processor of a new partition."""
        rules = clean_rules(self.settings)
        topics = SequenceTopics(SLICES, "item-activity", "dead", "status", self.settings.partitions)
        processor = SequenceProcessor(sequence_stage(self.settings, 0), rules, topics)
        return CutAtErasures(processor, erasures_of_events(rules))

    def encode(self, executor: ThreadPoolExecutor) -> Processor:
        """The encode role's."""
        weights, share = self.settings.event_types, self.settings.drift_users_share
        batcher = SliceBatcher(self.encoder, executor, weights)
        meter = DriftMeter(self.encoder, executor, weights, users_share=share, instance="bench")
        return CutAtErasures(EncodeProcessor(batcher, EncodeTopics(VECTORS, "drift"), meter), erased_records)


async def outputs_of(processor: Processor, runs: Sequence[Run]) -> list[list[OutRecord]]:
    """What each run causes, one after the other, from nothing kept on."""
    kept, outputs = KeptInMemory(), []
    for run in runs:
        effects = await processor.process(run, kept)
        kept.keep(effects)
        outputs.append(effects.outputs)
    return outputs


def slice_runs(outputs: Sequence[Sequence[OutRecord]]) -> list[Run]:
    """Runs of `slices`, each of what one run of `events` caused; those that caused none are left out."""
    caused = [[record for record in records if record.topic == SLICES] for records in outputs]
    return [_run_of(SLICES, place, records) for place, records in enumerate(caused) if records]


class RunCosts(NamedTuple):
    """By role, how many runs there were, and what all of them took in each round."""

    num_runs: Mapping[str, int]
    times: Mapping[str, Sequence[Took]]

    def median_ms(self, role: str) -> float:
        """Processor milliseconds of a run."""
        return median_cpu_s(self.times[role]) / self.num_runs[role] * 1000


def run_costs(alone: OneByOne, num_rounds: int) -> RunCosts:
    """Time both roles in turn."""
    events = alone.runs()
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as executor:
        slices = slice_runs(runner.run(outputs_of(alone.sequence(), events)))

        def task(role: str) -> None:
            processor, runs = (alone.sequence(), events) if role == SEQUENCE else (alone.encode(executor), slices)
            runner.run(outputs_of(processor, runs))

        times = in_turn({role: partial(task, role) for role in (SEQUENCE, ENCODE)}, num_rounds)
    return RunCosts({SEQUENCE: len(events), ENCODE: len(slices)}, times)


def _run_of_one(topic: str, offset: int, key: bytes, value: bytes, ts_ms: int) -> Run:
    return Run(topic, 0, [offset], [key], [value], [ts_ms], [()])


def _run_of(topic: str, place: int, records: Sequence[OutRecord]) -> Run:
    offsets = [16 * place + behind for behind in range(len(records))]
    keys, values = [record.key for record in records], [record.value for record in records]
    return Run(topic, 0, offsets, keys, values, [0] * len(records), [()] * len(records))
