"""Who works on which partition, and who keeps a copy of its store.

Faust's own assignor places standby copies without regard to who would have to take over: with three workers half of
a dead one's partitions go to workers that hold no copy of them, and with four partitions one of three workers gets
none. Here copies are spread so that the loss of one worker is shared by those that hold its copies.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from math import ceil
from typing import Any, NamedTuple

from faust.assignor.client_assignment import ClientAssignment, CopartitionedAssignment
from faust.assignor.partition_assignor import PartitionAssignor

from stream_app.faustkit.table import partitions_on_disk


class Share(NamedTuple):
    """The partitions one worker works on (`actives`), and those it only keeps a copy of."""

    actives: frozenset[int] = frozenset()
    standbys: frozenset[int] = frozenset()


def deal(held: Mapping[str, Share], num_partitions: int, num_standbys: int) -> dict[str, Share]:
    """Share out partitions and copies: a function of its arguments alone.

    Each partition gets one worker, and as many others with a copy as asked for or as there are. Nobody works on more
    than one partition more than anybody else. Within these bounds partitions go to workers that have their store,
    and stay where they are if they can.

    Args:
        held: What each worker has now; what two claim is given to one, what nobody has is given out too.
        num_partitions: How many there are.
        num_standbys: Copies of each, at most one less than there are workers.
    """
    owners = _Dealing(held, num_partitions).owners()
    copies = _deal_copies(held, owners, min(num_standbys, len(held) - 1))
    return {
        worker: Share(
            frozenset(partition for partition, owner in enumerate(owners) if owner == worker),
            frozenset(partition for partition, holders in enumerate(copies) if worker in holders),
        )
        for worker in held
    }


class _Dealing:
    """Finds the worker of each partition."""

    def __init__(self, held: Mapping[str, Share], num_partitions: int) -> None:
        self._held = held
        self._num_partitions = num_partitions
        self._owners: dict[int, str] = {}
        self._warm = _who_has(held)
        floor, num_larger = divmod(num_partitions, len(held))
        by_size = sorted(held, key=lambda worker: (-len(held[worker].actives), -len(held[worker].standbys), worker))
        self._room = {worker: floor + (rank < num_larger) for rank, worker in enumerate(by_size)}

    def owners(self) -> list[str]:
        """The worker of each partition."""
        for worker in sorted(self._held):
            self._keep(worker)
        for partition in self._homeless():
            self._place_warm(partition, set())
        for partition in self._homeless():
            self._give(partition, max(sorted(self._room), key=lambda worker: self._room[worker]))
        return [self._owners[partition] for partition in range(self._num_partitions)]

    def _homeless(self) -> list[int]:
        return [partition for partition in range(self._num_partitions) if partition not in self._owners]

    def _keep(self, worker: str) -> None:
        """Leave a worker what it works on; what is too much are partitions that others have a copy of, if any."""
        claims = self._held[worker].actives.intersection(self._homeless())
        for partition in sorted(claims, key=lambda claim: (len(self._warm[claim]) > 1, claim))[: self._room[worker]]:
            self._give(partition, worker)

    def _give(self, partition: int, worker: str) -> None:
        self._owners[partition] = worker
        self._room[worker] -= 1

    def _place_warm(self, partition: int, tried: set[str]) -> bool:
        """Give a partition to a worker that has its store, moving others to where their store is too if need be.

        An augmenting path of a bipartite matching (H. W. Kuhn, 1955), so no more partitions could be placed warm.
        """
        for worker in self._warm[partition]:
            if worker in tried:
                continue
            tried.add(worker)
            if not self._room[worker]:
                mine = [number for number, owner in self._owners.items() if owner == worker]
                if not any(self._place_warm(number, tried) for number in mine):
                    continue
                self._room[worker] += 1
            self._give(partition, worker)
            return True
        return False


def _who_has(held: Mapping[str, Share]) -> Mapping[int, list[str]]:
    """The workers that have the store of each partition."""
    warm: dict[int, list[str]] = defaultdict(list)
    for worker in sorted(held):
        for partition in held[worker].actives | held[worker].standbys:
            warm[partition].append(worker)
    return warm


def _deal_copies(held: Mapping[str, Share], owners: list[str], num_copies: int) -> list[Collection[str]]:
    """Who has a copy of each partition: where it is already, as long as nobody has too many of anybody's."""
    copies: list[Collection[str]] = [()] * len(owners)
    if not num_copies:
        return copies
    warm = _who_has(held)
    most = ceil(len(owners) * num_copies / len(held))
    most_of = {owner: ceil(num * num_copies / (len(held) - 1)) for owner, num in Counter(owners).items()}
    num_of: Counter[str] = Counter()
    num_between: Counter[tuple[str, str]] = Counter()

    def give(partition: int, worker: str) -> None:
        copies[partition] = {*copies[partition], worker}
        num_of[worker] += 1
        num_between[owners[partition], worker] += 1

    for partition, owner in enumerate(owners):
        for worker in warm[partition]:
            is_free = num_of[worker] < most and num_between[owner, worker] < most_of[owner]
            if worker != owner and is_free and len(copies[partition]) < num_copies:
                give(partition, worker)
    for partition, owner in enumerate(owners):
        while len(copies[partition]) < num_copies:
            give(
                partition,
                min(
                    (num_of[worker] >= most, num_between[owner, worker], num_of[worker], worker)
                    for worker in held
                    if worker != owner and worker not in copies[partition]
                )[-1],
            )
    return copies


class WarmAssignor(PartitionAssignor):
    """Faust's assignor with our way of dealing out; the worker that leads the group deals for all.

    A worker that joins names the stores it finds on its disk as copies.
    """

    app: Any  # A BatchApp; Faust's interface does not know its members.

    def metadata(self, topics: set[str]) -> Any:
        """What this worker tells the one that deals."""
        if not self._assignment.active_tps and not self._assignment.standby_tps:
            folder = self.app.store_folder
            tables = self._table_manager.data.values()
            found = {
                table.changelog_topic.get_topic_name(): partitions_on_disk(folder / table.name) for table in tables
            }
            self._assignment = ClientAssignment(actives={}, standbys=found)
        return super().metadata(topics)

    def _perform_assignment(self, cluster: Any, member_metadata: Any) -> Any:
        told = {worker: self._get_client_metadata(metadata) for worker, metadata in member_metadata.items()}
        subscriptions = {worker: list(metadata.subscription) for worker, metadata in member_metadata.items()}
        self._update_member_urls(told)
        assignments = {worker: ClientAssignment(actives={}, standbys={}) for worker in told}
        group_of: dict[str, int] = {}
        topics = {topic for subscription in subscriptions.values() for topic in subscription}
        groups = self._get_copartitioned_groups(topics, cluster, subscriptions)
        for number, (num_partitions, copartitioned) in enumerate(sorted(groups.items())):
            for group in copartitioned:
                group_of.update(dict.fromkeys(group, number))
                workers = [worker for worker in told if group.issubset(subscriptions[worker])]
                held = {worker: _share(told[worker].assignment, group) for worker in workers}
                for worker, share in deal(held, num_partitions, self.replicas).items():
                    dealt = CopartitionedAssignment(set(share.actives), set(share.standbys), group)
                    assignments[worker].add_copartitioned_assignment(dealt)
        return self._protocol_assignments(
            assignments,
            self._get_changelog_distribution(assignments),
            self._get_external_topic_distribution(assignments),
            group_of,
        )


def _share(assignment: ClientAssignment, group: set[str]) -> Share:
    """What a worker had of topics that are dealt out together."""
    had = assignment.copartitioned_assignment(group)
    return Share(frozenset(had.actives), frozenset(had.standbys))
