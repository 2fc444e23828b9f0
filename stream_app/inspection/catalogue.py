"""Availability and titles of items, from the records of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stream_app.item_contents import read_item
from stream_app.replay.producer import item_record
from stream_app.replay.readers import read_items
from stream_app.stages.clean import Rejection


@dataclass(frozen=True)
class Catalogue:
    """What is known of items: `available` and titles by item id."""

    available: dict[str, bool] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def is_available(self, item_id: str) -> bool:
        """Whether an item may be listed; items the catalogue does not know may."""
        return self.available.get(item_id, True)

    def take(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Take records, keys and values, in order; the recommend role reads them alike.

        A record that is no item changes nothing.
        """
        for key, value in records:
            read = read_item(key, value)
            if isinstance(read, Rejection):
                continue
            item_id, item = read
            self.available[item_id] = item is not None and item.available
            if item is not None and item.title:
                self.titles[item_id] = item.title


def file_records(path: Path) -> Iterator[tuple[bytes | None, bytes | None]]:
    """The records that a catalogue file becomes.

    Raises:
        LogFormatError: The file cannot be read, or a line is no item.
    """
    for row in read_items(path):
        record = item_record(row, 1, 0)
        yield record.key, record.value
