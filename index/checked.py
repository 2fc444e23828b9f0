"""Vectors as they come from a topic: the good ones go into the index, each of the others is refused by name.

Shape suffixes: N items given, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from index.checks import WRONG_DIM, WRONG_RELEASE, bad_values
from index.contract import Float32Array, ItemIndex

NO_ID = "no item id"


@dataclass(frozen=True, eq=False, slots=True)
class GivenVector:
    """One vector, of which nothing is known to be right.

    Attributes:
        item_id: Whose it is.
        vector: Numbers of any count.
        release: The release that made it.
    """

    item_id: str
    vector: Float32Array
    release: str


@dataclass(frozen=True, slots=True)
class RefusedVector:
    """A vector that did not enter the index. What the index had of the item before, it has still.

    Attributes:
        place: Its place among those given.
        item_id: Whose it is.
        reason: One of those in `index.checks`, or `NO_ID`.
    """

    place: int
    item_id: str
    reason: str


def upsert_good(index: ItemIndex, given: Iterable[GivenVector]) -> list[RefusedVector]:
    """Put the good vectors into the index, in one call; where an item comes twice, its last good one counts. Those that
    are there already change nothing.

    Returns:
        The others, in the order given.
    """
    rows = list(given)
    reason_of = {place: _misfit(one, index.dim, index.release) for place, one in enumerate(rows)}
    fitting = [place for place, reason in reason_of.items() if not reason]
    if fitting:
        with np.errstate(over="ignore", invalid="ignore"):
            vectors_ND = np.stack([np.asarray(rows[place].vector, dtype=np.float32) for place in fitting])
        for reason, bad_N in bad_values(vectors_ND).items():
            reason_of |= {fitting[row]: reason for row in np.flatnonzero(bad_N).tolist()}
        row_of = {rows[place].item_id: row for row, place in enumerate(fitting) if not reason_of[place]}
        _upsert_news(index, list(row_of), vectors_ND[list(row_of.values())])
    return [RefusedVector(place, rows[place].item_id, reason) for place, reason in reason_of.items() if reason]


def _upsert_news(index: ItemIndex, ids: list[str], vectors_ND: Float32Array) -> None:
    """Upsert the vectors that differ from what is there; each id comes once."""
    there_ND, found_N = index.vectors_of(ids)
    news = np.flatnonzero(~found_N | (there_ND != vectors_ND).any(axis=1)).tolist()
    index.upsert([ids[row] for row in news], vectors_ND[news], release=index.release)


def _misfit(one: GivenVector, dim: int, release: str) -> str:
    """Why a vector cannot even be compared with the others; empty when it can."""
    if not one.item_id:
        return NO_ID
    if one.release != release:
        return WRONG_RELEASE
    return "" if np.shape(one.vector) == (dim,) else WRONG_DIM
