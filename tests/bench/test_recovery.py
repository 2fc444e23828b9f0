"""The measurement of recovery: its figures, and a small run of the real thing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stream_app.broker import EmbeddedBroker
from tests.bench.recovery import Life, Measured, measure, result_of


def test_figures() -> None:
    fresh = [Life(1000, 2.0, 3.0), Life(1000, 1.0, 9.0), Life(1200, 4.0, 5.0)]
    measured = Measured(fresh, Life(0, 0.1, 1.0), Life(40, 0.1, 1.5), num_last_moment=29, num_differing=0)
    result = result_of(1000, measured)
    assert (result.figures["records_per_s"].value, result.figures["records_per_s"].spread) == (500.0, (300.0, 1000.0))
    assert result.figures["empty_ready_s"].value == 5.0
    assert result.figures["records_after_stop"].reached
    assert result.figures["records_after_kill"].reached is False
    assert result.is_sound


@pytest.mark.kafka
@pytest.mark.slow
def test_a_small_run(broker: EmbeddedBroker, tmp_path: Path) -> None:
    measured = asyncio.run(measure(broker.bootstrap_servers, 2000, 1, tmp_path))
    result = result_of(2000, measured)
    assert measured.fresh[0].num_records >= 2000
    assert measured.num_last_moment > 0
    assert result.figures["records_after_stop"].reached
    assert result.figures["records_after_kill"].reached
    assert result.is_sound
