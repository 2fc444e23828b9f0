"""The scorer that a log teaches, in memory: the same however the log is cut, and in the walk of training."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

from stream_app.models import list_rule, served_model
from stream_app.offline import Moment, OfflineStream
from stream_app.records import Event
from stream_app.settings import Settings
from stream_app.stages.listing import ScorerInForce
from tests.replay_cases import cut_rows, demo_encoder, demo_settings, replayed, sample_rows

pytestmark = pytest.mark.slow

NUM_EVENTS = 700
QUARTERS = (175, 350, 525)


@cache
def scorer_of(partitions: int, cuts: tuple[int, ...], **overrides: object) -> ScorerInForce:
    """The newest scorer after a replay."""
    _, replay = replayed(demo_settings(partitions, **overrides), cut_rows(sample_rows(NUM_EVENTS), cuts))
    return replay.scorer


def moments_of(settings: Settings, ask_from: int) -> list[Moment]:
    """The moments of a walk that learns, from an event on."""
    events = [msgspec.convert(row, Event) for row in sample_rows(NUM_EVENTS)]
    stream = OfflineStream(settings, demo_encoder(), list_rule(settings, served_model(settings)))
    return list(stream.walk(events, ask_from_ms=events[ask_from].ts))


def test_a_log_teaches_the_same_in_any_number_of_partitions_and_chunks() -> None:
    made = scorer_of(4, QUARTERS)
    assert made.epoch > 0
    assert scorer_of(1, tuple(range(1, NUM_EVENTS, 61))) == made


def test_nobody_sampled_nothing_learned() -> None:
    made = scorer_of(4, QUARTERS, score_users_share=1e-12)
    assert made.epoch == -1
    assert made.scorer == list_rule(demo_settings(), served_model(demo_settings())).scorer


def test_a_walk_learns_what_a_replay_learns_and_ranks_with_it() -> None:
    settings = demo_settings(4)
    moments = moments_of(settings, 0)
    last = [moment for moment in moments if moment.found is not None][-1]
    assert last.scorer is not None and last.scorer.epoch > 0
    rows = [row for row in sample_rows(NUM_EVENTS) if row["ts"] <= last.event.ts]
    _, replay = replayed(settings, [rows])
    assert replay.scorer == last.scorer
    assert len(last.listed(10)) == 10


def test_a_walk_learns_from_where_it_asks_on() -> None:
    moments = moments_of(demo_settings(4), NUM_EVENTS // 2)
    asked = [moment for moment in moments if moment.found is not None]
    assert moments[0].listed(10) == [], "nothing was asked there"
    assert asked[0].scorer is not None and asked[0].scorer.epoch == -1
    assert asked[-1].scorer is not None and asked[-1].scorer.epoch > 0


def test_a_walk_without_a_rule_has_no_scorer() -> None:
    settings = demo_settings(4)
    events = [msgspec.convert(row, Event) for row in sample_rows(60)]
    stream = OfflineStream(settings, demo_encoder())
    asked = [moment for moment in stream.walk(events, ask_from_ms=0) if moment.found is not None]
    assert asked
    with pytest.raises(ValueError, match="give `OfflineStream` a rule"):
        asked[0].listed(5)
