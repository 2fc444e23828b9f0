"""How far the user vectors of one encoder are from those of another, with the same memories.

Shapes: S slices, R rows of a memory, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encoders.contract import BoolArray, Float32Array, SliceBatch, SliceEncoder


@dataclass(frozen=True)
class Closeness:
    """The largest difference of any value of a user vector, and the lowest cosine of two vectors."""

    largest: float
    lowest_cosine: float


def closeness(encoder: SliceEncoder, oracle: SliceEncoder, batch: SliceBatch) -> Closeness:
    """Compare the user vectors of a batch. Every third slice has no memory, the others the oracle's code of the slice
    before in the batch, in every row."""
    codes_SD = np.roll(oracle.encode(batch).codes_SD, 1, axis=0)
    merged_SRD = np.repeat(codes_SD[:, None], oracle.merge.num_rows, axis=1)
    has_merged_S = np.arange(len(batch)) % 3 > 0
    one_SD, other_SD = (user_vectors(either, batch, merged_SRD, has_merged_S) for either in (encoder, oracle))
    lengths_S = np.linalg.norm(one_SD, axis=1) * np.linalg.norm(other_SD, axis=1)
    cosines_S = (one_SD * other_SD).sum(axis=1) / lengths_S
    return Closeness(float(np.abs(one_SD - other_SD).max()), float(cosines_S.min()))


def user_vectors(
    encoder: SliceEncoder, batch: SliceBatch, merged_SRD: Float32Array, has_merged_S: BoolArray
) -> Float32Array:
    """(S, D) user vectors, by way of `recalled` where the memory enters the encoder."""
    if encoder.merge.enters_encoder:
        locals_SD = encoder.recalled(batch, merged_SRD, has_merged_S)
    else:
        locals_SD = encoder.encode(batch).locals_SD
    return encoder.user_vectors(locals_SD, merged_SRD, has_merged_S)
