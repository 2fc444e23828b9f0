"""From slice records to user vectors: what to encode, and how the codes are merged.

Pure: the encoder itself is called by whoever holds it, between `batch_of` and `merge`.

Shapes: S slices, L events of a slice, H half-lives, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from stream_app.records import SliceRecord, SliceVectorRecord, pack_vector
from stream_app.stages.merging import MergedSlice, UserMemory, merged_vectors, take_slice

KEEP_REPAIRABLE = 4
"""Merged slices whose codes are kept for repair; the sequence role repairs no older ones."""

Floats = npt.NDArray[np.float32]
RowsOf = Callable[[list[str]], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class SliceArrays:
    """Slices as arrays, padded on the right with row 0: items, types and gaps (S, L), lengths (S,), all int64."""

    item_rows_SL: npt.NDArray[np.int64]
    type_rows_SL: npt.NDArray[np.int64]
    gaps_ms_SL: npt.NDArray[np.int64]
    lengths_S: npt.NDArray[np.int64]


@dataclass(frozen=True)
class MergedUser:
    """A user after one slice: the state to make the user vector from."""

    record: SliceRecord
    code_D: Floats
    local_D: Floats
    merged_HD: Floats
    num_merged: int


def newest_revisions(records: Iterable[SliceRecord]) -> list[SliceRecord]:
    """Only the newest revision of each slice, by its newest event; one that asks for a list keeps asking."""
    newest: dict[tuple[str, int], SliceRecord] = {}
    for record in records:
        key = (record.user_id, record.seq)
        known = newest.get(key)
        newest[key] = record if known is None else _newer_revision(known, record)
    return sorted(newest.values(), key=lambda record: record.offset)


def _newer_revision(known: SliceRecord, record: SliceRecord) -> SliceRecord:
    older, newer = (known, record) if record.revision > known.revision else (record, known)
    if older.fresh and not newer.fresh:
        # The silence or the repair after the user's event must not cost the list that the event asks for.
        return msgspec.structs.replace(newer, fresh=True, join_epoch=older.join_epoch)
    return newer


def arrays_of(records: Sequence[SliceRecord], slice_events: int, item_rows: RowsOf, type_rows: RowsOf) -> SliceArrays:
    """The slices as arrays for the encoder; of a longer slice the newest `slice_events` events."""
    parts = [record.events[-slice_events:] for record in records]
    lengths_S = np.array([len(part) for part in parts], dtype=np.int64)
    mask_SL = np.arange(slice_events) < lengths_S[:, None]
    items, types, gaps = (np.zeros((len(parts), slice_events), dtype=np.int64) for _ in range(3))
    events = [event for part in parts for event in part]
    items[mask_SL] = item_rows([event.item_id for event in events])
    types[mask_SL] = type_rows([event.type for event in events])
    gaps[mask_SL] = [event.gap_ms for event in events]
    return SliceArrays(items, types, gaps, lengths_S)


def slice_weight(record: SliceRecord, weights: Mapping[str, float]) -> float:
    """The weight of a slice in the merge: the sum of the weights of its events."""
    return float(sum(weights.get(event.type, 1.0) for event in record.events))


def merge(
    records: Sequence[SliceRecord],
    codes_SD: Floats,
    locals_SD: Floats,
    memories: dict[str, UserMemory],
    weights: Mapping[str, float],
    half_lives_ms: npt.NDArray[np.float64],
) -> list[MergedUser]:
    """Take encoded slices into the memories (changed in place), in order.

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
        if take_slice(memory, part, locals_SD[place], half_lives_ms, keep=KEEP_REPAIRABLE):
            merged.append(
                MergedUser(
                    record,
                    code_D,
                    np.frombuffer(memory.local, dtype="<f4"),
                    merged_vectors(memory, len(half_lives_ms), len(code_D)),
                    memory.num_merged,
                )
            )
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
    )
