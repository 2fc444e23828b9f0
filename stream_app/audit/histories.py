"""The log of events, folded once more by the stage of the sequence role, against what the role kept.

While the role is at work its kept values are of different moments. So each one is compared with what the log gives
at the source position that the value itself names; and nothing that was committed may have changed a key after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from stream_app import tables
from stream_app.audit.changelogs import Entries, entry_of, position_in
from stream_app.audit.findings import Check
from stream_app.audit.runs import cut_after
from stream_app.faustkit.keeping import Values
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import Stored
from stream_app.records import Event
from stream_app.stages.intake import Content, take_record
from stream_app.stages.sequence import KeptHistory, SequenceStage


class Table(Values, Protocol):
    """Where the histories are kept while the log is folded."""

    def put(self, values: Mapping[bytes, Stored | None]) -> None:
        """Set values; None removes one."""


class LogFold:
    """Folds one partition of `events` from its first offset on, and compares.

    Args:
        check: Takes the breaches.
        stage: The stage of this partition, without any state.
        table: Empty.
        changelog: Full name of the changelog that `kept` comes from.
        kept: What the role kept.
        committed: Offset of the next event that the role will read, asked for before `kept` was read.
    """

    def __init__(
        self, check: Check, stage: SequenceStage, table: Table, changelog: str, kept: Entries, committed: int
    ) -> None:
        stage.restore([], None)
        self._check = check
        self._stage = stage
        self._table = table
        self._changelog = changelog
        self._kept = kept
        self._committed = committed
        self._unmatched = set(kept)
        self._reported: set[bytes] = set()
        self._behind: dict[bytes, tuple[str, str]] = {}
        positions = [position_in(entry) for entry in kept.values()]
        # The stage tells what a run changed in the end: a run must end wherever a value is to be looked at.
        self._cuts = np.unique(np.array([*positions, committed - 1], dtype=np.int64))

    @property
    def newest(self) -> int:
        """The offset to take the log up to, including it."""
        return int(self._cuts[-1])

    def take(self, run: Run, contents: Sequence[Content]) -> None:
        """Take consecutive records, and what they say."""
        low, high = np.searchsorted(self._cuts, [run.offsets[0], run.offsets[-1] + 1])
        start = 0
        for part in cut_after(run, [int(offset) for offset in self._cuts[low:high]]):
            self._take_part(part, contents[start : start + len(part)])
            start += len(part)

    def finish(self) -> None:
        """Note the kept values that the log never gave, and those that are behind it; everything up to `newest` was
        taken.
        """
        for key, (seen, expected) in self._behind.items():
            self._breach(key, seen, expected)
        for key in self._unmatched - self._reported:
            position = position_in(self._kept[key])
            self._breach(key, f"a value at source position {position}", "one that the log gives")
        self._check.num_checked += len(self._kept)

    def _take_part(self, run: Run, contents: Sequence[Content]) -> None:
        stage, last_offset = self._stage, run.offsets[-1]
        users = dict.fromkeys(content.user_id for content in contents if isinstance(content, Event))
        stage.begin_run(list(users), self._load)
        for offset, content, headers in zip(run.offsets, contents, run.headers, strict=True):
            take_record(stage, content, offset, headers, is_counted=False)
        effects = stage.end_run(last_offset, 1)
        changed = {
            tables.key_of(user_id): Stored(kept.position, tables.encode_value(kept.history))
            for user_id, kept in effects.changed.items()
        }
        self._table.put({**changed, **{tables.key_of(user_id): None for user_id in effects.removed}})
        for record in effects.erased:
            self._compare_erased(tables.key_of(record.user_id), record.offset)
        changed[tables.PARTITION_KEY] = Stored(last_offset, tables.encode_value(stage.totals))
        for key, stored in changed.items():
            self._compare(key, stored)

    def _load(self, users: Sequence[str]) -> dict[str, KeptHistory]:
        return tables.load_histories(self._table, users)

    def _compare(self, key: bytes, stored: Stored) -> None:
        entry = self._kept.get(key)
        position = -1 if entry is None else position_in(entry)
        if position == stored.position:
            self._unmatched.discard(key)
            if entry != entry_of(stored):
                seen = f"a value at source position {position} with other bytes than the log gives there"
                self._breach(key, seen, "the same bytes")
        elif position < stored.position < self._committed:
            seen = "nothing" if entry is None else f"a value at source position {position}"
            expected = f"one at {stored.position} or later, since everything below {self._committed} was worked off"
            # Only at the end it is known whether the user is erased later on.
            self._behind.setdefault(key, (seen, expected))

    def _compare_erased(self, key: bytes, offset: int) -> None:
        """The user's value was removed at `offset`; one that is kept came behind it."""
        self._behind.pop(key, None)
        entry = self._kept.get(key)
        if entry is not None and position_in(entry) < offset < self._committed:
            seen = f"a value at source position {position_in(entry)}"
            self._breach(key, seen, f"none of before {offset}, where the user was erased")

    def _breach(self, key: bytes, seen: str, expected: str) -> None:
        if key not in self._reported:
            self._reported.add(key)
            self._check.breach(seen, expected, topic=self._changelog, partition=self._stage.partition, key=key)
