"""One partition of `items`, and what is published of it: which records of `item-vectors` a run of the catalogue asks
for. Pure.

What lies on `item-vectors` is all the memory there is: whoever takes the partition over reads it back, and goes on at
the offset that its marker names. A vector that is there already is not published again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec
import numpy as np
import numpy.typing as npt

from stream_app import tables
from stream_app.faustkit import OutRecord, Run
from stream_app.item_contents import read_item
from stream_app.records import (
    VECTORS_KEY,
    Item,
    ItemVectorRecord,
    VectorsCompleteRecord,
    encode,
    pack_vector,
)
from stream_app.stages.clean import Rejection

_MARKER = msgspec.json.Decoder(VectorsCompleteRecord)


@dataclass(frozen=True)
class CatalogueNews:
    """What a run of `items` brings: the newest of each item.

    Args:
        told: Items of which something is said, by id.
        gone: Items that were deleted.
        refused: Places in the run of records that are no items, with the reason.
        places: The place in the run of each item's newest record.
    """

    told: dict[str, Item]
    gone: list[str]
    refused: list[tuple[int, Rejection]]
    places: dict[str, int]


def catalogue_news(run: Run) -> CatalogueNews:
    """Read a run of `items`."""
    newest: dict[str, Item | None] = {}
    places: dict[str, int] = {}
    refused: list[tuple[int, Rejection]] = []
    for place, (key, value) in enumerate(zip(run.keys, run.values, strict=True)):
        read = read_item(key, value)
        if isinstance(read, Rejection):
            refused.append((place, read))
            continue
        item_id, newest[item_id] = read
        places[item_id] = place
    told = {item_id: item for item_id, item in newest.items() if item is not None}
    return CatalogueNews(told, [item_id for item_id, item in newest.items() if item is None], refused, places)


@dataclass
class ItemShare:
    """What lies on one partition of `item-vectors`, some 200 bytes for each item.

    Args:
        topic: Full name of `item-vectors`.
        partition: The partition, of `items` too.
        release: The release whose vectors are published.
        num_trained: Trained items of the partition.
    """

    topic: str
    partition: int
    release: str
    num_trained: int
    next_offset: int | None = None
    """Up to where `items` is reflected; None: the vectors of the release are not all there."""
    _digests: dict[bytes, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        """Items that have a vector there, of whatever release."""
        return len(self._digests)

    def take_published(self, run: Run) -> None:
        """Take note of records of `item-vectors`, in order from the first on."""
        for key, value in zip(run.keys, run.values, strict=True):
            if key == VECTORS_KEY:
                marker = None if value is None else _MARKER.decode(value)
                self.next_offset = marker.items_offset if marker and marker.release == self.release else None
            elif key is not None:
                self._note(key, value)

    def trained(self, ids: Sequence[str], vectors_ND: npt.NDArray[np.float32]) -> list[OutRecord]:
        """The records of trained items that are not there yet."""
        return [record for record in map(self._vector_record, ids, vectors_ND) if self._is_news(record)]

    def restart(self) -> OutRecord:
        """What comes before the vectors of a release that is not there: other releases promise nothing from now on."""
        return OutRecord(self.topic, self.partition, VECTORS_KEY, None)

    def changes(self, ids: Sequence[str], vectors_ND: npt.NDArray[np.float32], gone: Iterable[str]) -> list[OutRecord]:
        """The records that change what is there: vectors (N, D) of N items, and those that have none any more."""
        removed = (OutRecord(self.topic, self.partition, tables.key_of(item_id), None) for item_id in gone)
        return [*self.trained(ids, vectors_ND), *(record for record in removed if self._is_news(record))]

    def marker(self, next_offset: int) -> OutRecord:
        """What comes behind everything that follows from `items` below `next_offset`."""
        self.next_offset = next_offset
        marker = VectorsCompleteRecord(release=self.release, num_items=self.num_trained, items_offset=next_offset)
        return OutRecord(self.topic, self.partition, VECTORS_KEY, encode(marker))

    def _vector_record(self, item_id: str, vector_D: npt.NDArray[np.float32]) -> OutRecord:
        record = ItemVectorRecord(item_id=item_id, release=self.release, vector=pack_vector(vector_D))
        return OutRecord(self.topic, self.partition, tables.key_of(item_id), encode(record))

    def _is_news(self, record: OutRecord) -> bool:
        """Whether a record differs from what is there; it counts as there from now on."""
        assert record.key is not None, "every item has a key"
        is_news = self._digests.get(record.key) != _digest(record.value)
        self._note(record.key, record.value)
        return is_news

    def _note(self, key: bytes, value: bytes | None) -> None:
        digest = _digest(value)
        if digest is None:
            self._digests.pop(key, None)
        else:
            self._digests[key] = digest


def _digest(value: bytes | None) -> bytes | None:
    return None if value is None else blake2b(value, digest_size=8).digest()
