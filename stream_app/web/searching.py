"""Items by text, ordered by the user's taste where one is named: by what the text means to the model, where it reads
texts, else by the words of their titles.

Shapes: D dimensions, N items.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from stream_app import item_queries
from stream_app.item_queries import USER_SHARE, cosines
from stream_app.web.answers import NearItem, SearchAnswer
from stream_app.web.state.catalogue import Catalogue
from stream_app.web.state.held import Held

MAX_FOUND: Final = 5000
"""Items whose vectors are looked at; of common words there are many more."""


def search_meaning(
    held: Held, text: str, text_D: npt.NDArray[np.float32], user_id: str | None, count: int
) -> SearchAnswer:
    """The available items whose vectors are nearest to that of the text, see `ItemQueries.search`."""
    user_D = None if user_id is None else user_vector(held, user_id)
    near = held.items.search(text_D, count, user_D=user_D)
    items = titled(held.catalogue, near)
    return SearchAnswer(query=text, personalised=user_D is not None, by="text-tower", items=items)


def search_words(held: Held, text: str, user_id: str | None, count: int) -> SearchAnswer:
    """The available items whose titles have most of the rare words of `text`, best first.

    A score is the share of the words' rarity that the title has; with a user who has a vector, `USER_SHARE` times the
    cosine of item and user is added.
    """
    is_shown = held.item_view.is_available
    found = {item_id: rarity for item_id, rarity in held.catalogue.search(text).items() if is_shown(item_id)}
    best = sorted(found, key=lambda item_id: (-found[item_id], item_id))[:MAX_FOUND]
    highest = max(found.values(), default=1.0)
    scores = {item_id: found[item_id] / highest for item_id in best}
    user_D = None if user_id is None else user_vector(held, user_id)
    if user_D is not None and best:
        vectors_ND, _ = held.index.vectors_of(best)
        for item_id, taste in zip(best, cosines(vectors_ND, user_D[None])[:, 0].tolist(), strict=True):
            scores[item_id] += USER_SHARE * taste
    order = sorted(best, key=lambda item_id: (-scores[item_id], item_id))[:count]
    items = titled(held.catalogue, [item_queries.NearItem(item_id, scores[item_id]) for item_id in order])
    return SearchAnswer(query=text, personalised=user_D is not None, by="words", items=items)


def titled(catalogue: Catalogue, near: Iterable[item_queries.NearItem]) -> list[NearItem]:
    """Items that were found, as they are answered."""
    return [
        NearItem(item_id=one.item_id, title=catalogue.title(one.item_id), score=round(one.score, 4)) for one in near
    ]


def user_vector(held: Held, user_id: str) -> npt.NDArray[np.float32] | None:
    """The newest vector (D,) of a user who is held; None for others."""
    user = held.users.get(user_id)
    profile = None if user is None else user.profile(held.model.release)
    return None if profile is None else np.frombuffer(profile.user_vector, dtype="<f4").astype(np.float32)
