"""The bench of the whole chain: the search for the highest rate, what counts as sustained, and the figures."""

from __future__ import annotations

import argparse
import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.e2e import Step, highest, rates_of, result_of
from tests.bench.latency import Load, RunResult, Sample


def step(rate: float, waits_ms: list[float]) -> Step:
    """A run of which the lists came after these waits; NaN for none."""
    stages_ms_ES = np.array([[wait / 4, wait / 2, wait] for wait in waits_ms])
    return Step(rate, RunResult(stages_ms_ES, len(waits_ms), 1.0), {"kafka": 0.5, "encode": 0.25})


@given(limit=st.floats(1.0, 5000.0), first=st.sampled_from([50.0, 200.0]), num_halvings=st.integers(0, 6))
def test_the_highest_rate_is_found_to_within_the_last_gap(limit: float, first: float, num_halvings: int) -> None:
    tried: list[float] = []

    async def sustains(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = asyncio.run(highest(sustains, first, num_halvings))
    if limit < first:
        assert (found, tried) == (0.0, [first])
    else:
        assert found <= limit
        assert found in tried
        assert limit < found * (1 + 2**-num_halvings) or found == limit


def test_a_rate_is_sustained_when_all_are_answered_in_time() -> None:
    assert step(100, [10.0] * 100).is_sustained
    assert not step(100, [10.0] * 90 + [600.0] * 10).is_sustained
    assert not step(100, [10.0] * 99 + [np.nan]).is_sustained
    assert not step(100, [np.nan]).is_sustained


def test_targets_are_those_of_their_rate() -> None:
    result = result_of([step(100, [10.0] * 4), step(500, [6.0] * 4)], 5500.0)
    assert result.figures["p50_ms_at_100"].reached is None
    assert result.figures["p50_ms_at_500"].reached is True
    assert result.figures["p99_ms_at_500"].reached is True
    assert result.figures["highest_rate"].reached is True
    assert result.figures["cpu_ms_per_event_encode_at_500"].value == 0.25
    assert [row["p50"] for row in result.details["hops_ms"]["500"]] == ["1.5", "1.5", "3.0"]
    assert result.is_sound


def test_an_event_without_a_list_is_no_success() -> None:
    result = result_of([step(100, [10.0, np.nan])], None)
    assert result.figures["unanswered_at_100"].value == 1
    assert not result.is_sound
    assert "highest_rate" not in result.figures


def test_each_load_comes_behind_the_one_before() -> None:
    sample = Sample(["u1", "u2"], ["i1"], 1_000)
    first, second = sample.next_events(Load(10, 2, 0)), sample.next_events(Load(10, 2, 1))
    assert 1_000 < first[0].ts <= first[-1].ts < second[0].ts
    assert sample.newest_ms == second[-1].ts


@pytest.mark.parametrize("text", ["", "a", "100,-1", "0"])
def test_rates_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected numbers above zero"):
        rates_of(text)
