"""The merged vector of a user: slice codes summed with decay in event time, at O(D) an update.

Shapes: H half-lives, D dimensions. For each half-life h the memory is a decayed weighted mean

    M_h = sum_j w_j 2^(-(t - t_j) / hl_h) C_j  /  sum_j w_j 2^(-(t - t_j) / hl_h)

over the slices j before the newest one. Numerator and denominator decay alike, so both are kept at one
reference time and any slice can be added, or taken out again exactly, without the others.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

MAX_EXPONENT = 120.0
"""Contributions decayed by more than 2^-120 are zero in float32 anyway; the bound keeps the power finite."""


class MergedSlice(msgspec.Struct, array_like=True):
    """A slice as the memory knows it; `code` is float32 bytes of shape (D,)."""

    seq: int
    revision: int
    end_ts: int
    weight: float
    code: bytes


class UserMemory(msgspec.Struct, array_like=True):
    """What the encode role keeps of a user.

    `numerators` (H, D) and `denominators` (H,) are float32 bytes at time `reference_ts` and hold every slice
    before the newest; `recent` are the last of those, oldest first, kept so that a late revision can replace
    its old code; `newest` is not merged yet, `local` (D,) is its last state in the transformer.
    """

    reference_ts: int = 0
    num_merged: int = 0
    numerators: bytes = b""
    denominators: bytes = b""
    recent: list[MergedSlice] = []
    newest: MergedSlice | None = None
    local: bytes = b""


def take_slice(
    memory: UserMemory,
    part: MergedSlice,
    local_D: Array,
    half_lives_ms: npt.NDArray[np.float64],
    *,
    keep: int,
) -> bool:
    """Take one slice revision into `memory` (changed in place), in O(H D).

    Args:
        memory: The user's memory; the caller's own copy.
        part: The slice with its code.
        local_D: The transformer's last state for this revision, shape (D,).
        half_lives_ms: Shape (H,).
        keep: How many merged slices stay repairable.

    Returns:
        False where the revision is known already, or its slice is too old to be repaired: nothing changed.
    """
    newest = memory.newest
    if newest is None or part.seq > newest.seq:
        if newest is not None:
            _add(memory, newest, half_lives_ms, sign=1.0)
            memory.num_merged += 1
            memory.recent = [*memory.recent, newest][-keep:]
        memory.newest, memory.local = part, local_D.astype("<f4").tobytes()
        return True
    if part.seq == newest.seq:
        if part.revision <= newest.revision:
            return False
        memory.newest, memory.local = part, local_D.astype("<f4").tobytes()
        return True
    return _replace(memory, part, half_lives_ms, keep)


def merged_vectors(memory: UserMemory, num_half_lives: int, dim: int) -> Array:
    """The memory as decayed means, shape (H, D); zeros where nothing is merged yet."""
    if not memory.num_merged:
        return np.zeros((num_half_lives, dim), dtype=np.float32)
    numerators = np.frombuffer(memory.numerators, dtype="<f4").reshape(num_half_lives, dim)
    denominators = np.frombuffer(memory.denominators, dtype="<f4").reshape(num_half_lives, 1)
    return np.asarray(numerators / np.maximum(denominators, np.float32(1e-30)), dtype=np.float32)


def _replace(memory: UserMemory, part: MergedSlice, half_lives_ms: npt.NDArray[np.float64], keep: int) -> bool:
    known = next((other for other in memory.recent if other.seq == part.seq), None)
    if known is None:
        return _insert(memory, part, half_lives_ms, keep)
    if part.revision <= known.revision:
        return False
    _add(memory, known, half_lives_ms, sign=-1.0)
    _add(memory, part, half_lives_ms, sign=1.0)
    memory.recent = [part if other is known else other for other in memory.recent]
    return True


def _insert(memory: UserMemory, part: MergedSlice, half_lives_ms: npt.NDArray[np.float64], keep: int) -> bool:
    """Merge a slice that is heard of for the first time after a newer one (it was repaired in between)."""
    all_kept = memory.num_merged == len(memory.recent)
    if not all_kept and part.seq < memory.recent[0].seq:
        return False  # It may be in the sums already.
    _add(memory, part, half_lives_ms, sign=1.0)
    memory.num_merged += 1
    memory.recent = sorted([*memory.recent, part], key=lambda other: other.seq)[-keep:]
    return True


def _add(memory: UserMemory, part: MergedSlice, half_lives_ms: npt.NDArray[np.float64], *, sign: float) -> None:
    code_D = np.frombuffer(part.code, dtype="<f4")
    num_half_lives, dim = len(half_lives_ms), len(code_D)
    if memory.numerators:
        numerators = np.frombuffer(memory.numerators, dtype="<f4").reshape(num_half_lives, dim)
        denominators = np.frombuffer(memory.denominators, dtype="<f4")
    else:
        numerators = np.zeros((num_half_lives, dim), dtype=np.float32)
        denominators = np.zeros(num_half_lives, dtype=np.float32)
        memory.reference_ts = part.end_ts
    reference_ts = max(memory.reference_ts, part.end_ts)
    kept_H = _decay(reference_ts - memory.reference_ts, half_lives_ms)
    added_H = _decay(reference_ts - part.end_ts, half_lives_ms) * (sign * part.weight)
    numerators = numerators * kept_H[:, None] + added_H[:, None] * code_D[None, :]
    denominators = denominators * kept_H + added_H
    memory.reference_ts = reference_ts
    memory.numerators = numerators.astype("<f4").tobytes()
    memory.denominators = denominators.astype("<f4").tobytes()


def _decay(age_ms: int, half_lives_ms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.exp2(-np.minimum(age_ms / half_lives_ms, MAX_EXPONENT))
