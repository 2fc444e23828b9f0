"""The measurement of memory: growth, what the system tells, and a small run of the real thing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker import EmbeddedBroker
from tests.bench.memory import Sample, growth, measure, resident_mib, result_of
from tests.bench.sequence.job import Load


@given(st.floats(min_value=-50, max_value=50), st.floats(min_value=1000, max_value=2000), st.integers(4, 600))
def test_steady_growth_is_found_as_it_is(slope: float, start_mib: float, num_samples: int) -> None:
    samples = [Sample(float(at_s), start_mib + slope * at_s / 60) for at_s in range(num_samples)]
    ratio, found = growth(samples)
    assert found == pytest.approx(slope, abs=1e-3)
    assert (ratio > 1) == (slope > 0) or ratio == pytest.approx(1)


def test_a_cache_that_fills_up_is_no_leak() -> None:
    filling = [Sample(float(at_s), min(500.0, 100.0 + 10 * at_s)) for at_s in range(100)]
    ratio, slope = growth(filling)
    assert ratio == 1.0
    assert slope == pytest.approx(0.0, abs=1e-6)


def test_the_peak_counts_the_start_and_growth_does_not() -> None:
    samples = [Sample(-2.0, 700.0), Sample(-1.0, 90.0)] + [Sample(float(at_s), 100.0) for at_s in range(8)]
    figures = result_of(Load(10, 5), 5.0, samples, 0).figures
    assert (figures["peak_mib"].value, figures["peak_mib"].reached) == (700.0, False)
    assert (figures["start_peak_mib"].value, figures["flow_peak_mib"].value) == (700.0, 100.0)
    assert figures["second_half_over_first"].value == 1.0


def test_resident_memory_is_read_as_the_system_writes_it(tmp_path: Path) -> None:
    for pid, text in ((1, "Name:\tx\nVmHWM:\t 9999 kB\nVmRSS:\t 2048 kB\n"), (2, "Name:\tgone\n")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "status").write_text(text)
    assert resident_mib(1, tmp_path) == 2.0
    with pytest.raises(ValueError, match="Process 2"):
        resident_mib(2, tmp_path)


@pytest.mark.kafka
@pytest.mark.slow
def test_a_small_run(broker: EmbeddedBroker, tmp_path: Path) -> None:
    load = Load(600, 1000, "uniform")
    samples, num_differing = asyncio.run(measure(broker.bootstrap_servers, load, 100.0, tmp_path))
    figures = result_of(load, 100.0, samples, num_differing).figures
    assert num_differing == 0
    assert figures["start_peak_mib"].value > 0
    assert figures["flow_peak_mib"].value > 20
