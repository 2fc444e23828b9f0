"""The memory of a user: slice codes merged one by one, at O(D) an update, whatever the merge.

A merge says how a state (bytes, empty at first) changes with a slice, and what is read out of it. Two kinds of them:

- linear ones are sums, so any slice can be added, or taken out again exactly, without the others. For each
  half-life h the memory is a decayed weighted mean

      M_h = sum_j w_j 2^(-(t - t_j) / hl_h) C_j  /  sum_j w_j 2^(-(t - t_j) / hl_h)

  over the slices j before the newest one. Numerator and denominator decay alike, so both are kept at one reference
  time.
- the others cannot undo a slice. Of them the state before the slices that may still be repaired is kept too: a repair
  merges those again from there.

Shapes: H half-lives, R rows that a memory is read as, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

MAX_EXPONENT = 120.0
"""Contributions decayed by more than 2^-120 are zero in float32 anyway; the bound keeps the power finite."""

_TIME_BYTES = 8


class MergedSlice(msgspec.Struct, array_like=True):
    """A slice as the memory knows it; `code` is float32 bytes of shape (D,)."""

    seq: int
    revision: int
    end_ts: int
    weight: float
    code: bytes


class UserMemory(msgspec.Struct, array_like=True):
    """What the encode role keeps of a user.

    `state` is what the merge made of every slice before the newest; `recent` are the last of those, oldest first, kept
    so that a late revision can replace its old code, and `base` is the state without them (empty where the merge is
    linear). `newest` is not merged yet: `local` (D,) is its last state in the transformer, `inputs` what it was encoded
    from, where the memory enters the encoder.
    """

    num_merged: int = 0
    state: bytes = b""
    base: bytes = b""
    recent: list[MergedSlice] = []
    newest: MergedSlice | None = None
    local: bytes = b""
    inputs: bytes = b""


class Merge(Protocol):
    """One way of merging. States are bytes of bounded length, empty before the first slice; none is ever changed."""

    def added(self, state: bytes, part: MergedSlice) -> bytes:
        """The state after one more slice. O(D) but for the number of rows."""

    def read(self, state: bytes) -> Array:
        """The memory, shape (R, D); zeros where nothing is merged."""


@dataclass(frozen=True)
class DecayedSums:
    """Decayed means: sums of codes and of weights, for each half-life. The linear merge.

    Args:
        half_lives_ms: Shape (H,).
        dim: D.
    """

    half_lives_ms: npt.NDArray[np.float64]
    dim: int

    def added(self, state: bytes, part: MergedSlice) -> bytes:
        """As `Merge.added`."""
        return self._with(state, part, 1.0)

    def taken_out(self, state: bytes, part: MergedSlice) -> bytes:
        """The state had the slice never been added, but for rounding."""
        return self._with(state, part, -1.0)

    def read(self, state: bytes) -> Array:
        """As `Merge.read`."""
        if not state:
            return np.zeros((len(self.half_lives_ms), self.dim), dtype=np.float32)
        _, numerators_HD, denominators_H = self._parts(state)
        return np.asarray(numerators_HD / np.maximum(denominators_H[:, None], np.float32(1e-30)), dtype=np.float32)

    def _parts(self, state: bytes) -> tuple[int, Array, Array]:
        sums = np.frombuffer(state, dtype="<f4", offset=_TIME_BYTES)
        num_values = len(self.half_lives_ms) * self.dim
        numerators_HD = sums[:num_values].reshape(len(self.half_lives_ms), self.dim)
        return _time_of(state), numerators_HD, sums[num_values:]

    def _with(self, state: bytes, part: MergedSlice, sign: float) -> bytes:
        num_half_lives = len(self.half_lives_ms)
        empty = (part.end_ts, np.zeros((num_half_lives, self.dim), np.float32), np.zeros(num_half_lives, np.float32))
        kept_ts, numerators_HD, denominators_H = self._parts(state) if state else empty
        reference_ts = max(kept_ts, part.end_ts)
        kept_H = self._decay(reference_ts - kept_ts)
        added_H = self._decay(reference_ts - part.end_ts) * (sign * part.weight)
        sums_HD = numerators_HD * kept_H[:, None] + added_H[:, None] * _floats(part.code)[None, :]
        return _packed(reference_ts, sums_HD, denominators_H * kept_H + added_H)

    def _decay(self, age_ms: int) -> npt.NDArray[np.float64]:
        return np.exp2(-np.minimum(age_ms / self.half_lives_ms, MAX_EXPONENT))


Carry = Callable[[Array, Array, float, int], Array]
"""Carried vector (D,), code (D,), weight and age (ms) of one more slice -> carried vector: an encoder's own weights."""


@dataclass(frozen=True)
class CarriedVector:
    """One vector, changed by each code through an encoder's gates. One row.

    Args:
        dim: D.
        carry: Of the encoder.
    """

    dim: int
    carry: Carry

    def added(self, state: bytes, part: MergedSlice) -> bytes:
        """As `Merge.added`."""
        age_ms = max(0, part.end_ts - _time_of(state)) if state else 0
        return _packed(part.end_ts, self.carry(self.read(state)[0], _floats(part.code), part.weight, age_ms))

    def read(self, state: bytes) -> Array:
        """As `Merge.read`."""
        return _floats(state[_TIME_BYTES:] or bytes(4 * self.dim))[None]


@dataclass(frozen=True)
class LastCodes:
    """The newest codes themselves, newest first.

    Args:
        num_codes: R, how many.
        dim: D.
    """

    num_codes: int
    dim: int

    def added(self, state: bytes, part: MergedSlice) -> bytes:
        """As `Merge.added`."""
        return (part.code + state)[: 4 * self.dim * self.num_codes]

    def read(self, state: bytes) -> Array:
        """As `Merge.read`."""
        return _floats(state.ljust(4 * self.dim * self.num_codes, b"\0")).reshape(self.num_codes, self.dim)


@dataclass(frozen=True)
class NoMemory:
    """Nothing is merged. No rows.

    Args:
        dim: D.
    """

    dim: int

    def added(self, state: bytes, part: MergedSlice) -> bytes:
        """As `Merge.added`."""
        return state

    def read(self, state: bytes) -> Array:
        """As `Merge.read`."""
        return np.zeros((0, self.dim), dtype=np.float32)


def take_slice(
    memory: UserMemory, part: MergedSlice, local_D: Array, merge: Merge, *, keep: int, inputs: bytes = b""
) -> bool:
    """Take one slice revision into `memory` (changed in place): one update of the merge, or as many as it takes to
    repair.

    Args:
        memory: The user's memory; the caller's own copy.
        part: The slice with its code.
        local_D: The transformer's last state for this revision, shape (D,).
        merge: How slices are merged.
        keep: How many merged slices stay repairable.
        inputs: What the revision was encoded from, where the merge's memory enters the encoder.

    Returns:
        False where the revision is known already, or its slice is too old to be repaired: nothing changed.
    """
    newest = memory.newest
    if newest is not None and part.seq < newest.seq:
        return _repair(memory, part, merge, keep)
    if newest is not None and part.seq == newest.seq and part.revision <= newest.revision:
        return False
    if newest is not None and part.seq > newest.seq:
        memory.state = merge.added(memory.state, newest)
        memory.num_merged += 1
        memory.recent = [*memory.recent, newest]
        _forget(memory, merge, keep)
    memory.newest, memory.local, memory.inputs = part, local_D.astype("<f4").tobytes(), inputs
    return True


def _repair(memory: UserMemory, part: MergedSlice, merge: Merge, keep: int) -> bool:
    """Replace the code of a merged slice, or merge one that is heard of for the first time after a newer one."""
    known = next((other for other in memory.recent if other.seq == part.seq), None)
    if known is None:
        if memory.num_merged > len(memory.recent) and part.seq < memory.recent[0].seq:
            return False  # It may be merged already.
        memory.num_merged += 1
    elif part.revision <= known.revision:
        return False
    others = [other for other in memory.recent if other is not known]
    memory.recent = sorted([*others, part], key=lambda other: other.seq)
    if isinstance(merge, DecayedSums):
        without = memory.state if known is None else merge.taken_out(memory.state, known)
        memory.state = merge.added(without, part)
    else:
        memory.state = reduce(merge.added, memory.recent, memory.base)
    _forget(memory, merge, keep)
    return True


def _forget(memory: UserMemory, merge: Merge, keep: int) -> None:
    """Keep the codes of the newest merged slices only."""
    while len(memory.recent) > keep:
        oldest = memory.recent.pop(0)
        if not isinstance(merge, DecayedSums):
            memory.base = merge.added(memory.base, oldest)


def _packed(time_ms: int, *values: npt.NDArray[np.floating[Any]]) -> bytes:
    return time_ms.to_bytes(_TIME_BYTES, "little", signed=True) + b"".join(
        one.astype("<f4").tobytes() for one in values
    )


def _time_of(state: bytes) -> int:
    return int.from_bytes(state[:_TIME_BYTES], "little", signed=True)


def _floats(data: bytes) -> Array:
    return np.frombuffer(data, dtype="<f4")
