"""How the input of an app stands: how much of it waits, and for how long something has not been committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PartitionProgress:
    """How far an input partition has come; all are offsets of what comes next.

    Args:
        topic: The input topic.
        partition: Number of the partition.
        committed: What Kafka acknowledged, -1 where nothing was committed since the assignment.
        fetched: The end of what was fetched and has to be committed; -1 for nothing since the assignment.
        position: Where the next fetch begins; None while that is being found out.
        end: The partition's end, when it was last asked for; -1 where it is not known.
        is_held: Whether nothing more is fetched on purpose, since enough of it waits.
        stable: The end that the newest fetch told, before which no transaction is open; -1 where none told it.
    """

    topic: str
    partition: int
    committed: int
    fetched: int
    position: int | None
    end: int
    is_held: bool = False
    stable: int = -1

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"

    @property
    def is_uncommitted(self) -> bool:
        """Whether something was fetched that is not committed."""
        return self.fetched > self.committed

    @property
    def has_input(self) -> bool:
        """Whether there is something to fetch, and nothing against it."""
        return not self.is_held and self.end > (self.position or 0)

    @property
    def lag(self) -> int | None:
        """Records between what is committed and the partition's end; None while either is not known.

        Offsets that hold no record (compaction, control records) count too.
        """
        end = max(self.end, self.stable, self.fetched)
        done = self.committed if self.committed >= 0 else self.position
        return None if done is None or end < 0 else max(0, end - done)


@dataclass(frozen=True)
class InputStanding:
    """One assigned input partition at the last look.

    Args:
        topic: The input topic.
        partition: Number of the partition.
        lag: Records that are not committed yet; None while that is not known.
        uncommitted_s: For how many seconds nothing was committed although something was fetched.
    """

    topic: str
    partition: int
    lag: int | None
    uncommitted_s: float


class StandingLog:
    """Notes from one look after the other since when each partition stands; has no clock of its own."""

    def __init__(self) -> None:
        self.newest: Sequence[InputStanding] = ()
        self._since: dict[str, tuple[int, float]] = {}

    def look(self, partitions: Sequence[PartitionProgress], now_s: float) -> None:
        """Take what is seen at `now_s`, in seconds of any clock that only goes forward."""
        since: dict[str, tuple[int, float]] = {}
        for one in partitions:
            noted = self._since.get(str(one))
            is_new = noted is None or noted[0] != one.committed or not one.is_uncommitted
            since[str(one)] = (one.committed, now_s) if noted is None or is_new else noted
        self._since = since
        self.newest = [
            InputStanding(one.topic, one.partition, one.lag, now_s - since[str(one)][1]) for one in partitions
        ]
