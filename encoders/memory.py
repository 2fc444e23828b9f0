"""The merged memory of a user: decayed means of slice codes, one per half-life, updated in O(H·D).

For half-life h the memory over the slices j = 1..k, with code C_j, weight w_j and end time t_j, is::

    M_h = Σ_j w_j 2^(-(t - t_j) / h) C_j  /  Σ_j w_j 2^(-(t - t_j) / h)

The reference time t cancels, so numerator and denominator can be kept as of the last slice's end and be
carried forward by one factor: the update never looks at older slices again.

Shapes: J slices, H half-lives, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encoders.contract import Float32Array, Float64Array, Int64Array


@dataclass(frozen=True)
class DecayedMemory:
    """Numerators and denominators as of `end_ms`, the end of the newest merged slice.

    Args:
        sums_HD: float64, decayed sums of weighted codes.
        masses_H: float64, decayed sums of weights; zero before the first slice.
        end_ms: end time of the newest slice, in milliseconds.
    """

    sums_HD: Float64Array
    masses_H: Float64Array
    end_ms: int

    @classmethod
    def empty(cls, num_half_lives: int, dim: int) -> DecayedMemory:
        """The memory of a user without a closed slice."""
        return cls(np.zeros((num_half_lives, dim)), np.zeros(num_half_lives), 0)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was merged yet."""
        return not bool(self.masses_H.any())

    def means(self) -> Float32Array:
        """(H, D) float32, the merged codes M_h; zeros while the memory is empty."""
        masses_H = np.where(self.masses_H > 0, self.masses_H, 1.0)
        return (self.sums_HD / masses_H[:, None]).astype(np.float32)

    def merged(self, code_D: Float32Array, weight: float, end_ms: int, half_lives_ms: Float64Array) -> DecayedMemory:
        """The memory after one more slice. O(H·D); neither argument nor `self` is changed.

        Args:
            code_D: float32, the slice's code.
            weight: the slice's weight, above zero.
            end_ms: time of the slice's last event, not before `self.end_ms`.
            half_lives_ms: (H,) float64.

        Raises:
            ValueError: if the weight is not positive or the slice ends before the newest one.
        """
        if not weight > 0:
            raise ValueError(f"slice weight is {weight}, expected above zero; leave the slice out instead")
        if not self.is_empty and end_ms < self.end_ms:
            raise ValueError(
                f"slice ends at {end_ms} ms, before the newest merged one at {self.end_ms} ms; "
                f"merge slices in order of their end"
            )
        age_ms = 0 if self.is_empty else end_ms - self.end_ms
        keep_H = np.exp2(-age_ms / half_lives_ms)
        # A user silent for thousands of half-lives must not divide zero by zero at the next slice: the
        # new slice's own weight keeps every mass above zero.
        sums_HD = self.sums_HD * keep_H[:, None] + weight * code_D.astype(np.float64)
        return DecayedMemory(sums_HD, self.masses_H * keep_H + weight, end_ms)


def direct_means(
    codes_JD: Float32Array, weights_J: Float32Array, ends_ms_J: Int64Array, half_lives_ms: Float64Array
) -> Float32Array:
    """(H, D) float32 merged codes by the formula itself; the oracle of `DecayedMemory`. O(J·H·D).

    Raises:
        ValueError: if there is no slice, for which the formula has no value.
    """
    if not len(codes_JD):
        raise ValueError("no slices to merge; a user without closed slices has no memory")
    ages_ms_J = (ends_ms_J.max() - ends_ms_J).astype(np.float64)
    shares_HJ = weights_J.astype(np.float64) * np.exp2(-ages_ms_J[None, :] / half_lives_ms[:, None])
    means_HD = shares_HJ @ codes_JD.astype(np.float64) / shares_HJ.sum(axis=1, keepdims=True)
    return np.asarray(means_HD, dtype=np.float32)
