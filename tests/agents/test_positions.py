"""Source positions never go back: what is read again may end earlier than what the values reflect already."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from stream_app import tables
from stream_app.agents.recommend import RecommendProcessor, RecommendTopics
from stream_app.agents.trend import TrendProcessor, TrendTopics
from stream_app.faustkit import Effects, Processor, Run, Stored
from stream_app.records import ActivityRecord, SliceVectorRecord, encode, pack_vector
from stream_app.stages.learning import Scorer
from stream_app.stages.listing import ListRule
from stream_app.stages.popularity import TrendRule
from stream_app.stages.profile import UserProfile
from stream_app.stages.score_rule import ScoreRule
from stream_app.stages.trend import TrendStage

RELEASE = "slices-1"


class Kept:
    """The values of a partition, as the last processor left them."""

    def __init__(self) -> None:
        self.values: dict[bytes, Stored] = {}

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """The values of `keys`."""
        return [self.values.get(key) for key in keys]

    def take(self, processor: Processor, run: Run) -> Effects:
        """Process a run and keep its changes."""
        effects = asyncio.run(processor.process(run, self))
        for key, change in effects.changes.items():
            known = self.values.get(key)
            assert known is None or known.position <= change.position, f"{key!r} went back"
        self.values.update(effects.changes)
        return effects


def run_of_values(values: Sequence[bytes], first_offset: int) -> Run:
    """A run with these values at offsets one after the other."""
    return Run(
        topic="input",
        partition=0,
        offsets=range(first_offset, first_offset + len(values)),
        keys=[b"k"] * len(values),
        values=values,
        timestamps_ms=[0] * len(values),
        headers=[()] * len(values),
    )


def trend_processor(kept: Kept) -> TrendProcessor:
    """A worker that has just taken over."""
    stage = TrendStage(1, TrendRule(1000, (1000.0, 5000.0)))
    made = TrendProcessor(stage, TrendTopics("trends"), lambda: 0.0)
    made.restore(iter(kept.values.items()))
    return made


def test_trends_that_are_read_again_leave_newer_positions_alone() -> None:
    activity = [
        encode(ActivityRecord(partition=0, offset=offset, epoch=offset // 4, item_id=f"i{offset % 3}"))
        for offset in range(20)
    ]
    kept = Kept()
    kept.take(trend_processor(kept), run_of_values(activity, 0))
    assert kept.values[tables.PARTITION_KEY].position == 19
    again = kept.take(trend_processor(kept), run_of_values(activity[:9], 0))
    assert kept.values[tables.PARTITION_KEY].position == 19
    assert again.outputs == []


def test_profiles_that_are_read_again_leave_newer_positions_alone() -> None:
    vectors = [
        encode(
            SliceVectorRecord(
                user_id="u",
                seq=0,
                revision=offset,
                closed=False,
                fresh=False,
                items=["i1"],
                last_ts=5,
                partition=0,
                offset=offset,
                release=RELEASE,
                slice_vector=pack_vector(np.ones(2, np.float32)),
                user_vector=pack_vector(np.ones(2, np.float32)),
                num_slices_merged=0,
            )
        )
        for offset in range(5)
    ]
    scorer = Scorer(feature_names=["popularity"], weights=[0.0])
    rule = ListRule("events", RELEASE, scorer, ScoreRule(10, 20, 1.0, 9), 10, 10)
    nobody: Any = None  # who is not asked when there is nothing new
    processor = RecommendProcessor(rule, RecommendTopics("lists"), nobody, nobody, nobody)
    kept = Kept()
    kept.values[b"u"] = Stored(100, tables.encode_value(UserProfile(seen=["i1"])))
    assert kept.take(processor, run_of_values(vectors, 81)).changes == {}
    assert kept.values[b"u"].position == 100
