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


def outputs(network: Network, rows_NF: Floats) -> Floats:
    """The output of each row, shape (N,)."""
    return np.asarray(np.einsum("nk,k->n", _hidden(network, rows_NF)[1], network.out_K))


def gradient(network: Network, rows_NF: Floats, errors_N: Floats) -> Floats:
    """The gradient (P,) of ``sum of errors · outputs`` by the parameters."""
    first_NK, second_NK = _hidden(network, rows_NF)
    below_second_NK = errors_N[:, None] * network.out_K * (second_NK > 0)
    below_first_NK = _times(below_second_NK, network.second_KK.T) * (first_NK > 0)
    parts = (
        _outer_sums(rows_NF, below_first_NK),
        below_first_NK.sum(axis=0),
        _outer_sums(first_NK, below_second_NK),
        below_second_NK.sum(axis=0),
        np.einsum("n,nk->k", errors_N, second_NK),
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


def _hidden(network: Network, rows_NF: Floats) -> tuple[Floats, Floats]:
    """The values of both hidden layers, (N, K) each."""
    first_BRK = _layer(_blocks(rows_NF), network.first_FK, network.first_bias_K)
    second_BRK = _layer(first_BRK, network.second_KK, network.second_bias_K)
    num_rows, num_hidden = len(rows_NF), len(network.out_K)
    return first_BRK.reshape(-1, num_hidden)[:num_rows], second_BRK.reshape(-1, num_hidden)[:num_rows]


def _layer(rows_BRF: Floats, matrix_FK: Floats, bias_K: Floats) -> Floats:
    """The values of a layer (B, R, K); rows behind the last are computed with it and mean nothing."""
    values_BRK: Floats = np.matmul(rows_BRF, matrix_FK)
    values_BRK += bias_K
    return np.maximum(values_BRK, 0.0, out=values_BRK)


def _times(rows_NF: Floats, matrix_FK: Floats) -> Floats:
    """The matrix product (N, K); a row's does not depend on the others."""
    products_BRK: Floats = np.matmul(_blocks(rows_NF), matrix_FK)
    return products_BRK.reshape(-1, matrix_FK.shape[1])[: len(rows_NF)]


def _outer_sums(left_NF: Floats, right_NK: Floats) -> Floats:
    """The sum (F, K) of the rows' outer products, block by block."""
    products_BFK: Floats = np.matmul(_blocks(left_NF).transpose(0, 2, 1), _blocks(right_NK))
    return np.asarray(products_BFK.sum(axis=0))


def _blocks(rows_NF: Floats) -> Floats:
    """The rows as (B, R, F), zeros behind the last."""
    num_blocks = -(-len(rows_NF) // BLOCK_ROWS)
    padded = np.zeros((num_blocks * BLOCK_ROWS, rows_NF.shape[1]), dtype=rows_NF.dtype)
    padded[: len(rows_NF)] = rows_NF
    return padded.reshape(num_blocks, BLOCK_ROWS, rows_NF.shape[1])


def _shapes(num_features: int, num_hidden: int) -> tuple[tuple[int, ...], ...]:
    return (num_features, num_hidden), (num_hidden,), (num_hidden, num_hidden), (num_hidden,), (num_hidden,)
