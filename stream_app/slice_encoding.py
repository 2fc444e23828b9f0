"""From slice records to slice vectors with an encoder in hand: what the stream and the offline walk share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from encoders.contract import SliceBatch, SliceEncoder
from stream_app.records import SliceRecord, SliceVectorRecord
from stream_app.stages.encoding import arrays_of, merge, vector_record
from stream_app.stages.merging import UserMemory


def encode_slices(
    encoder: SliceEncoder,
    records: Sequence[SliceRecord],
    memories: dict[str, UserMemory],
    weights: Mapping[str, float],
) -> list[SliceVectorRecord]:
    """Encode slices in one batch, take them into the memories in order, and make the user vectors that follow.

    Args:
        encoder: Called twice; takes milliseconds, so never on an event loop.
        records: In the order they are to be merged.
        memories: Of the users that have one; changed in place, new users are added.
        weights: Weight of each event type.

    Returns:
        A record for each slice revision that was news, in the order given.
    """
    if not records:
        return []
    arrays = arrays_of(records, encoder.slice_events, encoder.rows_of, encoder.type_rows_of)
    codes = encoder.encode(SliceBatch(arrays.item_rows_SL, arrays.type_rows_SL, arrays.gaps_ms_SL, arrays.lengths_S))
    users = merge(records, codes.codes_SD, codes.locals_SD, memories, weights, encoder.half_lives_ms)
    if not users:
        return []
    vectors_SD = encoder.user_vectors(
        np.stack([user.local_D for user in users]),
        np.stack([user.merged_HD for user in users]),
        np.array([user.num_merged > 0 for user in users]),
    )
    return [vector_record(user, vectors_SD[place], encoder.release) for place, user in enumerate(users)]
