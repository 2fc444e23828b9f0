"""Dials are chosen on the past for what wins there."""

from __future__ import annotations

import pytest

from stream_app.evaluation.families import choose_dials, families, standard_panel
from stream_app.records import Event
from tests.evaluation.cases import event, walked_log

TRANSITIONS = "last-item transitions"


def bursts() -> list[Event]:
    """Every hour another item is all that anybody takes; what follows what means nothing."""
    return [event(f"u{number % 40}", f"i{number // 30}", 2 * number) for number in range(1500)]


@pytest.mark.slow
def test_where_items_follow_each_other_popularity_only_breaks_ties() -> None:
    chosen = choose_dials(walked_log(3000, num_items=400, num_users=60, seed=1))
    assert chosen[TRANSITIONS].weight <= 10.0
    assert chosen.keys() == {family.name for family in families()}


@pytest.mark.slow
def test_where_the_hour_decides_popularity_decides() -> None:
    assert choose_dials(bursts())[TRANSITIONS].weight == 100.0


def test_a_log_without_targets_leaves_the_defaults() -> None:
    past = [event(f"u{number}", "p", number) for number in range(20)]
    assert choose_dials(past) == {}
    names = [baseline.name for baseline in standard_panel(past, {}).baselines]
    assert names[0] == "popularity, half-life 15m"
    assert len(names) == len(set(names)) == 10
