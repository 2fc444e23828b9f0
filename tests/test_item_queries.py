"""Neighbours of items and searches, beside a slow oracle over all vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from index import ItemAttributes, ItemFilter, build_index
from stream_app import item_queries
from stream_app.errors import SliceflowError
from stream_app.item_queries import USER_SHARE, ItemQueries, cosines

DIM = 8
IDS = [f"i{number:03d}" for number in range(300)]
VECTORS_ND = np.random.default_rng(0).standard_normal((300, DIM)).astype(np.float32)
VECTORS_ND *= np.random.default_rng(1).uniform(0.1, 5, (300, 1)).astype(np.float32)


def queries(gone: str = "") -> ItemQueries:
    """All items, of which one is not available."""
    index = build_index("exact", DIM, "r1")
    index.upsert(IDS, VECTORS_ND)
    told = [ItemAttributes(price=float(number), available=item != gone) for number, item in enumerate(IDS)]
    index.upsert_attributes(IDS, told)
    return ItemQueries(index)


def best(asked_D: npt.NDArray[np.float32], user_D: npt.NDArray[np.float32] | None = None) -> list[str]:
    """All items, the slow way."""

    def cosine(one_D: npt.NDArray[np.float32], other_D: npt.NDArray[np.float32]) -> float:
        return float(one_D @ other_D) / float(np.linalg.norm(one_D) * np.linalg.norm(other_D))

    scores = {item: cosine(vector_D, asked_D) for item, vector_D in zip(IDS, VECTORS_ND, strict=True)}
    if user_D is not None:
        scores = {
            item: scores[item] + USER_SHARE * cosine(vector_D, user_D)
            for item, vector_D in zip(IDS, VECTORS_ND, strict=True)
        }
    return sorted(scores, key=lambda item: -scores[item])


def test_neighbours_point_the_same_way_whatever_their_length() -> None:
    found = queries().similar("i007", 10)
    assert [near.item_id for near in found] == best(VECTORS_ND[7])[1:11]
    assert [near.score for near in found] == pytest.approx(sorted(cosines(VECTORS_ND[7:8], VECTORS_ND)[0])[-2:-12:-1])
    assert all(-1 <= near.score <= 1 for near in found)


def test_what_is_excluded_filtered_or_gone_is_no_neighbour() -> None:
    nearest = best(VECTORS_ND[7])[1:]
    assert [near.item_id for near in queries(gone=nearest[0]).similar("i007", 3, exclude=[nearest[2]])] == [
        nearest[1],
        *nearest[3:5],
    ]
    cheap = queries().similar("i007", 300, filter=ItemFilter(max_price=20))
    assert [near.item_id for near in cheap] == [item for item in nearest if item <= "i020"]


def test_a_search_is_by_the_text_and_somewhat_by_the_user() -> None:
    text_D, user_D = VECTORS_ND[1] * 0.01, VECTORS_ND[2]
    assert [near.item_id for near in queries().search(text_D, 20)] == best(text_D)[:20]
    personal = [near.item_id for near in queries().search(text_D, 20, user_D=user_D)]
    assert personal == best(text_D, user_D)[:20] != best(text_D)[:20]
    assert queries().search(np.zeros(DIM, dtype=np.float32), 5) == []


def test_an_item_without_a_vector_is_told_and_an_empty_index_finds_nothing() -> None:
    with pytest.raises(SliceflowError, match="'unheard-of' has no vector of release r1"):
        queries().similar("unheard-of", 5)
    empty = ItemQueries(build_index("faiss", DIM, "r1"))
    assert empty.search(VECTORS_ND[0], 5) == []
    assert (empty.has("i001"), queries().has("i001")) == (False, True)
    assert empty.norm("i001") == 0.0
    assert queries().norm("i001") == pytest.approx(float(np.linalg.norm(VECTORS_ND[1])))


def test_of_a_large_index_enough_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_queries, "MIN_CANDIDATES", 1)
    found = queries().similar("i007", 10)
    assert len(found) == 10
    assert len({near.item_id for near in found} & set(best(VECTORS_ND[7])[1:11])) >= 7
