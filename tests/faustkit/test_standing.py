"""Lag and commit age from one look after the other."""

from __future__ import annotations

import pytest

from stream_app.faustkit.standing import PartitionProgress, StandingLog


def seen(committed: int, fetched: int, end: int, stable: int = -1, position: int | None = 0) -> PartitionProgress:
    """One look at a partition."""
    return PartitionProgress("inputs", 0, committed, fetched, position, end, stable=stable)


@pytest.mark.parametrize(
    ("progress", "lag"),
    [
        (seen(7, 7, 7), 0),
        (seen(4, 7, 9), 5),
        (seen(4, 7, 9, stable=20), 16),
        (seen(-1, -1, 9, position=3), 6),  # nothing committed: what lies behind the place it reads from
        (seen(-1, -1, 9, position=None), None),
        (seen(-1, -1, -1), None),
        (seen(9, 9, 5), 0),  # the end is as old as the last question
    ],
)
def test_lag(progress: PartitionProgress, lag: int | None) -> None:
    assert progress.lag == lag


def test_commit_age_counts_from_the_last_commit_while_something_is_due() -> None:
    log = StandingLog()
    ages = []
    looks = [(7, 7), (7, 9), (7, 9), (8, 9), (8, 9), (9, 9), (9, 9), (9, 12)]
    for now_s, (committed, fetched) in enumerate(looks):
        log.look([seen(committed, fetched, 99)], float(now_s))
        ages.append(log.newest[0].uncommitted_s)
    assert ages == [0, 1, 2, 0, 1, 0, 0, 1]


def test_a_partition_that_was_given_away_is_forgotten() -> None:
    log = StandingLog()
    log.look([seen(1, 5, 9)], 0.0)
    log.look([], 5.0)
    assert log.newest == []
    log.look([seen(1, 5, 9)], 6.0)
    assert log.newest[0].uncommitted_s == 0.0
