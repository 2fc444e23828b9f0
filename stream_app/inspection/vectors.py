"""How a user's vector comes about: the slices encoded as the role encodes them, and what each weighs in the merge.

Shapes: S slices, H half-lives, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from encoders.contract import SliceEncoder
from stream_app.inspection.trace import Trace
from stream_app.records import SliceRecord, SliceVectorRecord, unpack_vector
from stream_app.slice_encoding import encode_slices, merge_of
from stream_app.stages.encoding import newest_revisions, slice_weight
from stream_app.stages.listing import take_vectors
from stream_app.stages.merging import MAX_EXPONENT, UserMemory
from stream_app.stages.profile import UserProfile

Revision = tuple[int, int]
"""Number and revision of a slice."""


class InspectedSlice(msgspec.Struct, frozen=True, kw_only=True):
    """A slice as it stands, and its part in the user vector.

    `closed_by` is None while it is open; `in_history` tells that the sequence role still keeps it. `norm` is the
    Euclidean norm of its code, `weight` the sum of its events' weights. `shares` says what part of the merged
    vector of each half-life its code is (they sum to 1 over all merged slices); None for the newest slice, which is
    not merged but enters through the transformer's state at its last event.
    """

    slice: int
    revision: int
    closed_by: str | None
    in_history: bool
    first_ts: int
    last_ts: int
    items: list[str]
    weight: float
    norm: float
    shares: list[float] | None


class InspectedVector(msgspec.Struct, frozen=True, kw_only=True):
    """The user vector: its norm, those of the merged vectors by half-life, and how many slices are merged.

    `is_as_published` tells whether it has the very bytes of the published one; None where none was found.
    """

    norm: float
    merged_norms: list[float]
    num_merged: int
    is_as_published: bool | None


@dataclass(frozen=True)
class EncodedUser:
    """A user after encoding: what lists are made from, and how it came about.

    Args:
        profile: As the recommend role keeps it.
        asked: The slice vector that the newest list answers.
        slices: All slices, oldest first.
        merged_HD: The merged vectors.
        num_merged: Slices in them.
    """

    profile: UserProfile
    asked: SliceVectorRecord
    slices: list[InspectedSlice]
    merged_HD: npt.NDArray[np.float32]
    num_merged: int

    def vector(self, published: Mapping[Revision, SliceVectorRecord]) -> InspectedVector:
        """Facts of the user vector, compared with the published ones."""
        known = published.get((self.asked.seq, self.asked.revision))
        return InspectedVector(
            norm=_norm(unpack_vector(self.asked.user_vector)),
            merged_norms=[_norm(merged_D) for merged_D in self.merged_HD],
            num_merged=self.num_merged,
            is_as_published=None if known is None else known.user_vector == self.asked.user_vector,
        )


def encode_user(
    traced: Trace, encoder: SliceEncoder, weights: Mapping[str, float], order: Sequence[Revision] = ()
) -> EncodedUser | None:
    """Encode and merge a user's slices; None where no event was applied.

    Args:
        traced: The user's slices.
        encoder: The trained encoder.
        weights: Weight of each event type.
        order: The revisions that the encode role encoded, in its order. Merged in the same order, vectors have the
            same bytes also where slices were repaired. Newer revisions follow; without any, the newest of each slice
            are merged, as in one run.
    """
    if traced.answered is None:
        return None
    memories: dict[str, UserMemory] = {}
    records = in_order(traced.revisions, order)
    vectors = encode_slices(encoder, records, memories, weights)
    profiles: dict[str, UserProfile] = {}
    take_vectors(vectors, profiles, encoder.release)
    (user_id,) = memories
    newest = {vector.seq: vector for vector in vectors}
    memory = memories[user_id]
    merged_HD = merge_of(encoder).read(memory.state)
    slices = _slices(traced, [newest[seq] for seq in sorted(newest)], weights, encoder.half_lives_ms)
    return EncodedUser(profiles[user_id], newest[traced.answered.seq], slices, merged_HD, memory.num_merged)


def in_order(revisions: Sequence[SliceRecord], order: Sequence[Revision]) -> list[SliceRecord]:
    """The revisions to merge: first those of `order` that are known, then the newest of each slice if it is newer."""
    by_key = {(record.seq, record.revision): record for record in revisions}
    chosen = [by_key[key] for key in order if key in by_key]
    done: dict[int, int] = {}
    for record in chosen:
        done[record.seq] = max(record.revision, done.get(record.seq, -1))
    return chosen + [one for one in newest_revisions(revisions) if one.revision > done.get(one.seq, -1)]


def merge_shares(
    end_ts_S: Sequence[int], weights_S: Sequence[float], half_lives_ms: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """What part of the merged vector of each half-life each slice is, shape (S, H); columns sum to 1.

    This is the definition in `stages.merging`, written out: w_j 2^(-(t - t_j) / hl_h), over its sum.

    Args:
        end_ts_S: Time of each merged slice's last event, milliseconds; at least one.
        weights_S: Weight of each.
        half_lives_ms: Shape (H,).
    """
    ages_S1 = (max(end_ts_S) - np.asarray(end_ts_S, dtype=np.float64))[:, None]
    parts_SH = np.asarray(weights_S)[:, None] * np.exp2(-np.minimum(ages_S1 / half_lives_ms, MAX_EXPONENT))
    shares_SH: npt.NDArray[np.float64] = parts_SH / parts_SH.sum(axis=0)
    return shares_SH


def _slices(
    traced: Trace,
    vectors: Sequence[SliceVectorRecord],
    weights: Mapping[str, float],
    half_lives_ms: npt.NDArray[np.float64],
) -> list[InspectedSlice]:
    records = {(record.seq, record.revision): record for record in traced.revisions}
    parts = [records[vector.seq, vector.revision] for vector in vectors]
    weights_S = [slice_weight(part, weights) for part in parts]
    shares: list[list[float] | None] = [None]
    if len(parts) > 1:
        shares = [
            *merge_shares([one.events[-1].ts for one in parts[:-1]], weights_S[:-1], half_lives_ms).tolist(),
            None,
        ]
    return [
        InspectedSlice(
            slice=part.seq,
            revision=part.revision,
            closed_by=traced.closed_by.get(part.seq),
            in_history=part.seq in traced.kept,
            first_ts=part.events[0].ts,
            last_ts=part.events[-1].ts,
            items=[event.item_id for event in part.events],
            weight=weight,
            norm=_norm(unpack_vector(vector.slice_vector)),
            shares=share,
        )
        for part, vector, weight, share in zip(parts, vectors, weights_S, shares, strict=True)
    ]


def _norm(vector_D: npt.NDArray[np.float32]) -> float:
    return float(np.linalg.norm(vector_D.astype(np.float64)))
