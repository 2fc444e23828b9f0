"""The measured figures that `sliceflow plan` computes with, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import msgspec


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One figure: `figure` of a result file, divided by its figure `per` where there is one.

    A test compares `value` with the file.
    """

    value: float
    file: str
    figure: str
    per: str = ""


class RoleFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one role costs.

    Args:
        cpu_ms_per_event: Processor time for an event of `events`, at full load.
        peak_mib: The most memory its process held, with the few items of the measurement.
        store_bytes_per_user: On disk, in the store; none for a role whose store has nothing of users.
        store_bytes_per_item: On disk, in the store; none for a role whose store has nothing of items.
    """

    cpu_ms_per_event: Measured
    peak_mib: Measured
    store_bytes_per_user: Measured | None = None
    store_bytes_per_item: Measured | None = None


class KafkaFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the brokers have to do.

    Args:
        cpu_ms_per_event: Processor time of a single broker for an event, everything that it causes included.
        record_bytes: On disk, for one record of a topic that grows with the events.
    """

    cpu_ms_per_event: Measured
    record_bytes: Mapping[str, Measured]


class MeasuredFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them.

    Args:
        machine: Where they were measured, in words.
        roles: By role.
        kafka: Of the brokers.
        recovery_records_per_s: Changelog records of some hundred bytes that one worker takes in a second.
        latency_p50_ms: From an event to its list, at `latency_events_per_s`, all on one machine of two cores.
        latency_p99_ms: The same, for one in a hundred.
        latency_events_per_s: The rate of that measurement.
    """

    machine: str
    roles: Mapping[str, RoleFigures]
    kafka: KafkaFigures
    recovery_records_per_s: Measured
    latency_p50_ms: Measured
    latency_p99_ms: Measured
    latency_events_per_s: float


def load_measured() -> MeasuredFigures:
    """The figures that come with the package."""
    data = resources.files("stream_app.planning").joinpath("measured.json").read_bytes()
    return msgspec.json.decode(data, type=MeasuredFigures)
