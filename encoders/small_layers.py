"""The layers of a small model in numpy, each product for one slice at a time.

How a product rounds depends on its shape, and a slice's products have the shape that its own length gives them: so
nothing depends on what else is in the batch.

What a layer norm subtracts and multiplies by is folded into the weights around it. The states are kept with a mean of
zero, as everything that is added to them has; then a norm is a division by their length (`unit`), and its weight and
bias belong to the linear layer behind it.

Shapes: S slices of equally many places, L places, P places before them (memory and context), T = P + L, D dimensions, I
attention dimensions, A heads, W = I / A, K and N of any product.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import nn

from encoders.contract import Float32Array, Float64Array
from encoders.transformer import HIDDEN, Block

ONE = np.float32(1)
NORM_EPSILON = np.float32(1e-5)

GELU_COEFFICIENTS = tuple(
    np.float32(value)
    for value in (
        -3.61124557e-09,
        2.66893391e-07,
        -7.93822826e-06,
        1.10480386e-04,
        6.62597555e-05,
        -7.26685667e-02,
        -1.59576843,
    )
)
"""Of ``-h``, highest power first. Fitted to ``h(x * x) = ln(Phi(x) / Phi(-x)) / x`` for x up to 6, so that the largest
difference in ``x * Phi(x)`` is least: 6.7e-8 before rounding."""
MAX_SQUARE = np.float32(36)
"""Beyond, Phi is 0 or 1 to eight digits, and h is held still."""
MAX_EXPONENT = np.float32(80)
"""exp of more would not be finite in float32."""

MAX_PRODUCT = 2**18
"""Multiplications of one call. OpenBLAS gives larger products to several threads, which wait for each other far longer
than they compute (240 to 900 us for 32 x 64 x 256, where 16 x 64 x 256 takes 11)."""


def centred(rows: Float32Array) -> Float32Array:
    """Rows less their mean over the last axis."""
    means = np.add.reduce(rows, axis=-1, keepdims=True)
    means *= np.float32(1 / rows.shape[-1])
    return rows - means


def unit(centred_rows: Float32Array) -> Float32Array:
    """A layer norm without weights, of rows whose mean is zero."""
    lengths = np.vecdot(centred_rows, centred_rows)
    lengths *= np.float32(1 / centred_rows.shape[-1])
    lengths += NORM_EPSILON
    np.sqrt(lengths, out=lengths)
    normed: Float32Array = centred_rows / lengths[..., None]
    return normed


def gelu(values: Float32Array) -> Float32Array:
    """GELU, ``x * Phi(x)``, to the last digits of float32.

    With ``Phi(x) = 1 / (1 + exp(-x * h(x * x)))``; h is smooth, and a polynomial of degree six follows it.
    """
    squares: Float32Array = values * values
    np.minimum(squares, MAX_SQUARE, out=squares)
    exponents: Float32Array = squares * GELU_COEFFICIENTS[0]
    for coefficient in GELU_COEFFICIENTS[1:-1]:
        exponents += coefficient
        exponents *= squares
    exponents += GELU_COEFFICIENTS[-1]
    exponents *= values
    np.minimum(exponents, MAX_EXPONENT, out=exponents)
    np.exp(exponents, out=exponents)
    exponents += ONE
    np.divide(values, exponents, out=exponents)
    return exponents


def softmax(logits: Float32Array) -> Float32Array:
    """Over the last axis, in place."""
    logits -= np.maximum.reduce(logits, axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= np.add.reduce(logits, axis=-1, keepdims=True)
    return logits


@dataclass
class Affine:
    """A weight (K, N) and a bias (N,), in float64 while they are folded."""

    weight_KN: Float64Array
    bias_N: Float64Array

    @classmethod
    def of(cls, layer: nn.Linear) -> Affine:
        """A trained layer's."""
        return cls(layer.weight.double().numpy().T, layer.bias.double().numpy())

    def behind(self, norm: nn.LayerNorm) -> Affine:
        """Behind a norm's weight and bias, to be given what `unit` gives."""
        weight_K, bias_K = norm.weight.double().numpy(), norm.bias.double().numpy()
        return Affine(weight_K[:, None] * self.weight_KN, bias_K @ self.weight_KN + self.bias_N)

    def then(self, other: Affine) -> Affine:
        """Both in one."""
        return Affine(self.weight_KN @ other.weight_KN, self.bias_N @ other.weight_KN + other.bias_N)

    def centred(self) -> Affine:
        """Less the mean of what comes out."""
        return Affine(self.weight_KN - self.weight_KN.mean(1, keepdims=True), self.bias_N - self.bias_N.mean())


class Linear:
    """A linear layer, slice by slice."""

    def __init__(self, affine: Affine) -> None:
        self._weight_KN: Float32Array = np.ascontiguousarray(affine.weight_KN, dtype=np.float32)
        self._bias_N: Float32Array = affine.bias_N.astype(np.float32)
        self._rows_at_once = max(1, MAX_PRODUCT // self._weight_KN.size)

    def __call__(self, rows_SLK: Float32Array) -> Float32Array:
        """(S, L, N), a new array."""
        num_slices, num_places, _ = rows_SLK.shape
        out_SLN = np.empty((num_slices, num_places, len(self._bias_N)), dtype=np.float32)
        self.into(rows_SLK, out_SLN)
        return out_SLN

    def into(self, rows_SLK: Float32Array, out_SLN: Float32Array) -> None:
        """The same into an array, which may be a view."""
        step = self._rows_at_once
        if rows_SLK.shape[1] <= step:
            np.matmul(rows_SLK, self._weight_KN, out=out_SLN)
        else:
            for start in range(0, rows_SLK.shape[1], step):
                rows = slice(start, start + step)
                np.matmul(rows_SLK[:, rows], self._weight_KN, out=out_SLN[:, rows])
        out_SLN += self._bias_N


@dataclass(slots=True)
class Past:
    """What slices may attend to besides themselves.

    Args:
        context_SCD: events before, as `unit` gives them.
        memory_SRD: rows of the memory, likewise; None where they do not enter the encoder.
        hidden_SP: HIDDEN where there is nothing, else 0; None where all places hold something.
    """

    context_SCD: Float32Array
    memory_SRD: Float32Array | None
    hidden_SP: Float32Array | None


@dataclass
class SmallBlock:
    """A transformer block as in `encoders.transformer.Block`, with the queries' scale inside their weights.

    Args:
        block: the trained one.
        context_norm: of the events before.
        memory_norm: of the memory's rows, where they enter the encoder.
    """

    block: Block
    context_norm: nn.LayerNorm | None
    memory_norm: nn.LayerNorm | None
    _biases: dict[int, Float32Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        block = self.block
        own = Affine.of(block.queries_keys_values).behind(block.attention_norm)
        self._width = len(own.bias_N) // 3 // block.num_heads
        queries = slice(0, block.num_heads * self._width)
        own.weight_KN[:, queries] *= self._width**-0.5
        own.bias_N[queries] *= self._width**-0.5
        self._own = Linear(own)
        self._context = _behind(block.context_keys_values, self.context_norm)
        self._memory = _behind(block.memory_keys_values, self.memory_norm)
        self._out = Linear(Affine.of(block.attention_out).centred())
        self._feed_in = Linear(Affine.of(block.feed_in).behind(block.feed_norm))
        self._feed_out = Linear(Affine.of(block.feed_out).centred())

    def __call__(self, states_SLD: Float32Array, unit_SLD: Float32Array, past: Past) -> Float32Array:
        """One block more, in place; what `unit` gives of the states before goes in, and of those after it comes out."""
        states_SLD += self._out(self._attended(unit_SLD, past))
        states_SLD += self._feed_out(gelu(self._feed_in(unit(states_SLD))))
        return unit(states_SLD)

    def _attended(self, unit_SLD: Float32Array, past: Past) -> Float32Array:
        """(S, L, I) mixed values of all heads."""
        num_slices, num_places, _ = unit_SLD.shape
        joint_STX = self._projected(unit_SLD, past)
        num_before = joint_STX.shape[1] - num_places
        parts_3SATW = joint_STX.reshape(num_slices, -1, 3, self.block.num_heads, self._width).transpose(2, 0, 3, 1, 4)
        logits_SALT = parts_3SATW[0, :, :, num_before:] @ parts_3SATW[1].swapaxes(2, 3)
        logits_SALT += self._bias(num_places)
        if past.hidden_SP is not None:
            logits_SALT[..., :num_before] += past.hidden_SP[:, None, None]
        mixed_SLAW = np.empty((num_slices, num_places, self.block.num_heads, self._width), dtype=np.float32)
        np.matmul(softmax(logits_SALT), parts_3SATW[2], out=mixed_SLAW.swapaxes(1, 2))
        return mixed_SLAW.reshape(num_slices, num_places, -1)

    def _projected(self, unit_SLD: Float32Array, past: Past) -> Float32Array:
        """(S, T, 3·I) queries, keys and values of memory, context and slice; of what is before the slice no queries."""
        num_slices, num_places, _ = unit_SLD.shape
        num_context = past.context_SCD.shape[1]
        num_before = num_context + (0 if past.memory_SRD is None else past.memory_SRD.shape[1])
        width = self.block.num_heads * self._width
        joint_STX = np.empty((num_slices, num_before + num_places, 3 * width), dtype=np.float32)
        self._own.into(unit_SLD, joint_STX[:, num_before:])
        if self._context is not None:
            self._context.into(past.context_SCD, joint_STX[:, num_before - num_context : num_before, width:])
        if self._memory is not None and past.memory_SRD is not None:
            self._memory.into(past.memory_SRD, joint_STX[:, : num_before - num_context, width:])
        return joint_STX

    def _bias(self, num_places: int) -> Float32Array:
        """(A, L, T) learned bias of each key, and HIDDEN for those ahead."""
        bias_ALT = self._biases.get(num_places)
        if bias_ALT is None:
            bias_ALT = self._biases[num_places] = self._new_bias(num_places)
        return bias_ALT

    def _new_bias(self, num_places: int) -> Float32Array:
        distances_LT = np.arange(num_places)[:, None] - np.arange(-self.block.context_events, num_places)
        bias_ALT = self.block.distance_bias_AT.numpy()[:, np.maximum(distances_LT, 0)]
        bias_ALT = np.where(distances_LT < 0, np.float32(HIDDEN), bias_ALT)
        if self.block.memory_bias_AR is not None:
            memory_AR = self.block.memory_bias_AR.numpy()
            memory_ALR = np.broadcast_to(memory_AR[:, None], (len(memory_AR), num_places, memory_AR.shape[1]))
            bias_ALT = np.concatenate([memory_ALR, bias_ALT], axis=2)
        return np.ascontiguousarray(bias_ALT, dtype=np.float32)


def _behind(layer: nn.Linear | None, norm: nn.LayerNorm | None) -> Linear | None:
    return None if layer is None or norm is None else Linear(Affine.of(layer).behind(norm))
