"""The records on the topics: one type each, with its encoder and decoder.

Every value on a topic is JSON (UTF-8), so that any client can read it; vectors are base64 of little-endian
float32. Records are pure functions of the event log: facts of the wall clock travel in headers only.

Words: *position* is a source position, (partition, offset) on the `events` topic; *epoch* is a tick of event
time, ``ts // epoch_ms``.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

FloatVector = npt.NDArray[np.float32]

TICK_HEADER = "sliceflow-tick"
"""Header of a record on `events` that is no event but says: all events before this time (ms) were sent."""

STRICT_HEADER = "sliceflow-strict"
"""Header of a replayed event: its list must use exactly the epoch of trends that its time falls in."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One user-item interaction. `ts` is event time in integer milliseconds since 1970 (UTC)."""

    user_id: str
    item_id: str
    type: str
    ts: int
    event_id: str | None = None
    session_id: str | None = None
    query: str | None = None
    price: float | None = None
    quantity: float | None = None
    recommendation_id: str | None = None
    context: dict[str, Any] | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of the catalogue; a null value on the `items` topic deletes the item."""

    item_id: str
    title: str | None = None
    description: str | None = None
    category: str | None = None
    tags: list[str] = []
    price: float | None = None
    image: str | None = None
    available: bool = True


class SliceEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event as it stands in a slice: [item_id, type, ts, gap_ms] (gap to the user's event before, -1 if none)."""

    item_id: str
    type: str
    ts: int
    gap_ms: int


class SliceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of one slice of a user's history.

    `join_epoch` is the epoch of trends a list made from this record must use (strict replay), or None when
    any newest complete one will do (live). `fresh` tells that the user's event that was applied last is in this
    revision, so it asks for a new list; a revision that only closes the slice does not. `partition` and `offset`
    name the event in the slice that was applied last.
    """

    user_id: str
    seq: int
    revision: int
    closed: bool
    fresh: bool
    events: list[SliceEvent]
    partition: int
    offset: int
    join_epoch: int | None = None


class SliceVectorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the encoder made of one slice revision, and the user vector that follows from it.

    `slice_vector` and `user_vector` are base64 float32 of the release's dimension.
    """

    user_id: str
    seq: int
    revision: int
    closed: bool
    fresh: bool
    items: list[str]
    last_ts: int
    partition: int
    offset: int
    release: str
    slice_vector: str
    user_vector: str
    num_slices_merged: int
    join_epoch: int | None = None


class ItemVectorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The vector of one item under one release (base64 float32)."""

    item_id: str
    release: str
    vector: str


class VectorsCompleteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Marker on `item-vectors`: this partition now holds all `num_items` vectors of the release."""

    release: str
    num_items: int


class ActivityRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A touch of an item, or a transition from it to `next_item`, or (neither) a mark of progress.

    `partition` and `offset` are the source position; `epoch` never goes back within one source partition.
    `weight_milli` is the event type's weight in thousandths (integers, so that sums do not depend on order).
    `strict` tells that this source's clock is driven by ticks, so nobody may run past it.
    """

    partition: int
    offset: int
    epoch: int
    strict: bool = False
    item_id: str | None = None
    next_item: str | None = None
    weight_milli: int = 1000


class TrendRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The decayed statistics of one item at the end of one epoch.

    `counts` holds one decayed count for each half-life of the settings; `next_items` the strongest transitions
    from this item as [item_id, score of short memory, score of long memory]; `first_epoch` when it was first
    touched.
    """

    item_id: str
    epoch: int
    first_epoch: int
    counts: list[float]
    next_items: list[tuple[str, float, float]]


class TrendEpochRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Marker on `item-trends`: this partition is complete up to and including `epoch`."""

    epoch: int


class RankedItem(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a list: the item, its score, and the sources that brought it."""

    item_id: str
    score: float
    sources: list[str]


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """The ranked list of a user, with its provenance.

    `event_ts`, `partition` and `offset` name the event it answers; `epoch` the trends it used (-1: none yet);
    `has_vector` whether the user vector took part.
    """

    recommendation_id: str
    user_id: str
    event_ts: int
    partition: int
    offset: int
    release: str
    index_version: str
    epoch: int
    has_vector: bool
    items: list[RankedItem]


class StatusRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the sequence role has done with one partition of `events`, up to and including `offset`.

    ``applied + dead_lettered + sum(dropped) == events``; ticks are not events.
    """

    partition: int
    offset: int
    events: int
    applied: int
    dead_lettered: int
    dropped: dict[str, int]
    users: int
    watermark_ms: int


def encode(record: msgspec.Struct) -> bytes:
    """JSON bytes of a record; the same record always gives the same bytes."""
    return msgspec.json.encode(record)


def pack_vector(vector: FloatVector) -> str:
    """Base64 of the little-endian float32 bytes of `vector` (any shape)."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


def unpack_vector(text: str) -> FloatVector:
    """The float32 vector, shape (D,), that `pack_vector` packed.

    Raises:
        ValueError: The text is no base64, or no whole number of float32.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
