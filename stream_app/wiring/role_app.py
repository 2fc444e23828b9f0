"""What every role's wiring gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from stream_app.faustkit import BatchApp
from stream_app.monitoring.role_metrics import RoleMetrics

Report = Callable[[str], None]


@dataclass(frozen=True)
class RoleApp:
    """A role, ready to run: its app, its figures, and what to await before it starts."""

    app: BatchApp
    metrics: RoleMetrics
    before: Callable[[], Awaitable[None]] | None = None

    def is_ready(self) -> bool:
        """Whether stores are recovered and input is read just now; may be called from any thread."""
        return self.app.ready.is_set() and not self.app.is_opening


def owned_partitions(consumer: Any, topic: str) -> list[int]:
    """The partitions of a topic that a Faust consumer has been given."""
    return sorted(tp.partition for tp in consumer.assignment() if tp.topic == topic)
