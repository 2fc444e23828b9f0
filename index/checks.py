"""The checks in front of every index: arguments and vectors are refused here, before anything is touched.

Shape suffixes: N vectors given, D dimensions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isfinite

import numpy as np

from index.contract import AttributeColumns, BoolArray, Float32Array, IndexContents, Int32Array, ItemAttributes
from index.errors import IndexArgumentError, VectorRefusedError

MAX_NORM = 1e15
"""Greatest Euclidean length of a vector. Inner products of two such stay far below float32's limit of
3.4e38."""

MAX_CATEGORIES = 64
"""Of one item: they lie in columns, and one item of many would widen them for all (256 MB at a million items)."""

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
    _check_ids(ids)
    _refuse_bad_values(vectors, names=ids)
    return vectors


def check_attributes(ids: Sequence[str], attributes: Sequence[ItemAttributes]) -> None:
    """Refuse attributes that no column can hold (`IndexArgumentError`)."""
    if len(ids) != len(attributes):
        raise IndexArgumentError(
            f"Got {len(ids)} ids for {len(attributes)} attributes: expected one id for each.",
            mend="pass them in pairs.",
        )
    _check_ids(ids)
    for item_id, told in zip(ids, attributes, strict=True):
        if told.price is not None and not isfinite(told.price):
            raise IndexArgumentError(
                f"Item {item_id!r} has the price {told.price}: expected a finite one, or None.",
                mend="leave out the price where it is unknown.",
            )
        if len(told.categories) > MAX_CATEGORIES:
            raise IndexArgumentError(
                f"Item {item_id!r} has {len(told.categories)} categories: expected {MAX_CATEGORIES} at most.",
                mend="keep those that lists are filtered by.",
            )


def check_exclusions(exclude: Sequence[Collection[str]] | None, num_queries: int) -> None:
    """Refuse exclusions that are not one for each query (`IndexArgumentError`)."""
    if exclude is not None and len(exclude) != num_queries:
        raise IndexArgumentError(
            f"Got {len(exclude)} exclusions for {num_queries} queries: expected one for each.",
            mend="pass an empty one for a query that excludes nothing.",
        )


def check_contents(contents: IndexContents, *, dim: int, release: str) -> Float32Array:
    """Return the contents' vectors as `check_items` does; refuse ids that come twice and columns that do not fit.

    Raises:
        VectorRefusedError, IndexArgumentError: As in `ItemIndex.swap`.
    """
    vectors = check_items(contents.ids, contents.vectors_ND, dim=dim, release=release, given_release=contents.release)
    _check_ids(contents.attributes.ids)
    twice = len(set(contents.ids)) != len(contents.ids)
    if contents.queries_SD is not None:
        check_queries(contents.queries_SD, dim=dim, release=release, given_release=None)
    if twice or not _columns_fit(contents.attributes) or not _partition_fits(contents, dim):
        raise IndexArgumentError(
            f"Got contents of {len(contents.ids)} items whose columns do not fit together, or with an id twice.",
            mend="pass on what `contents` gave, unchanged.",
        )
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


def _check_ids(ids: Sequence[str]) -> None:
    if not all(ids):
        raise IndexArgumentError("Got an empty item id.", mend="leave out items that have no id.")


def _columns_fit(told: AttributeColumns) -> bool:
    num_items, codes_NC = len(told.ids), told.codes_NC
    if not num_items == len(set(told.ids)) == len(codes_NC) == len(told.prices_N) == len(told.available_N):
        return False
    if codes_NC.ndim != 2 or codes_NC.shape[1] > MAX_CATEGORIES or np.isinf(told.prices_N).any():
        return False
    return _all_below(codes_NC, len(told.names))


def _partition_fits(contents: IndexContents, dim: int) -> bool:
    parts = contents.partition
    if parts is None:
        return True
    shaped = len(parts.parts_N) == len(contents.ids) and parts.centres_PD.shape[1:] == (dim,)
    return shaped and bool(np.isfinite(parts.centres_PD).all()) and _all_below(parts.parts_N, len(parts.centres_PD))


def _all_below(codes: Int32Array, end: int) -> bool:
    """Whether all are -1, or from 0 to below `end`."""
    return codes.size == 0 or bool(codes.min() >= -1 and codes.max() < end)


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


def bad_values(vectors_ND: Float32Array) -> dict[str, BoolArray]:
    """By reason, which of the vectors must not enter the index, bool, shape (N,). No vector has two reasons."""
    finite_N: BoolArray = np.asarray(np.isfinite(vectors_ND).all(axis=1))
    zero_N: BoolArray = np.asarray(~vectors_ND.any(axis=1))
    with np.errstate(over="ignore", invalid="ignore"):
        long_N: BoolArray = np.asarray(finite_N & (norms(vectors_ND) > MAX_NORM))
    return {NOT_FINITE: ~finite_N, ALL_ZEROS: zero_N, TOO_LONG: long_N}


def _refuse_bad_values(vectors_ND: Float32Array, names: Sequence[str] | None) -> None:
    """Refuse NaN, infinity, zero vectors and huge ones; `names` serve to name an example."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms_N = norms(vectors_ND)
    # Neither NaN nor infinity nor a zero vector has such a length, so one look is enough where all is well.
    if ((norms_N > 0) & (norms_N <= MAX_NORM)).all():
        return
    masks = bad_values(vectors_ND)
    bad_N = np.logical_or.reduce(list(masks.values()))
    if not bad_N.any():
        return
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
