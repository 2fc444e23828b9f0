"""Activity of several sources, and a trend worker without Kafka."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
from hypothesis import strategies as st

from stream_app.records import ActivityRecord, TrendRecord
from stream_app.stages.popularity import ItemStatistics, TrendRule
from stream_app.stages.trend import TrendStage, TrendTotals
from tests.stages.cases import pieces

RULE = TrendRule(epoch_ms=1000, half_lives_ms=(500.0, 3000.0, 60_000.0), max_predecessors=50)
NUM_SOURCES = 2
ITEMS = "pqr"

Source = list[ActivityRecord]


@st.composite
def source(draw: st.DrawFn, number: int) -> Source:
    """The activity of one partition of events: one touch an event, epochs that never go back."""
    made: Source = []
    epoch = 0
    for offset in range(draw(st.integers(1, 8))):
        epoch += draw(st.sampled_from([0, 0, 1, 3]))
        common = {"partition": number, "offset": offset, "epoch": epoch}
        before = draw(st.lists(st.sampled_from(ITEMS), unique=True))
        item, weight = draw(st.sampled_from(ITEMS)), draw(st.sampled_from([1000, 333, 3000]))
        touched = {"item_id": item, "weight_milli": weight, "before": before}
        made.append(msgspec.convert({**common, **touched}, ActivityRecord))
    # A last mark, far ahead, so that everything becomes complete.
    made.append(ActivityRecord(partition=number, offset=99, epoch=epoch + 10))
    return made


SOURCES = st.tuples(*(source(number) for number in range(NUM_SOURCES)))


def interleaved(sources: Sequence[Source], seed: int) -> Source:
    """One order in which the records of the sources may arrive."""
    chooser = random.Random(seed)
    rests = [list(part) for part in sources]
    arrived: Source = []
    while any(rests):
        rest = chooser.choice([rest for rest in rests if rest])
        arrived.append(rest.pop(0))
    return arrived


@dataclass
class TrendWorker:
    """A trend worker whose table holds bytes."""

    rule: TrendRule = RULE
    table: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    totals: bytes | None = None
    published: list[TrendRecord] = field(default_factory=list)
    complete: list[int] = field(default_factory=list)
    stage: TrendStage = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything but the table."""
        self.stage = TrendStage(NUM_SOURCES, self.rule)
        if self.totals is not None:
            self.stage.totals = msgspec.msgpack.decode(self.totals, type=TrendTotals)
        for item_id, (_, statistics) in self.load(list(self.table)).items():
            self.stage.restore_item(item_id, statistics)

    def load(self, item_ids: Sequence[str]) -> dict[str, tuple[int, ItemStatistics]]:
        """Fresh copies of kept statistics."""
        return {
            item_id: (self.table[item_id][0], msgspec.msgpack.decode(self.table[item_id][1], type=ItemStatistics))
            for item_id in item_ids
            if item_id in self.table
        }

    def run(
        self,
        log: Source,
        offsets: range,
        idle: frozenset[int] = frozenset(),
        lost: frozenset[str] | None = None,
    ) -> None:
        """Take a run. With `lost` the worker dies while keeping it: these items and the totals are lost."""
        self.stage.begin_run(self.load)
        for offset in offsets:
            self.stage.take(log[offset], offset)
        folded, complete = self.stage.end_run(offsets[-1], idle)
        self.published += folded
        if complete is not None:
            self.complete.append(complete)
        for item_id, (position, statistics) in self.stage.changed.items():
            if lost is None or item_id not in lost:
                self.table[item_id] = (position, msgspec.msgpack.encode(statistics))
        if lost is None:
            self.totals = msgspec.msgpack.encode(self.stage.totals)
        else:
            self.restart()

    def run_all(self, log: Source, cuts: Iterable[int] = ()) -> TrendWorker:
        """Take a whole log, cut into runs."""
        for offsets in pieces(len(log), cuts):
            self.run(log, offsets)
        return self

    def statistics(self) -> dict[str, ItemStatistics]:
        """What the table holds, without positions."""
        return {item_id: statistics for item_id, (_, statistics) in self.load(list(self.table)).items()}
