"""Processors that are counted do as they did; what they caused is in the counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from stream_app.faustkit import Effects, OutRecord, Run, Stored, Values
from stream_app.monitoring.append_times import APPENDED_HEADER
from stream_app.monitoring.processors import CarryingEncode, CountedSequence, TimedRecommend
from stream_app.records import DriftRecord, encode
from stream_app.settings import Settings
from stream_app.settings_rules import sequence_stage
from stream_app.stages.sequence import SequenceStage

LIVE = Run("events", 0, [0, 1], [b"a", b"b"], [b"", b""], [1500, 1200], [(), ()])
CARRYING = Run("slices", 0, [0], [b"a"], [b""], [0], [[(APPENDED_HEADER, b"1200")]])


class Nothing:
    """No value is kept."""

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """Nothing."""
        return [None] * len(keys)


class Scripted:
    """Publishes one record a run, and lets the stage count what it is told to."""

    def __init__(self, topic: str, stage: SequenceStage | None = None) -> None:
        self.topic = topic
        self.stage = stage
        self.num_outputs = 1
        self.facts: list[OutRecord] = []
        self.restored: list[tuple[bytes, Stored]] = []

    def opening(self) -> list[OutRecord]:
        """One record."""
        return [OutRecord(self.topic, 0, b"first", b"")]

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Note what the store holds."""
        self.restored = list(items)

    async def process(self, run: Run, values: Values) -> Effects:
        """The scripted effects."""
        if self.stage is not None:
            self.stage.applied += 5
            self.stage.dropped["duplicate"] = self.stage.dropped.get("duplicate", 0) + 2
            self.stage.take_dead_letter("not-json")
        return Effects([OutRecord(self.topic, 0, b"a", b"{}")] * self.num_outputs, facts=self.facts)


def test_what_became_of_the_events_of_each_run_is_counted_but_not_what_was_before() -> None:
    stage = sequence_stage(Settings(), 0)
    stage.applied, stage.dropped = 1000, {"duplicate": 7}
    told: dict[str, Counter[str]] = {"outcomes": Counter(), "drops": Counter(), "dead_letters": Counter()}
    processor = CountedSequence(
        Scripted("slices", stage),
        stage,
        "slices",
        outcomes=told["outcomes"].update,
        drops=told["drops"].update,
        dead_letters=told["dead_letters"].update,
    )
    for _ in range(2):
        effects = asyncio.run(processor.process(LIVE, Nothing()))
    assert told["outcomes"] == {"applied": 10, "dropped": 4, "dead_letter": 2}
    assert told["drops"] == {"duplicate": 4}
    assert told["dead_letters"] == {"not-json": 2}
    assert list(effects.outputs[0].headers) == [(APPENDED_HEADER, b"1200")]


def test_the_time_is_carried_through_and_told_once_the_lists_are_acknowledged() -> None:
    told_overlap: list[float] = []
    encode_role = CarryingEncode(Scripted("slice-vectors"), "slice-vectors", "drift", told_overlap.append)
    vectors = asyncio.run(encode_role.process(CARRYING, Nothing()))
    run = Run("slice-vectors", 0, [0], [b"a"], [b""], [0], [vectors.outputs[0].headers])
    told: list[int] = []
    recommend = Scripted("recommendations")
    effects = asyncio.run(TimedRecommend(recommend, told.append).process(run, Nothing()))
    assert told == []
    assert effects.on_published is not None
    effects.on_published()
    assert (told, told_overlap) == ([1200], [])
    recommend.num_outputs = 0
    assert asyncio.run(TimedRecommend(recommend, told.append).process(run, Nothing())).on_published is None


def test_the_drift_is_told_where_it_was_measured() -> None:
    figures = DriftRecord(
        release="r",
        instance="i",
        checks=3,
        users=1,
        users_left_out=0,
        slices=20,
        mean_cosine=1.0,
        min_cosine=0.9,
        mean_overlap_10=0.75,
    )
    within = Scripted("slice-vectors")
    within.facts = [OutRecord("drift", 0, b"r i", encode(figures)), OutRecord("status", 0, b"0", b"{}")]
    told: list[float] = []
    asyncio.run(CarryingEncode(within, "slice-vectors", "drift", told.append).process(CARRYING, Nothing()))
    assert told == [0.75]


def test_everything_else_is_the_processors_own() -> None:
    within = Scripted("recommendations")
    processor = TimedRecommend(within, lambda _: None)
    processor.restore([(b"k", Stored(1, b"v"))])
    assert within.restored == [(b"k", Stored(1, b"v"))]
    assert processor.opening() == within.opening()
