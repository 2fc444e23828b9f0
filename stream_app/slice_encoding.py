"""From slice records to slice vectors with an encoder in hand: what the stream and the offline walk share.

Shapes: S slices, R rows of a memory, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from encoders.contract import SliceBatch, SliceEncoder
from stream_app.records import SliceRecord, SliceVectorRecord
from stream_app.stages.encoding import MergedUser, SliceArrays, arrays_of, merge, unpacked, vector_record
from stream_app.stages.merging import CarriedVector, DecayedSums, LastCodes, Merge, NoMemory, UserMemory


def merge_of(encoder: SliceEncoder) -> Merge:
    """The merge that an encoder was trained with, ready to keep memories by."""
    spec = encoder.merge
    if spec.kind == "none":
        return NoMemory(encoder.dim)
    if spec.kind == "gate":
        return CarriedVector(encoder.dim, encoder.carried)
    if spec.kind == "concat":
        return LastCodes(spec.num_rows, encoder.dim)
    return DecayedSums(encoder.half_lives_ms, encoder.dim)


def encode_slices(
    encoder: SliceEncoder,
    records: Sequence[SliceRecord],
    memories: dict[str, UserMemory],
    weights: Mapping[str, float],
) -> list[SliceVectorRecord]:
    """Encode slices in one batch, take them into the memories in order, and make the user vectors that follow.

    Where the memory enters the encoder, codes do not depend on it. So they are made first, for all slices at once; the
    slices are merged; and then each user's newest slice is encoded with the memory before it.

    Args:
        encoder: Called two or three times; takes milliseconds, so never on an event loop.
        records: In the order they are to be merged.
        memories: Of the users that have one; changed in place, new users are added.
        weights: Weight of each event type.

    Returns:
        A record for each slice revision that was news, in the order given.
    """
    if not records:
        return []
    arrays = arrays_of(records, encoder.slice_events, encoder.context_events, encoder.rows_of, encoder.type_rows_of)
    codes = encoder.encode(_batch_of(arrays))
    inputs = arrays.packed() if encoder.merge.enters_encoder else []
    users = merge(records, codes.codes_SD, codes.locals_SD, memories, weights, merge_of(encoder), inputs)
    if not users:
        return []
    vectors_SD = _user_vectors(encoder, users)
    return [vector_record(user, vectors_SD[place], encoder.release) for place, user in enumerate(users)]


def _user_vectors(encoder: SliceEncoder, users: Sequence[MergedUser]) -> npt.NDArray[np.float32]:
    merged_SRD = np.stack([user.merged_RD for user in users])
    has_merged_S = np.array([user.num_merged > 0 for user in users])
    if encoder.merge.enters_encoder:
        arrays = unpacked([user.inputs for user in users], encoder.slice_events, encoder.context_events)
        locals_SD = encoder.recalled(_batch_of(arrays), merged_SRD, has_merged_S)
    else:
        locals_SD = np.stack([user.local_D for user in users])
    return encoder.user_vectors(locals_SD, merged_SRD, has_merged_S)


def _batch_of(arrays: SliceArrays) -> SliceBatch:
    return SliceBatch(**vars(arrays))
