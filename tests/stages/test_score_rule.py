"""Scorer-epochs and sampling: what all roles must agree on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.settings import Settings
from stream_app.settings_rules import score_rule
from stream_app.stages.score_rule import ScoreRule

RULE = ScoreRule(epoch_ms=10, scorer_epoch_ms=40, users_share=0.25, choices_per_epoch=9)


@pytest.mark.parametrize(
    ("join_epoch", "scorer_epoch"),
    [(-1, 0), (0, 0), (2, 0), (3, 1), (6, 1), (7, 2)],
    ids=lambda value: str(value),
)
def test_an_event_that_joins_epoch_e_happened_in_the_one_after(join_epoch: int, scorer_epoch: int) -> None:
    assert RULE.epoch_of(join_epoch, 0) == scorer_epoch
    assert RULE.joined(join_epoch) == scorer_epoch - 1


def test_a_live_event_is_counted_by_its_own_time_and_joins_the_newest() -> None:
    assert [RULE.epoch_of(None, ts_ms) for ts_ms in (0, 39, 40, 81)] == [0, 0, 1, 2]
    assert RULE.joined(None) is None


def test_a_quarter_of_the_users_is_sampled_and_none_or_all_at_the_ends() -> None:
    keys = [b"user-%d" % number for number in range(4000)]
    assert 900 < sum(map(RULE.is_sampled, keys)) < 1100
    assert not any(map(ScoreRule(10, 40, 0.0, 9).is_sampled, keys))
    assert all(map(ScoreRule(10, 40, 1.0, 9).is_sampled, keys))


@given(small=st.floats(0, 1), large=st.floats(0, 1), key=st.binary(max_size=9))
def test_who_is_in_a_sample_is_in_every_larger_one(small: float, large: float, key: bytes) -> None:
    small, large = sorted([small, large])
    assert ScoreRule(10, 40, small, 9).is_sampled(key) <= ScoreRule(10, 40, large, 9).is_sampled(key)


@given(epoch_s=st.floats(0.001, 5000), scorer_epoch_s=st.floats(0.001, 5000))
def test_a_scorer_epoch_is_a_whole_number_of_epochs_and_as_long_as_asked_for(
    epoch_s: float, scorer_epoch_s: float
) -> None:
    rule = score_rule(Settings(epoch_s=epoch_s, scorer_epoch_s=scorer_epoch_s))
    assert rule.scorer_epoch_ms % rule.epoch_ms == 0
    assert 0 <= rule.scorer_epoch_ms - int(scorer_epoch_s * 1000) < rule.epoch_ms
