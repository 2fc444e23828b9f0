"""Why an item is on a list: which of the user's own items lead to it, and in which slices they are.

An own item leads to a listed one as far as their vectors point the same way, and as far as users touched the listed one
after it. The weight is the sum of both: the cosine (not below 0) and the decayed share of touches. It explains a list,
it is not what made it: the scorer has more features, and the user vector more than single items.

Shapes: L listed items, R recent items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from stream_app.item_queries import cosines
from stream_app.web.answers import Why, WhyItem, WhySlice

NUM_ITEMS: Final = 3
"""Own items shown of each listed one."""

MIN_WEIGHT: Final = 0.05
"""What leads to an item less than this is left out."""


@dataclass(frozen=True)
class Recent:
    """The user's own recent items, each once: ids, titles, and the slice of the newest event with each."""

    item_ids: Sequence[str]
    titles: Sequence[str]
    seqs: Sequence[int]


def explain(
    listed: Sequence[str],
    recent: Recent,
    vectors_LD: npt.NDArray[np.float32],
    vectors_RD: npt.NDArray[np.float32],
    led_to: Mapping[str, Mapping[str, float]],
) -> list[Why]:
    """Why each listed item is there.

    Args:
        listed: The listed items.
        recent: The user's own.
        vectors_LD: Vectors of the listed items, zeros where there is none.
        vectors_RD: Vectors of the recent items, likewise.
        led_to: For listed items, by recent item: the share of its touches after which the listed one came.
    """
    alike_LR = np.maximum(cosines(vectors_LD, vectors_RD), 0.0)
    reasons = []
    for item_id, alike_R in zip(listed, alike_LR.tolist(), strict=True):
        shares = led_to.get(item_id, {})
        weights = [alike + shares.get(own, 0.0) for own, alike in zip(recent.item_ids, alike_R, strict=True)]
        reasons.append(_why(weights, recent))
    return reasons


def _why(weights_R: Sequence[float], recent: Recent) -> Why:
    places = [place for place, weight in enumerate(weights_R) if weight >= MIN_WEIGHT]
    best = sorted(places, key=lambda place: (-weights_R[place], place))[:NUM_ITEMS]
    by_slice: dict[int, float] = {}
    for place in places:
        by_slice[recent.seqs[place]] = by_slice.get(recent.seqs[place], 0.0) + weights_R[place]
    total = sum(by_slice.values())
    return Why(
        items=[
            WhyItem(item_id=recent.item_ids[at], title=recent.titles[at], weight=round(weights_R[at], 4)) for at in best
        ],
        slices=[
            WhySlice(seq=seq, weight=round(weight / total, 4))
            for seq, weight in sorted(by_slice.items(), key=lambda one: (-one[1], one[0]))
        ],
    )
