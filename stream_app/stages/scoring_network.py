"""The scorer's network: two hidden layers of rectified units over standardised features, and one output.

``output = w · relu(B · relu(A x + a) + b)``; its parameters lie in one array in the order A (F, K), a (K,), B (K, K),
b (K,), w (K,). Rows go through the matrix products in blocks of one size, padded: how a library sums depends on the
number of rows and of threads, and the same row must have the same score everywhere. A block is too small for threads.

Shapes: N rows, F features, K hidden units, P parameters, B blocks of R rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
"""float32 or float64: results come in what the parameters and the rows are in."""

NUM_HIDDEN = 32
"""K. 16 lost a hundredth of NDCG@10 on a year of news reading; 64 won nothing beyond the noise."""

BLOCK_ROWS = 64
"""R. A whole number of the tiles that products are cut into, so that a row's place in its block does not matter."""


@dataclass(frozen=True)
class Network:
    """The parameters, as views of one array."""

    first_FK: Floats
    first_bias_K: Floats
    second_KK: Floats
    second_bias_K: Floats
    out_K: Floats

    @classmethod
    def of(cls, parameters_P: Floats, num_features: int, num_hidden: int) -> Network:
        """Cut up an array of parameters.

        Raises:
            ValueError: It has another length than features and units ask for.
        """
        shapes = _shapes(num_features, num_hidden)
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        if parameters_P.shape != (ends[-1],):
            raise ValueError(
                f"{len(parameters_P)} parameters, expected {ends[-1]} for {num_features} features, {num_hidden} units"
            )
        parts = np.split(parameters_P, ends[:-1])
        return cls(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))


@dataclass(frozen=True)
class Forward:
    """Rows on their way through the network, in blocks.

    Args:
        num_rows: N; what stands behind the last row means nothing.
        rows_BRF: The rows, zeros behind the last.
        first_BRK: The values of the first hidden layer.
        second_BRK: The values of the second.
    """

    num_rows: int
    rows_BRF: Floats
    first_BRK: Floats
    second_BRK: Floats

    @property
    def second_NK(self) -> Floats:
        """The values of the second hidden layer, row by row."""
        return _rows_of(self.second_BRK)[: self.num_rows]


def forward(network: Network, rows_NF: Floats) -> Forward:
    """The hidden layers of rows."""
    rows_BRF = _blocks(rows_NF)
    first_BRK = _layer(rows_BRF, network.first_FK, network.first_bias_K)
    return Forward(len(rows_NF), rows_BRF, first_BRK, _layer(first_BRK, network.second_KK, network.second_bias_K))


def outputs(network: Network, made: Forward) -> Floats:
    """The output of each row, shape (N,)."""
    return np.asarray(np.einsum("nk,k->n", made.second_NK, network.out_K))


def gradient(network: Network, made: Forward, errors_N: Floats) -> Floats:
    """The gradient (P,) of ``sum of errors · outputs`` by the parameters."""
    # Rows behind the last have no error, so they add nothing.
    below_second_BRK = _blocks(errors_N[:, None]) * network.out_K
    below_second_BRK *= made.second_BRK > 0
    below_first_BRK: Floats = np.matmul(below_second_BRK, network.second_KK.T)
    below_first_BRK *= made.first_BRK > 0
    parts = (
        _outer_sums(made.rows_BRF, below_first_BRK),
        _rows_of(below_first_BRK)[: made.num_rows].sum(axis=0),
        _outer_sums(made.first_BRK, below_second_BRK),
        _rows_of(below_second_BRK)[: made.num_rows].sum(axis=0),
        np.einsum("n,nk->k", errors_N, made.second_NK),
    )
    return np.concatenate([part.ravel() for part in parts])


def start_parameters(num_features: int) -> Floats:
    """Parameters (P,) to start from: random layers (He et al., ICCV 2015), always the same; the output is 0."""
    generator = np.random.Generator(np.random.PCG64(0))
    first, _, second, _, _ = _shapes(num_features, NUM_HIDDEN)
    parts = [
        generator.standard_normal(first) * np.sqrt(2.0 / num_features),
        np.zeros(NUM_HIDDEN),
        generator.standard_normal(second) * np.sqrt(2.0 / NUM_HIDDEN),
        np.zeros(2 * NUM_HIDDEN),
    ]
    return np.concatenate([part.ravel() for part in parts])


def _layer(rows_BRF: Floats, matrix_FK: Floats, bias_K: Floats) -> Floats:
    """The values of a layer (B, R, K); rows behind the last are computed with it and mean nothing."""
    values_BRK: Floats = np.matmul(rows_BRF, matrix_FK)
    values_BRK += bias_K
    return np.maximum(values_BRK, 0.0, out=values_BRK)


def _outer_sums(left_BRF: Floats, right_BRK: Floats) -> Floats:
    """The sum (F, K) of the rows' outer products, block by block."""
    products_BFK: Floats = np.matmul(left_BRF.transpose(0, 2, 1), right_BRK)
    return np.asarray(products_BFK.sum(axis=0))


def _rows_of(values_BRK: Floats) -> Floats:
    """The values row by row, also those behind the last."""
    return values_BRK.reshape(-1, values_BRK.shape[2])


def _blocks(rows_NF: Floats) -> Floats:
    """The rows as (B, R, F), zeros behind the last."""
    num_blocks = -(-len(rows_NF) // BLOCK_ROWS)
    padded = np.zeros((num_blocks * BLOCK_ROWS, rows_NF.shape[1]), dtype=rows_NF.dtype)
    padded[: len(rows_NF)] = rows_NF
    return padded.reshape(num_blocks, BLOCK_ROWS, rows_NF.shape[1])


def _shapes(num_features: int, num_hidden: int) -> tuple[tuple[int, ...], ...]:
    return (num_features, num_hidden), (num_hidden,), (num_hidden, num_hidden), (num_hidden,), (num_hidden,)
