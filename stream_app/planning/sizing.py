"""From a load to workers, memory, disks, partitions and recovery times. Pure; the figures are arguments.

All is proportional to what was measured, with stated margins: good for a first order of machines, no promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stream_app.planning.measured import MeasuredFigures, RoleFigures
from stream_app.roles import ROLES, SINGLE_ROLES

MAX_USE: Final = 0.6
"""Of a core, on average: the rest is for bursts, for catching up, and for a neighbour that is being restarted."""

PARTITIONS_PER_WORKER: Final = 2
"""So that the workers may double before the partitions are used up: their number is hard to change later."""

MIN_PARTITIONS: Final = 4

ITEM_VIEW_BYTES: Final = 6144
"""Memory of one partition's view of one touched item's trends (ARCHITECTURE.md, "Known limits")."""

VIEWING_ROLES: Final = frozenset({"choose", "recommend"})
"""The roles that hold the item index, the catalogue and the trends in memory."""

INDEX_COPIES: Final = 2
"""The vectors lie in FAISS and in the table beside it."""

FLOAT_BYTES: Final = 4

MEMORY_MARGIN: Final = 1.5
"""Over the peaks of the measurement, whose catalogues and stores were small."""

DISK_MARGIN: Final = 2.0
"""RocksDB holds old and new files while it compacts, and so does Kafka while it cleans."""

CHANGELOGS: Final = 2.0
"""A compacted changelog holds so many times the bytes of what it keeps, until the cleaner has come by."""

DAY_S: Final = 86_400
MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Load:
    """What is to be served.

    Args:
        users: Users whose state is kept.
        events_per_s: Events a second, at the busiest hour.
        items: Items in the catalogue.
        dim: Dimension of the model's vectors.
        retention_days: How long topics that grow with the events are kept; at the busiest hour's rate all day long.
        replication: Copies of every topic.
        standbys: Further copies of each store.
    """

    users: int
    events_per_s: float
    items: int
    dim: int = 64
    retention_days: float = 7.0
    replication: int = 3
    standbys: int = 1


@dataclass(frozen=True)
class RolePlan:
    """What one role needs.

    Args:
        cores: In use on average, all its workers together.
        workers: Processes; each uses about one core at most.
        memory_mib: Of one worker.
        disk_mib: Of one worker, standbys included.
        recovery_s: From the changelog, where a worker has lost its disk and there is no standby.
    """

    role: str
    cores: float
    workers: int
    memory_mib: int
    disk_mib: int
    recovery_s: float


@dataclass(frozen=True)
class Plan:
    """What the whole load needs."""

    load: Load
    partitions: int
    roles: list[RolePlan]
    kafka_cores: float
    kafka_disk_gib: float
    notes: list[str]

    @property
    def cores(self) -> float:
        """Cores in use on average, brokers included."""
        return self.kafka_cores + sum(role.cores for role in self.roles)


def plan_for(load: Load, measured: MeasuredFigures) -> Plan:
    """The plan for a load.

    Example: 1,000 events/s at 0.5 ms an event are 0.5 cores; at most 0.6 of a core each, that is one worker.
    """
    cores = {role: load.events_per_s * measured.roles[role].cpu_ms_per_event.value / 1000 for role in ROLES}
    workers = {role: max(1, math.ceil(cores[role] / MAX_USE)) for role in ROLES}
    num_partitions = partitions_for([num for role, num in workers.items() if role not in SINGLE_ROLES])
    roles = [_role_plan(role, cores[role], workers[role], num_partitions, load, measured) for role in ROLES]
    kafka_cores = load.events_per_s * measured.kafka.cpu_ms_per_event.value / 1000 * load.replication
    return Plan(
        load=load,
        partitions=num_partitions,
        roles=roles,
        kafka_cores=kafka_cores,
        kafka_disk_gib=kafka_disk_bytes(load, measured) / 1024**3,
        notes=_notes(cores, load, measured),
    )


def partitions_for(workers: list[int]) -> int:
    """Partitions for roles of so many workers: a power of two, which every smaller number of workers shares well.

    >>> partitions_for([1, 1]), partitions_for([3, 5])
    (4, 16)
    """
    wanted = max(MIN_PARTITIONS, PARTITIONS_PER_WORKER * max(workers))
    return 1 << (wanted - 1).bit_length()


def kafka_disk_bytes(load: Load, measured: MeasuredFigures) -> float:
    """Bytes on the disks of all brokers: what grows with the events, kept for the retention, and the changelogs.

    Every event counts as one record on each topic, as it is when events come one at a time.
    """
    growing = sum(one.value for one in measured.kafka.record_bytes.values())
    kept = sum(_store_bytes(measured.roles[role], load) for role in ROLES)
    return load.replication * (growing * load.events_per_s * load.retention_days * DAY_S + CHANGELOGS * kept)


def _role_plan(
    role: str, cores: float, num_workers: int, num_partitions: int, load: Load, measured: MeasuredFigures
) -> RolePlan:
    figures = measured.roles[role]
    is_single = role in SINGLE_ROLES
    num_workers = 1 if is_single else num_workers
    held = load.users * (figures.store_bytes_per_user is not None) + load.items * (
        figures.store_bytes_per_item is not None
    )
    copies = 1 if is_single else 1 + load.standbys
    return RolePlan(
        role=role,
        cores=cores,
        workers=num_workers,
        memory_mib=_memory_mib(role, figures, load, -(-num_partitions // num_workers)),
        disk_mib=math.ceil(DISK_MARGIN * copies * _store_bytes(figures, load) / num_workers / MIB),
        recovery_s=held / num_workers / measured.recovery_records_per_s.value,
    )


def _memory_mib(role: str, figures: RoleFigures, load: Load, partitions_of_worker: int) -> int:
    of_items = 0
    if role in VIEWING_ROLES:
        vectors = INDEX_COPIES * load.dim * FLOAT_BYTES
        of_items = load.items * (vectors + ITEM_VIEW_BYTES * partitions_of_worker)
    return math.ceil(MEMORY_MARGIN * figures.peak_mib.value + of_items / MIB)


def _store_bytes(figures: RoleFigures, load: Load) -> float:
    of_users = figures.store_bytes_per_user.value * load.users if figures.store_bytes_per_user else 0.0
    return of_users + (figures.store_bytes_per_item.value * load.items if figures.store_bytes_per_item else 0.0)


def _notes(cores: Mapping[str, float], load: Load, measured: MeasuredFigures) -> list[str]:
    """What the reader must know of these numbers."""
    notes = [
        f"Measured on {measured.machine}.",
        "Costs are those of full runs. One event at a time costs several times more, but only while there is room.",
        f"At {measured.latency_events_per_s:g} events/s on one machine of two cores a list came "
        f"{measured.latency_p50_ms.value:g} ms after its event, one in a hundred after "
        f"{measured.latency_p99_ms.value:g} ms.",
        "Brokers: every copy is counted as dear as the first, so an upper bound.",
    ]
    notes += [
        f"The role {role} cannot be divided and needs {cores[role]:.1f} cores: lower score_users_share."
        for role in sorted(SINGLE_ROLES)
        if cores[role] > MAX_USE
    ]
    if load.items > 50_000:
        notes.append(
            "Items: memory is for trends of all items touched in every partition, so an upper bound; searching more "
            "than some 50,000 items exactly costs more than was measured here (docs/experiments.md, index)."
        )
    return notes
