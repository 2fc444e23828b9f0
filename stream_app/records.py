"""The records on the topics: one type each, with its encoder and decoder.

Every value on a topic is JSON (UTF-8), so that any client can read it; vectors are base64 of little-endian
float32. Records are pure functions of the event log: facts of the wall clock travel in headers only.

Words: *position* is a source position, (partition, offset) on the `events` topic; *epoch* is a tick of event
time, ``ts // epoch_ms``; a *scorer-epoch* is a longer one, at whose end the scorer changes.
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

VECTORS_KEY = b"\xffcomplete"
"""Key of the marker on `item-vectors`: one for all releases, because the vectors of one take the place of those of
another. Keys that begin as this one, which no UTF-8 does, are no item's."""

MARK_KEY = b""
"""Key of a record that is no user's or item's but says how far its partition is. No id is empty."""


ERASE_TYPE = "$erase"
"""Type of a record on `events` that is no event but asks for its user to be erased. No event type may be called so."""


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


class Erasure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=ERASE_TYPE):
    """The wish that all of a user be forgotten that lies before this record in the user's partition of `events`.

    What comes behind it begins a new history. `ts` is when it was asked for (ms); it moves no clock.
    """

    user_id: str
    ts: int
    event_id: str | None = None


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

    `before` are up to `slice_events` events in front of the slice, newest last: what an encoder may look back at. So
    that what it makes of a slice is a function of this record alone, a slice is published anew when they change.
    `join_epoch` is the epoch of trends a list made from this record must use (strict replay), or None when
    any newest complete one will do (live). `fresh` tells that the user's event that was applied last is in this
    revision, so it asks for a new list; a revision that only closes the slice does not. `partition` and `offset`
    name the event in the slice that was applied last. `sampled` tells that the scorer learns from this revision, so
    that no reader may pass it over for a newer one.
    """

    user_id: str
    seq: int
    revision: int
    closed: bool
    fresh: bool
    events: list[SliceEvent]
    partition: int
    offset: int
    before: list[SliceEvent] = []
    join_epoch: int | None = None
    sampled: bool = False


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
    sampled: bool = False


class ErasedRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="erased"):
    """On `slices` and `slice-vectors`: the user was erased by the record of `events` at `partition`, `offset`.

    Whatever lies in front of it of this user is to be forgotten; what comes behind it is of another history, whose
    slices are numbered from 0 again.
    """

    user_id: str
    partition: int
    offset: int


class ProgressRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Mark on `slices`, `slice-vectors` and `choices` (key `MARK_KEY`): of `partition` of `events`, everything that
    belongs to scorer-epochs before `epoch` lies in front of this record.

    `strict` tells that ticks drive the partition's clock, so nobody may run past it.
    """

    partition: int
    epoch: int
    strict: bool


class ChoiceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a user took, beside what the list of that moment would have been made of.

    `epoch` is the scorer-epoch of the event at `event_ts`, `partition` and `offset` name it. `features` are the rows of
    `num_candidates` candidates (base64 float32, row by row; none where nothing is to be learned), `chosen` the row of
    `item_id`, -1 where no source offered it. `is_whole` tells that all candidates are there, so that the place of the
    item in the list can be told; else the last `num_spread` rows count for `weight` candidates each.
    """

    user_id: str
    item_id: str
    event_ts: int
    partition: int
    offset: int
    release: str
    epoch: int
    chosen: int
    num_candidates: int
    features: str
    is_whole: bool
    num_spread: int = 0
    weight: float = 1.0


class ScorerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The scorer as of the end of one scorer-epoch, and how good the lists were until then.

    `scorer` is the JSON of `learning.Scorer`; `num_choices` were learned from in this epoch. `quality` has a row for
    the day of the epoch's last event and one for all days.
    """

    epoch: int
    release: str
    num_choices: int
    scorer: msgspec.Raw
    quality: dict[str, dict[str, float]]


class ScorerEpochRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Marker on `scorer-weights`: every scorer-epoch up to and including `epoch` was learned from."""

    epoch: int


class ItemVectorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The vector of one item under one release (base64 float32)."""

    item_id: str
    release: str
    vector: str


class VectorsCompleteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Marker on `item-vectors`: this partition holds the release's vectors of all its `num_items` trained items, and
    what follows from the same partition of `items` below the offset `items_offset`.
    """

    release: str
    num_items: int
    items_offset: int = 0


class ActivityRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The touch of an item that was new to its user, or (without `item_id`) a mark of progress.

    `before` are the items the user touched last, newest first, each once. `partition` and `offset` are the source
    position; `epoch` never goes back within one source partition. `weight_milli` is the event type's weight in
    thousandths (integers, so that sums do not depend on order). `strict` tells that this source's clock is driven
    by ticks, so nobody may run past it.
    """

    partition: int
    offset: int
    epoch: int
    strict: bool = False
    item_id: str | None = None
    weight_milli: int = 1000
    before: tuple[str, ...] = ()


class TrendRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The decayed statistics of one item at the end of one epoch.

    `counts` holds one decayed count for each half-life of the settings; `predecessors` the items that users most often
    touched shortly before this one as [item_id, score of short memory, score of long memory]; `first_epoch` is when it
    was first touched.
    """

    item_id: str
    epoch: int
    first_epoch: int
    counts: list[float]
    predecessors: list[tuple[str, float, float]]


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
    `scorer_epoch` the scorer-epoch at whose end the scorer was what ranked it (-1: the model's own);
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
    scorer_epoch: int = -1


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


class DriftRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How close user vectors that were merged slice by slice are to those of a full re-encoding.

    Over the newest `checks` of one worker (`instance`) of the encode role, of `users` users with `slices` slices in
    all: cosine of the two vectors, and the share of the ten best items of the one that are among those of the other.
    `users_left_out` are sampled users that cannot be checked, because the worker has not seen all of their slices.
    """

    release: str
    instance: str
    checks: int
    users: int
    users_left_out: int
    slices: int
    mean_cosine: float
    min_cosine: float
    mean_overlap_10: float


_ERASED = msgspec.json.Decoder(ErasedRecord)
_ERASED_START = b'{"record":"erased",'


def encode(record: msgspec.Struct) -> bytes:
    """JSON bytes of a record; the same record always gives the same bytes."""
    return msgspec.json.encode(record)


def is_erased(value: bytes) -> bool:
    """Whether a value on `slices` or `slice-vectors` is an `ErasedRecord`: its tag stands in front of all else."""
    return value.startswith(_ERASED_START)


def decode_erased(value: bytes) -> ErasedRecord:
    """An `ErasedRecord`.

    Raises:
        ValueError: The value is none.
    """
    return _ERASED.decode(value)


def pack_vector(vector: FloatVector) -> str:
    """Base64 of the little-endian float32 bytes of `vector` (any shape)."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


def unpack_vector(text: str) -> FloatVector:
    """The float32 vector, shape (D,), that `pack_vector` packed.

    Raises:
        ValueError: The text is no base64, or no whole number of float32.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
