"""What an app tells whoever counts: once a run, a publication, an assignment; never once a record."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """Takes the figures of one app. Called on its event loop, so it must not wait."""

    def note_run(self, num_records: int, seconds: float) -> None:
        """A run was processed and its outputs acknowledged, all of it in so many seconds."""

    def note_published(self, topic: str, num_records: int) -> None:
        """So many records on a topic (outputs, changelogs, facts) were acknowledged."""

    def note_recovered(self, num_records: int) -> None:
        """The stores of the assigned partitions took so many changelog records."""

    def note_opened(self, seconds: float) -> None:
        """What was assigned is open, so many seconds after the assignment."""


class NoMeter:
    """Counts nothing."""

    def note_run(self, num_records: int, seconds: float) -> None:
        """Nothing."""

    def note_published(self, topic: str, num_records: int) -> None:
        """Nothing."""

    def note_recovered(self, num_records: int) -> None:
        """Nothing."""

    def note_opened(self, seconds: float) -> None:
        """Nothing."""
