"""What a filter lets through beyond the published list, so that a filtered answer is as long as was asked.

First the items nearest to the user's vector, which the index is asked for with the filter, then what is popular, then
the newest of the catalogue. What the user was seen to touch is not among them: lists offer what is new.

Shapes: D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from index import ItemFilter, ItemIndex
from stream_app.records import RankedItem
from stream_app.web.answering import MAX_COUNT, ListQuery, fits, kept
from stream_app.web.searching import user_vector
from stream_app.web.service import Service
from stream_app.web.state.held import Held

MAX_LOOKED_AT: Final = 100_000
"""Newest items of the catalogue that are looked at for one answer: a tenth of a second, off the event loop."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is missing of an answer.

    Attributes:
        query: How it was asked for.
        user_D: The user's vector; None where there is none.
        listed: Items that it has already.
        seen: Items that the user was seen to touch.
    """

    query: ListQuery
    user_D: npt.NDArray[np.float32] | None
    listed: frozenset[str]
    seen: frozenset[str]

    def num_missing(self, found: Sequence[RankedItem]) -> int:
        """How many more are wanted when these are found."""
        return self.query.count - len(self.listed) - len(found)


async def added_lines(service: Service, user_id: str, lines: list[RankedItem], query: ListQuery) -> list[RankedItem]:
    """The lines to be added behind those of `lines` that the query lets through; none where nothing is filtered."""
    held = service.held
    if not query.is_filtered or len(listed := kept(held, lines, query)) >= query.count:
        return []
    wanted = _wanted(held, user_id, listed, query)
    found = await service.compute(lambda: nearest_lines(held.index, wanted))
    if wanted.num_missing(found) > 0:
        popular = held.trends.popular(10 * MAX_COUNT)
        found += fitting_lines(held, popular, wanted, found, "popular")
    if wanted.num_missing(found) > 0:
        newest = held.catalogue.newest(MAX_LOOKED_AT)  # here, where no record can come in between
        found += await service.compute(lambda: fitting_lines(held, newest, wanted, found, "catalogue"))
    return found


def nearest_lines(index: ItemIndex, wanted: Wanted) -> list[RankedItem]:
    """The items nearest to the user, by inner product; none without a vector. It computes, so not on the event loop."""
    if wanted.user_D is None or not wanted.user_D.any():
        return []
    found = index.search(
        wanted.user_D[None],
        wanted.num_missing([]),
        filter=filter_of(wanted.query),
        exclude=[wanted.listed | wanted.seen],
    )
    scores = found.scores_QK[0].tolist()
    return [
        RankedItem(item_id=item_id, score=round(score, 4), sources=["index"])
        for item_id, score in zip(found.ids[0], scores, strict=False)
    ]


def fitting_lines(
    held: Held, item_ids: Iterable[str], wanted: Wanted, found: Sequence[RankedItem], source: str
) -> list[RankedItem]:
    """As many of these items as are missing, in their order."""
    passed = wanted.listed | wanted.seen | {line.item_id for line in found}
    lines: list[RankedItem] = []
    for item_id in item_ids:
        if item_id not in passed and fits(held.catalogue, item_id, wanted.query):
            if held.item_view.is_available(item_id):
                lines.append(RankedItem(item_id=item_id, score=0.0, sources=[source]))
            if wanted.num_missing(found) == len(lines):
                break
    return lines


def filter_of(query: ListQuery) -> ItemFilter:
    """The same for the index, and that the items are available."""
    categories = None if query.category is None else frozenset({query.category})
    return ItemFilter(categories, available_only=True, max_price=query.max_price)


def _wanted(held: Held, user_id: str, listed: Sequence[RankedItem], query: ListQuery) -> Wanted:
    user = held.users.get(user_id)
    slices = [] if user is None else user.seen_slices()
    seen = frozenset(event.item_id for part in slices for event in part.events)
    return Wanted(query, user_vector(held, user_id), frozenset(line.item_id for line in listed), seen)
