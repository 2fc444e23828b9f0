"""The plan follows from the figures, by hand in small cases; the figures are those of the result files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.planning.measured import KafkaFigures, Measured, MeasuredFigures, RoleFigures, load_measured
from stream_app.planning.sizing import (
    DAY_S,
    ITEM_VIEW_BYTES,
    MAX_USE,
    MEMORY_MARGIN,
    MIB,
    Load,
    partitions_for,
    plan_for,
)
from stream_app.roles import ROLES, SINGLE_ROLES
from tests.examples import examples

ROOT = Path(__file__).parents[2]
LOADS = st.builds(
    Load,
    users=st.integers(1, 10**8),
    events_per_s=st.floats(0.1, 1e5),
    items=st.integers(1, 10**7),
    standbys=st.integers(0, 3),
)


def figure(value: float) -> Measured:
    """A figure of no file."""
    return Measured(value, "none", "none")


def simple(cpu_ms: float = 1.0) -> MeasuredFigures:
    """Round figures, the same for every role."""
    role = RoleFigures(figure(cpu_ms), figure(100.0), store_bytes_per_user=figure(1000.0))
    kafka = KafkaFigures(figure(2.0), {"events": figure(100.0), "slices": figure(400.0)})
    return MeasuredFigures("a machine", dict.fromkeys(ROLES, role), kafka, figure(1e5), figure(20), figure(90), 200)


def test_a_small_load_by_hand() -> None:
    load = Load(users=1_000_000, events_per_s=1000, items=10_000, dim=64, retention_days=1, replication=3, standbys=1)
    plan = plan_for(load, simple())
    by_role = {role.role: role for role in plan.roles}
    # 1,000 events/s at 1 ms are one core, at most .6 of a core each: two workers; 2 x 2 partitions.
    assert (by_role["trend"].cores, by_role["trend"].workers, plan.partitions) == (1.0, 2, 4)
    # 1 GB of values, on two workers, with a standby of each, and room for as much again.
    assert by_role["trend"].disk_mib == -(-2 * 2 * 1_000_000_000 // 2 // MIB)
    assert by_role["trend"].recovery_s == 1_000_000 / 2 / 1e5
    assert by_role["trend"].memory_mib == 100 * MEMORY_MARGIN
    views = 10_000 * (2 * 64 * 4 + 2 * ITEM_VIEW_BYTES) / MIB
    assert by_role["recommend"].memory_mib == pytest.approx(100 * MEMORY_MARGIN + views, abs=1)
    assert plan.kafka_cores == 6.0
    kept = 6 * 1_000_000_000 * 2.0
    assert plan.kafka_disk_gib * 1024**3 == pytest.approx(3 * (500 * 1000 * DAY_S + kept))


def test_the_role_that_cannot_be_divided_is_named() -> None:
    plan = plan_for(Load(users=1, events_per_s=2000, items=1), simple())
    (single,) = [role for role in plan.roles if role.role in SINGLE_ROLES]
    assert single.workers == 1
    assert any("score cannot be divided" in note for note in plan.notes)


@given(LOADS)
@examples(25)
def test_more_of_anything_never_needs_less(load: Load) -> None:
    measured = simple(0.5)
    plan = plan_for(load, measured)
    larger = Load(load.users * 2, load.events_per_s * 2, load.items * 2, standbys=load.standbys)
    more = plan_for(larger, measured)
    assert more.partitions >= plan.partitions
    assert more.kafka_disk_gib >= plan.kafka_disk_gib
    assert all(after.workers >= before.workers for before, after in zip(plan.roles, more.roles, strict=True))
    for role in plan.roles:
        assert role.workers <= plan.partitions
        assert role.role in SINGLE_ROLES or role.cores / role.workers <= MAX_USE * 1.000001


@given(st.lists(st.integers(1, 500), min_size=1, max_size=6))
@examples(25)
def test_partitions_are_the_least_power_of_two_that_lets_workers_double(workers: list[int]) -> None:
    found = partitions_for(workers)
    assert found >= max(4, 2 * max(workers))
    assert found == 4 or found // 2 < 2 * max(workers)
    assert found.bit_count() == 1


def every_figure(found: MeasuredFigures) -> Iterator[Measured]:
    """Each figure that the package holds."""
    for role in found.roles.values():
        yield from (one for one in msgspec.structs.astuple(role) if one is not None)
    yield from (found.kafka.cpu_ms_per_event, *found.kafka.record_bytes.values())
    yield from (found.recovery_records_per_s, found.latency_p50_ms, found.latency_p99_ms)


def test_every_figure_is_the_one_of_its_file() -> None:
    measured = load_measured()
    assert set(measured.roles) == set(ROLES)
    for one in every_figure(measured):
        targets = json.loads((ROOT / one.file).read_text())["targets"]
        divisor = targets[one.per]["value"] if one.per else 1
        assert one.value == pytest.approx(targets[one.figure]["value"] / divisor, rel=1e-3), one
