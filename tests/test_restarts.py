"""When a worker is started again: the table of cases, and what holds for every sequence of deaths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.restarts import SETTINGS_EXIT_CODE, Life, RestartRule, Standing, after_death

RULE = RestartRule(first_delay_s=0.2, max_delay_s=10.0, healthy_after_s=60.0, max_failed_starts=3)


def died_unready(exit_code: int = 1) -> Life:
    """A life that ended before the worker was ready."""
    return Life(started_s=0.0, ready_s=None, ended_s=2.0, exit_code=exit_code)


def died_after(ready_for_s: float) -> Life:
    """A life that was ready for so long."""
    return Life(started_s=0.0, ready_s=1.0, ended_s=1.0 + ready_for_s)


@pytest.mark.parametrize(
    ("standing", "life", "expected"),
    [
        (Standing(0, False), died_unready(), 0.2),
        (Standing(1, False), died_unready(), 0.4),
        (Standing(2, False), died_unready(), None),
        (Standing(0, False), died_unready(SETTINGS_EXIT_CODE), None),
        # Who was ready once is never given up: its broker may be away for an hour.
        (Standing(2, True), died_unready(), 0.8),
        (Standing(0, True), died_unready(SETTINGS_EXIT_CODE), 0.2),
        (Standing(2, False), died_after(0.5), 0.8),
        (Standing(5, True), died_after(0.5), 6.4),
        (Standing(6, True), died_after(0.5), 10.0),
        (Standing(100_000, True), died_after(59.9), 10.0),
        (Standing(6, True), died_after(60.0), 0.2),
    ],
)
def test_the_pause_before_the_next_start(standing: Standing, life: Life, expected: float | None) -> None:
    assert after_death(standing, life, RULE)[1] == pytest.approx(expected)


LIVES = st.builds(
    lambda ready, lasted_s, code: Life(0.0, 1.0 if ready else None, 1.0 + lasted_s, code),
    st.booleans(),
    st.floats(0, 200),
    st.sampled_from([1, SETTINGS_EXIT_CODE, -9]),
)


@given(st.lists(LIVES, max_size=30))
def test_pauses_grow_until_a_healthy_life_and_never_leave_their_bounds(lives: list[Life]) -> None:
    standing, last_s, was_ready = Standing(), 0.0, False
    for life in lives:
        standing, delay_s = after_death(standing, life, RULE)
        was_ready = was_ready or life.ready_s is not None
        if delay_s is None:
            assert not was_ready
            return
        assert RULE.first_delay_s <= delay_s <= RULE.max_delay_s
        was_healthy = life.ready_s is not None and life.ended_s - life.ready_s >= RULE.healthy_after_s
        if was_healthy:
            assert delay_s == RULE.first_delay_s
        else:
            assert delay_s == pytest.approx(min(RULE.max_delay_s, max(RULE.first_delay_s, 2 * last_s)))
        last_s = delay_s


@given(st.integers(1, 10))
def test_a_worker_that_is_never_ready_is_given_up_after_so_many_starts(num_starts: int) -> None:
    rule = RestartRule(max_failed_starts=num_starts)
    standing, delays = Standing(), []
    for _ in range(num_starts):
        standing, delay_s = after_death(standing, died_unready(), rule)
        delays.append(delay_s)
    assert delays[-1] is None and None not in delays[:-1]
