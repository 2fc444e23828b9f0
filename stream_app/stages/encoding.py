"""From slice records to user vectors: what to encode, and how the codes are merged.

Pure: the encoder itself is called by whoever holds it, between `batch_of` and `merge`.

Shapes: S slices, L events of a slice, C events before it, R rows of a memory, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import msgspec
import numpy as np
import numpy.typing as npt

from stream_app.records import SliceEvent, SliceRecord, SliceVectorRecord, pack_vector
from stream_app.stages.merging import Merge, MergedSlice, UserMemory, take_slice

KEEP_REPAIRABLE = 4
"""Merged slices whose codes are kept for repair; the sequence role repairs no older ones."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
RowsOf = Callable[[list[str]], Ints]


@dataclass(frozen=True)
class SliceArrays:
    """Slices as int64 arrays: items, types and gaps (S, L), padded on the right with row 0, lengths (S,), and items,
    types and gaps of the events before (S, C), padded on the left.
    """

    item_rows_SL: Ints
    type_rows_SL: Ints
    gaps_ms_SL: Ints
    lengths_S: Ints
    context_item_rows_SC: Ints
    context_type_rows_SC: Ints
    context_gaps_ms_SC: Ints

    def packed(self) -> list[bytes]:
        """Each slice in bytes of one length, see `unpacked`."""
        columns = [getattr(self, field.name) for field in fields(self)]
        rows = np.concatenate([column.reshape(len(self.lengths_S), -1) for column in columns], axis=1).astype("<i8")
        return [row.tobytes() for row in rows]


def unpacked(packed: Sequence[bytes], slice_events: int, context_events: int) -> SliceArrays:
    """The slices that `SliceArrays.packed` packed."""
    widths = [slice_events] * 3 + [1] + [context_events] * 3
    rows = np.frombuffer(b"".join(packed), dtype="<i8").reshape(len(packed), sum(widths)).astype(np.int64)
    items, types, gaps, lengths, *context = np.split(rows, np.cumsum(widths)[:-1], axis=1)
    return SliceArrays(items, types, gaps, lengths[:, 0], *context)


@dataclass(frozen=True)
class MergedUser:
    """A user after one slice: the state to make the user vector from.

    `inputs` are what the newest slice was encoded from, where the memory enters the encoder; else empty.
    """

    record: SliceRecord
    code_D: Floats
    local_D: Floats
    merged_RD: Floats
    num_merged: int
    inputs: bytes


def newest_revisions(records: Iterable[SliceRecord]) -> list[SliceRecord]:
    """Only the newest revision of each slice, by its newest event, and all that the scorer learns from; one that asks
    for a list keeps asking.
    """
    newest: dict[tuple[str, int], SliceRecord] = {}
    kept: list[SliceRecord] = []
    for record in records:
        if record.sampled:
            kept.append(record)
            continue
        key = (record.user_id, record.seq)
        known = newest.get(key)
        newest[key] = record if known is None else _newer_revision(known, record)
    return sorted([*kept, *newest.values()], key=lambda record: (record.offset, record.revision))


def _newer_revision(known: SliceRecord, record: SliceRecord) -> SliceRecord:
    older, newer = (known, record) if record.revision > known.revision else (record, known)
    if older.fresh and not newer.fresh:
        # The silence or the repair after the user's event must not cost the list that the event asks for.
        return msgspec.structs.replace(newer, fresh=True, join_epoch=older.join_epoch)
    return newer


def arrays_of(
    records: Sequence[SliceRecord], slice_events: int, context_events: int, item_rows: RowsOf, type_rows: RowsOf
) -> SliceArrays:
    """The slices as arrays for the encoder.

    Args:
        records: The slices. Of a longer one than `slice_events` the newest events are its own, the others before it.
        slice_events: L.
        context_events: C.
        item_rows: Vocabulary rows of item ids.
        type_rows: Vocabulary rows of event types.
    """
    own = [record.events[-slice_events:] for record in records]
    before = [
        [*record.before, *record.events[: len(record.events) - len(part)]]
        for record, part in zip(records, own, strict=True)
    ]
    before = [events[max(0, len(events) - context_events) :] for events in before]
    lengths_S = np.array([len(part) for part in own], dtype=np.int64)
    num_before_S = np.array([len(part) for part in before], dtype=np.int64)
    return SliceArrays(
        *_columns(own, np.arange(slice_events) < lengths_S[:, None], item_rows, type_rows),
        lengths_S,
        *_columns(before, np.arange(context_events) >= context_events - num_before_S[:, None], item_rows, type_rows),
    )


def _columns(
    parts: Sequence[Sequence[SliceEvent]], is_real: npt.NDArray[np.bool_], item_rows: RowsOf, type_rows: RowsOf
) -> tuple[Ints, Ints, Ints]:
    """Items, types and gaps of events, in the real places of an array."""
    items, types, gaps = (np.zeros(is_real.shape, dtype=np.int64) for _ in range(3))
    events = [event for part in parts for event in part]
    items[is_real] = item_rows([event.item_id for event in events])
    types[is_real] = type_rows([event.type for event in events])
    gaps[is_real] = [event.gap_ms for event in events]
    return items, types, gaps


def slice_weight(record: SliceRecord, weights: Mapping[str, float]) -> float:
    """The weight of a slice in the merge: the sum of the weights of its events."""
    return float(sum(weights.get(event.type, 1.0) for event in record.events))


def merge(
    records: Sequence[SliceRecord],
    codes_SD: Floats,
    locals_SD: Floats,
    memories: dict[str, UserMemory],
    weights: Mapping[str, float],
    merging: Merge,
    inputs: Sequence[bytes] = (),
) -> list[MergedUser]:
    """Take encoded slices into the memories (changed in place), in order.

    Args:
        records: The slices, S of them.
        codes_SD: Their codes.
        locals_SD: Their local states.
        memories: Of the users that have one; new users are added.
        weights: Weight of each event type.
        merging: How slices are merged.
        inputs: What each slice was encoded from, where the memory enters the encoder.

    Returns:
        A merged user for each slice that was news; repeats are left out.
    """
    merged: list[MergedUser] = []
    for place, record in enumerate(records):
        memory = memories.setdefault(record.user_id, UserMemory())
        code_D = codes_SD[place]
        part = MergedSlice(
            record.seq,
            record.revision,
            record.events[-1].ts,
            slice_weight(record, weights),
            code_D.astype("<f4").tobytes(),
        )
        packed = inputs[place] if inputs else b""
        if take_slice(memory, part, locals_SD[place], merging, keep=KEEP_REPAIRABLE, inputs=packed):
            local_D = np.frombuffer(memory.local, dtype="<f4")
            merged_RD = merging.read(memory.state)
            merged.append(MergedUser(record, code_D, local_D, merged_RD, memory.num_merged, memory.inputs))
    return merged


def vector_record(user: MergedUser, user_vector_D: Floats, release: str) -> SliceVectorRecord:
    """The record that publishes a slice vector and the user vector that follows from it."""
    record = user.record
    return SliceVectorRecord(
        user_id=record.user_id,
        seq=record.seq,
        revision=record.revision,
        closed=record.closed,
        fresh=record.fresh,
        items=[event.item_id for event in record.events],
        last_ts=record.events[-1].ts,
        partition=record.partition,
        offset=record.offset,
        release=release,
        slice_vector=pack_vector(user.code_D),
        user_vector=pack_vector(user_vector_D),
        num_slices_merged=user.num_merged,
        join_epoch=record.join_epoch,
        sampled=record.sampled,
    )
