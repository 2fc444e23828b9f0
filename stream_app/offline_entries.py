"""The records of a replay, read and dealt to their partitions, in such parts as may be taken together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from stream_app.erasing import parts_together
from stream_app.offline_roles import Entry
from stream_app.records import Erasure
from stream_app.replay.planning import PlannedRecord
from stream_app.stages.clean import CleanRules
from stream_app.stages.intake import Content, read_record


class EntryReader:
    """Reads records in the order of a log, and gives each its offset.

    Args:
        num_partitions: Partitions of `events`.
        rules: What an event must look like.
    """

    def __init__(self, num_partitions: int, rules: CleanRules) -> None:
        self._next_offsets = [0] * num_partitions
        self._rules = rules

    def parts(self, records: Iterable[PlannedRecord]) -> Iterator[dict[int, list[Entry]]]:
        """The entries of each partition, cut wherever the roles cut their runs for an erasure."""
        read = [(record, self._content(record)) for record in records]
        erasures = [place for place, (_, content) in enumerate(read) if isinstance(content, Erasure)]
        for places in parts_together([record.key for record, _ in read], erasures):
            yield self._by_partition(read[places.start : places.stop])

    def _content(self, record: PlannedRecord) -> Content:
        return read_record(record.key, record.value, record.timestamp_ms, record.headers, self._rules)

    def _by_partition(self, read: Sequence[tuple[PlannedRecord, Content]]) -> dict[int, list[Entry]]:
        entries: dict[int, list[Entry]] = {}
        for record, content in read:
            offset = self._next_offsets[record.partition]
            self._next_offsets[record.partition] = offset + 1
            entries.setdefault(record.partition, []).append((offset, content, record.headers))
        return entries
