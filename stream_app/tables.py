"""Keys and values of the tables: how the state of the roles is laid out in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from stream_app.faustkit.keeping import Values
from stream_app.stages.merging import UserMemory
from stream_app.stages.popularity import ItemStatistics
from stream_app.stages.profile import UserProfile
from stream_app.stages.scorer_epochs import Learned, ScorerTotals, WaitingChoice
from stream_app.stages.sequence import KeptHistory, PartitionTotals
from stream_app.stages.slicing import UserHistory
from stream_app.stages.trend import TrendTotals

USER_HISTORIES = "user-histories"
USER_MEMORY = "user-memory"
USER_VECTORS = "user-vectors"
USER_CHOICES = "user-choices"
ITEM_STATISTICS = "item-statistics"
SCORER = "scorer"

PARTITION_KEY = b"\xff"
"""Key of the facts that belong to the partition as a whole. No id has it: it is no valid UTF-8."""

LEARNED_KEY = b"learned"
"""Key of what the scorer has learned."""

T = TypeVar("T")


def key_of(text: str) -> bytes:
    """The key of a user or item, on topics and in tables."""
    return text.encode("utf-8")


def slot_key(slot: int) -> bytes:
    """The key of a slot for a choice that waits to be learned from."""
    return b"slot-%d" % slot


def slot_of(key: bytes) -> int | None:
    """The slot of a key; None for other keys."""
    return int(key[5:]) if key.startswith(b"slot-") else None


def encode_value(value: msgspec.Struct) -> bytes:
    """The bytes of a table value."""
    return msgspec.msgpack.encode(value)


HISTORY = msgspec.msgpack.Decoder(UserHistory)
SEQUENCE_TOTALS = msgspec.msgpack.Decoder(PartitionTotals)
MEMORY = msgspec.msgpack.Decoder(UserMemory)
STATISTICS = msgspec.msgpack.Decoder(ItemStatistics)
TREND_TOTALS = msgspec.msgpack.Decoder(TrendTotals)
PROFILE = msgspec.msgpack.Decoder(UserProfile)
SCORER_TOTALS = msgspec.msgpack.Decoder(ScorerTotals)
LEARNED = msgspec.msgpack.Decoder(Learned)
WAITING_CHOICE = msgspec.msgpack.Decoder(WaitingChoice)


def load_values(values: Values, ids: Sequence[str], decoder: msgspec.msgpack.Decoder[T]) -> dict[str, tuple[int, T]]:
    """Positions and values of users or items; those without a value are left out."""
    found = values.get_many([key_of(text) for text in ids])
    return {
        text: (stored.position, decoder.decode(stored.payload))
        for text, stored in zip(ids, found, strict=True)
        if stored is not None
    }


def load_histories(values: Values, users: Sequence[str]) -> dict[str, KeptHistory]:
    """The kept histories of users."""
    return {
        user_id: KeptHistory(history, position)
        for user_id, (position, history) in load_values(values, users, HISTORY).items()
    }


def is_partition_key(key: bytes) -> bool:
    """Whether a key holds facts of the partition, not of a user or item."""
    return key == PARTITION_KEY
