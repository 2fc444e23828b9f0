"""The checks in front of every index: arguments and vectors are refused here, before anything is touched.

Shape suffixes: N vectors given, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.contract import BoolArray, Float32Array
from index.errors import IndexArgumentError, VectorRefusedError

MAX_NORM = 1e15
"""Greatest Euclidean length of a vector. Inner products of two such stay far below float32's limit of
3.4e38."""

NOT_FINITE = "NaN or infinity"
ALL_ZEROS = "all zeros"
TOO_LONG = f"longer than {MAX_NORM:g}"
WRONG_DIM = "wrong dimension"
WRONG_RELEASE = "another release"


def check_queries(queries_ND: Float32Array, *, dim: int, release: str, given_release: str | None) -> Float32Array:
    """Return the queries as a C-contiguous float32 array, or refuse them all.

    Args:
        queries_ND: Queries, shape (N, D). Not changed; the result may share its memory.
        dim: The index's dimension.
        release: The index's release.
        given_release: The release the caller names, or None.

    Raises:
        VectorRefusedError: Says how many were refused for which reason.
    """
    queries = _as_float32(queries_ND, dim, release, given_release)
    _refuse_bad_values(queries, names=None)
    return queries


def check_items(
    ids: Sequence[str], vectors_ND: Float32Array, *, dim: int, release: str, given_release: str | None
) -> Float32Array:
    """Return the items' vectors as a C-contiguous float32 array, or refuse them all.

    Arguments as in `check_queries`, with one id for each vector.

    Raises:
        VectorRefusedError: Says how many were refused for which reason.
        IndexArgumentError: Another number of ids than of vectors, or an empty id.
    """
    vectors = _as_float32(vectors_ND, dim, release, given_release)
    if len(ids) != len(vectors):
        raise IndexArgumentError(
            f"Got {len(ids)} ids for {len(vectors)} vectors: expected one id for each.",
            mend="pass them in pairs.",
        )
    if not all(ids):
        raise IndexArgumentError("Got an empty item id.", mend="leave out items that have no id.")
    _refuse_bad_values(vectors, names=ids)
    return vectors


def check_k(k: int) -> None:
    """Refuse a number of wanted items below 1 (`IndexArgumentError`)."""
    if k < 1:
        raise IndexArgumentError(f"Asked for k={k} items: expected at least 1.", mend="pass k >= 1.")


def check_shape_of_index(dim: int, release: str) -> None:
    """Refuse an index of no dimensions or of a release without a name (`IndexArgumentError`)."""
    if dim < 1 or not release:
        raise IndexArgumentError(
            f"Cannot build an index of {dim} dimensions for release {release!r}.",
            mend="pass the dimension and the release of a loaded model.",
        )


def norms(vectors_ND: Float32Array) -> Float32Array:
    """Euclidean lengths, float32, shape (N,), computed in float64 so that no square overflows."""
    squares_N = np.einsum("nd,nd->n", vectors_ND, vectors_ND, dtype=np.float64)
    return np.asarray(np.sqrt(squares_N), dtype=np.float32)


def _as_float32(vectors_ND: Float32Array, dim: int, release: str, given_release: str | None) -> Float32Array:
    """Check release and shape."""
    given = np.asarray(vectors_ND)
    num_given = len(given) if given.ndim > 0 else 1
    if given_release is not None and given_release != release:
        raise VectorRefusedError(
            f"Refused {num_given} vectors of release {given_release!r}: this index holds {release!r}.",
            num_given=num_given,
            reasons={WRONG_RELEASE: num_given},
            mend="encode them with the index's release, or build an index for the new one and swap.",
        )
    if given.ndim != 2 or given.shape[1] != dim:
        raise VectorRefusedError(
            f"Refused vectors of shape {given.shape}: expected (N, {dim}).",
            num_given=num_given,
            reasons={WRONG_DIM: num_given},
            mend=f"give a 2-D array of vectors made by release {release!r}, of {dim} dimensions each.",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(given, dtype=np.float32)


def _refuse_bad_values(vectors_ND: Float32Array, names: Sequence[str] | None) -> None:
    """Refuse NaN, infinity, zero vectors and huge ones; `names` serve to name an example."""
    finite_N: BoolArray = np.asarray(np.isfinite(vectors_ND).all(axis=1))
    zero_N: BoolArray = np.asarray(~vectors_ND.any(axis=1))
    with np.errstate(over="ignore", invalid="ignore"):
        long_N: BoolArray = np.asarray(finite_N & (norms(vectors_ND) > MAX_NORM))
    bad_N = ~finite_N | zero_N | long_N
    if not bad_N.any():
        return
    masks = {NOT_FINITE: ~finite_N, ALL_ZEROS: zero_N, TOO_LONG: long_N}
    reasons = {reason: int(mask.sum()) for reason, mask in masks.items() if mask.any()}
    first = int(np.flatnonzero(bad_N)[0])
    example = f"row {first}" if names is None else f"item {names[first]!r}"
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    raise VectorRefusedError(
        f"Refused {int(bad_N.sum())} of {len(vectors_ND)} vectors ({listed}; first: {example}); nothing was applied.",
        num_given=len(vectors_ND),
        reasons=reasons,
        mend="leave those vectors out, and look at what encoded them.",
    )
