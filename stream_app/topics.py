"""The topics: names, partitions, cleanup, and which of them must be cut alike (co-partitioned)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

EVENTS = "events"
ITEMS = "items"
SLICES = "slices"
SLICE_VECTORS = "slice-vectors"
ITEM_VECTORS = "item-vectors"
ITEM_ACTIVITY = "item-activity"
ITEM_TRENDS = "item-trends"
CHOICES = "choices"
SCORER_WEIGHTS = "scorer-weights"
RECOMMENDATIONS = "recommendations"
DEAD_LETTER = "events-dead-letter"
STATUS = "status"
DRIFT = "drift"
RELEASES = "releases"

MAX_RECORD_BYTES = 8 * 1024 * 1024
"""Largest record on our own topics. A user's whole history (100 events) is about 10 KB."""

JOIN_HISTORY_MS = 6 * 3600 * 1000
"""How long `item-trends` and `scorer-weights` keep every version before compaction may drop older ones: a recommender
that lags by less than this still joins each event with exactly the epoch it belongs to."""

SINGLE = "single"
"""The group of what lies in one partition, because one worker must see all of it."""


@dataclass(frozen=True)
class TopicSpec:
    """One topic as we need it. `group` names the set of topics with equal partition counts it belongs to."""

    name: str
    num_partitions: int
    cleanup: str
    group: str = ""
    config: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def full_config(self) -> dict[str, str]:
        """The topic configuration Kafka is asked for."""
        return {"cleanup.policy": self.cleanup, **self.config}


_DESCRIPTIONS: tuple[tuple[str, str, str], ...] = (
    (EVENTS, "delete", "user"),
    (SLICES, "delete", "user"),
    (SLICE_VECTORS, "delete", "user"),
    (RECOMMENDATIONS, "compact,delete", "user"),
    (ITEMS, "compact", "item"),
    (ITEM_VECTORS, "compact", "item"),
    (ITEM_ACTIVITY, "delete", "item"),
    (ITEM_TRENDS, "compact", "item"),
    (CHOICES, "delete", SINGLE),
    (SCORER_WEIGHTS, "compact", SINGLE),
    (DEAD_LETTER, "delete", ""),
    (STATUS, "compact", ""),
    (DRIFT, "compact", ""),
    (RELEASES, "compact", ""),
)

_CONFIG: Mapping[str, Mapping[str, str]] = {
    # Event times are kept as record times, and a replayed log is old: time retention would delete it at once.
    # Operators set their own; ours is by choice "keep".
    EVENTS: {"retention.ms": "-1"},
    SLICES: {"retention.ms": "-1"},
    SLICE_VECTORS: {"retention.ms": "-1"},
    RECOMMENDATIONS: {"retention.ms": "-1"},
    ITEM_ACTIVITY: {"retention.ms": "-1"},
    DEAD_LETTER: {"retention.ms": "-1"},
    CHOICES: {"retention.ms": "-1"},
    SCORER_WEIGHTS: {"min.compaction.lag.ms": str(JOIN_HISTORY_MS)},
    ITEM_TRENDS: {"min.compaction.lag.ms": str(JOIN_HISTORY_MS)},
}


def prefixed(prefix: str, name: str) -> str:
    """The full name of topic `name` in the namespace `prefix`."""
    return f"{prefix}{name}"


def changelog_name(prefix: str, table: str) -> str:
    """The changelog topic of a table in the namespace `prefix`."""
    return f"{prefix}{table}-changelog"


TABLE_GROUPS: Mapping[str, str] = {
    "user-histories": "user",
    "user-memory": "user",
    "user-vectors": "user",
    "user-choices": "user",
    "item-statistics": "item",
    "scorer": SINGLE,
}
"""The tables of the roles, and the topics each is cut like."""


def partitions_of(group: str, num_partitions: int) -> int:
    """Partitions of the topics of `group`, where those that are cut by user or item have `num_partitions`."""
    return num_partitions if group not in ("", SINGLE) else 1


def topic_specs(prefix: str, num_partitions: int) -> list[TopicSpec]:
    """All topics of one namespace, in the order of the flow, changelogs last."""
    topics = [
        TopicSpec(
            name=prefixed(prefix, name),
            num_partitions=partitions_of(group, num_partitions),
            cleanup=cleanup,
            group=group,
            config=_with_size(_CONFIG.get(name, {})),
        )
        for name, cleanup, group in _DESCRIPTIONS
    ]
    changelogs = [
        TopicSpec(changelog_name(prefix, table), partitions_of(group, num_partitions), "compact", group, _with_size({}))
        for table, group in TABLE_GROUPS.items()
    ]
    return topics + changelogs


def _with_size(config: Mapping[str, str]) -> dict[str, str]:
    return {**config, "max.message.bytes": str(MAX_RECORD_BYTES)}
