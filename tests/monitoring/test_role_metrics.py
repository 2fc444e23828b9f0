"""What is counted comes out under the right name, in the right unit."""

from __future__ import annotations

import math
import time

import pytest
from prometheus_client.exposition import generate_latest

from stream_app.faustkit.standing import InputStanding
from stream_app.monitoring.role_metrics import RoleMetrics
from tests.monitoring.cases import samples_of, value_of


def test_runs_and_publications_are_counted_by_topic_without_the_prefix() -> None:
    metrics = RoleMetrics("sequence", "test-")
    metrics.note_run(3, 0.01)
    metrics.note_run(5, 0.02)
    metrics.note_published("test-slices", 7)
    metrics.note_published("test-user-histories-changelog", 2)
    assert value_of(metrics.registry, "sliceflow_run_records_sum", role="sequence") == 8
    assert value_of(metrics.registry, "sliceflow_run_records_count", role="sequence") == 2
    assert math.isclose(value_of(metrics.registry, "sliceflow_run_seconds_sum", role="sequence"), 0.03)
    for topic, expected in (("slices", 7), ("changelog", 2)):
        name = "sliceflow_published_records_total"
        assert value_of(metrics.registry, name, role="sequence", topic=topic) == expected


def test_an_assignment_tells_what_was_recovered_and_how_long_it_took() -> None:
    metrics = RoleMetrics("trend")
    for num_records, seconds in ((100, 2.5), (10, 0.5)):
        metrics.note_recovered(num_records)
        metrics.note_opened(seconds)
    assert value_of(metrics.registry, "sliceflow_recovered_records_total", role="trend") == 110
    assert value_of(metrics.registry, "sliceflow_assignments_total", role="trend") == 2
    assert value_of(metrics.registry, "sliceflow_recovery_seconds", role="trend") == 0.5


def test_lag_is_that_of_the_partitions_assigned_now() -> None:
    metrics = RoleMetrics("encode", "p-")
    standings = [InputStanding("p-slices", 0, 12, 3.5), InputStanding("p-slices", 1, None, 0.0)]
    metrics.watch_inputs(lambda: standings, lambda: True)
    labels = {"role": "encode", "topic": "slices", "partition": "0"}
    assert value_of(metrics.registry, "sliceflow_lag_records", **labels) == 12
    assert value_of(metrics.registry, "sliceflow_commit_age_seconds", **labels) == 3.5
    assert value_of(metrics.registry, "sliceflow_ready", role="encode") == 1
    standings.clear()
    names = {name for name, _ in samples_of(generate_latest(metrics.registry).decode())}
    assert "sliceflow_lag_records" not in names


def test_freshness_is_the_age_of_the_event_in_seconds_and_never_negative() -> None:
    metrics = RoleMetrics("recommend")
    note = metrics.freshness_meter()
    now_ms = int(time.time() * 1000)
    note(now_ms - 20_000)
    note(now_ms + 60_000)  # a producer whose clock is ahead
    total = value_of(metrics.registry, "sliceflow_freshness_seconds_sum", role="recommend")
    assert total == pytest.approx(20, abs=5)
    labels = {"role": "recommend"}
    assert value_of(metrics.registry, "sliceflow_freshness_seconds_bucket", le="0.005", **labels) == 1


def test_a_tally_grows_by_what_it_is_told() -> None:
    metrics = RoleMetrics("sequence")
    take = metrics.tally("dead_letters", "Refused.", "reason")
    take({"not-json": 2})
    take({"not-json": 1, "no-user": 4})
    assert value_of(metrics.registry, "sliceflow_dead_letters_total", role="sequence", reason="not-json") == 3
    assert value_of(metrics.registry, "sliceflow_dead_letters_total", role="sequence", reason="no-user") == 4


def test_work_is_measured_in_size_and_time() -> None:
    metrics = RoleMetrics("encode")
    metrics.work_meter("encode", "slices", "A batch")(64, 0.25)
    assert value_of(metrics.registry, "sliceflow_encode_slices_sum", role="encode") == 64
    assert value_of(metrics.registry, "sliceflow_encode_seconds_sum", role="encode") == 0.25


def test_the_process_itself_is_measured() -> None:
    assert value_of(RoleMetrics("score").registry, "process_resident_memory_bytes") > 1_000_000
