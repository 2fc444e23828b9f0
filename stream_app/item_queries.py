"""What can be asked of the items beside lists: the neighbours of one, and those that a text means.

For the command line and for servers. Everything here computes, so none of it belongs on an event loop: hand
`ItemQueries` to an executor. Text needs the encoder (torch): make the tower with `stream_app.item_reading.text_tower`,
and use it where the encoder is used, one call at a time.

Shapes: N items, M vectors asked, D dimensions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from index.contract import ItemFilter, ItemIndex
from stream_app.errors import SliceflowError
from stream_app.item_search import AVAILABLE

CANDIDATES: Final = 10
"""Items looked at for each one wanted. The index finds those of greatest inner product, which favours long vectors
(items that are touched much); what is near by direction is among many of them."""

MIN_CANDIDATES: Final = 2000
"""At least so many are looked at, in some 15 ms: a catalogue up to this size is searched whole. New
items have the shortest vectors, so in a much larger one those that are near by direction alone may be missed."""

USER_SHARE: Final = 0.3
"""How much a user counts in a personal search: enough to order what fits the text about equally well."""


@dataclass(frozen=True, slots=True)
class NearItem:
    """An item and how near it is: a cosine from -1 to 1 (with a user, up to 1 + `USER_SHARE`)."""

    item_id: str
    score: float


class TextTower(Protocol):
    """Texts to vectors among those of the items."""

    def vector(self, text: str) -> npt.NDArray[np.float32]:
        """(D,) float32; zeros where no word of the text means anything to it."""


class ItemQueries:
    """Questions to an item index. Safe to use from several threads, as the index is.

    Args:
        index: The items; goes on changing meanwhile. What it knows to be unavailable is never shown.

    >>> queries = ItemQueries(view.index)  # doctest: +SKIP
    >>> [near.item_id for near in queries.similar("0114369", 5)]  # doctest: +SKIP
    """

    def __init__(self, index: ItemIndex) -> None:
        self._index = index

    def has(self, item_id: str) -> bool:
        """Whether the item has a vector."""
        return bool(self._index.vectors_of([item_id])[1][0])

    def norm(self, item_id: str) -> float:
        """Length of the item's vector, 0 where it has none."""
        return float(np.linalg.norm(self._index.vectors_of([item_id])[0][0]))

    def similar(
        self, item_id: str, count: int, *, filter: ItemFilter | None = None, exclude: Collection[str] = ()
    ) -> list[NearItem]:
        """The items whose vectors point most nearly the same way, nearest first; never the item itself.

        Args:
            item_id: The item.
            count: How many are wanted, at least 1; there are fewer where the index has fewer.
            filter: Only items that it matches.
            exclude: Items not to be shown.

        Raises:
            SliceflowError: The item has no vector.
        """
        vectors_ND, found_N = self._index.vectors_of([item_id])
        if not found_N[0]:
            raise SliceflowError(
                f"The item {item_id!r} has no vector of release {self._index.release}.",
                mend="ask for an item of the training, or for one of whose content the model makes something",
            )
        return self._near(vectors_ND, (1.0,), count, filter, {item_id, *exclude})

    def search(
        self,
        text_D: npt.NDArray[np.float32],
        count: int,
        *,
        user_D: npt.NDArray[np.float32] | None = None,
        filter: ItemFilter | None = None,
        exclude: Collection[str] = (),
    ) -> list[NearItem]:
        """The items that a text means, best first: by cosine to the text, plus `USER_SHARE` of that to the user.

        Args:
            text_D: From a `TextTower`; zeros find nothing.
            count: How many are wanted, at least 1.
            user_D: The user's vector, where the answer is to be personal.
            filter: Only items that it matches.
            exclude: Items not to be shown.
        """
        if not text_D.any():
            return []
        if user_D is None:
            return self._near(text_D[None], (1.0,), count, filter, exclude)
        return self._near(np.stack([text_D, user_D]), (1.0, USER_SHARE), count, filter, exclude)

    def _near(
        self,
        asked_MD: npt.NDArray[np.float32],
        weights_M: Sequence[float],
        count: int,
        filter: ItemFilter | None,
        exclude: Collection[str],
    ) -> list[NearItem]:
        """The best by the weighted sum of cosines, of what the index gives for the first of the vectors asked."""
        wanted = max(MIN_CANDIDATES, CANDIDATES * count)
        shown = AVAILABLE if filter is None else replace(filter, available_only=True)
        ids = self._index.search(asked_MD[:1], wanted, filter=shown, exclude=[exclude]).ids[0]
        vectors_ND, found_N = self._index.vectors_of(ids)
        scores_N = cosines(vectors_ND, asked_MD) @ np.array(weights_M)
        near = [NearItem(item_id, float(scores_N[place])) for place, item_id in enumerate(ids) if found_N[place]]
        return sorted(near, key=lambda one: (-one.score, one.item_id))[:count]


def cosines(vectors_ND: npt.NDArray[np.float32], asked_MD: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(N, M) float64 cosines; 0 for vectors of zeros."""
    left_ND, right_MD = vectors_ND.astype(np.float64), asked_MD.astype(np.float64)
    lengths_NM = np.linalg.norm(left_ND, axis=1)[:, None] * np.linalg.norm(right_MD, axis=1)
    cosines_NM: npt.NDArray[np.float64] = np.zeros_like(lengths_NM)
    np.divide(left_ND @ right_MD.T, lengths_NM, out=cosines_NM, where=lengths_NM > 0)
    return cosines_NM
