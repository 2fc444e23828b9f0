"""Processor time of a log without a broker and through Kafka: the figures, and what the system tells of a process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.bench.offline import Pass, Round, result_of
from tests.bench.stack import cpu_s

FACTS = {
    "events_in": 1000,
    "applied": 990,
    "dead_lettered": 4,
    "dropped": {"duplicate": 6},
    "users": 20,
    "recommendations": 20,
}


def round_of(offline_s: float, broker_s: float, roles_s: float, **kafka_facts: object) -> Round:
    """A round that took so many processor seconds."""
    kafka = Pass({**FACTS, **kafka_facts}, 4.0, {"kafka": broker_s, "trend": roles_s, "replay": 1.0})
    return Round(Pass(FACTS, 2.0, {"offline": offline_s}), kafka)


def test_figures_are_medians_of_the_rounds() -> None:
    result = result_of([round_of(1.0, 3.0, 4.0), round_of(2.0, 3.0, 4.0), round_of(1.0, 4.0, 5.0)])
    ratio = result.figures["offline_over_kafka_per_cpu_s"]
    assert (ratio.value, ratio.spread, ratio.reached) == (8.0, (4.0, 10.0), True)
    assert result.figures["offline_events_per_cpu_s"].value == 1000.0
    assert result.figures["kafka_events_per_cpu_s"].value == 125.0
    assert result.figures["offline_over_kafka_without_broker"].value == 5.0
    assert result.figures["kafka_events_per_s"].value == 250.0
    assert result.figures["kafka_cpu_s_trend"].value == 4.0
    assert result.is_sound


@pytest.mark.parametrize("wrong", [{"applied": 991}, {"dropped": {}}, {"recommendations": 19}])
def test_passes_that_come_to_other_things_are_no_success(wrong: dict[str, object]) -> None:
    assert not result_of([round_of(1.0, 1.0, 1.0), round_of(1.0, 1.0, 1.0, **wrong)]).is_sound


def test_processor_time_of_this_process() -> None:
    used_s = sum(os.times()[:2])
    while sum(os.times()[:2]) < used_s + 0.05:
        pass
    assert used_s <= cpu_s(os.getpid()) <= time.process_time() + 0.1


def test_processor_time_is_user_and_system_time_whatever_the_name_of_the_process(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    (tmp_path / "17").mkdir()
    fields = f"17 (a) b) S {' '.join(['0'] * 10)} {3 * ticks} {2 * ticks} 900 900"
    (tmp_path / "17" / "stat").write_text(fields, "utf-8")
    assert cpu_s(17, tmp_path) == 5.0
