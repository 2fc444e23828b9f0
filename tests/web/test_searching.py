"""Search by what a text means and by words, over a small index."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from index import build_index
from stream_app.item_queries import USER_SHARE, ItemQueries
from stream_app.item_view import ItemView
from stream_app.records import Item, encode
from stream_app.web.searching import search_meaning, search_words, user_vector
from stream_app.web.state.catalogue import Catalogue
from stream_app.web.state.held import Held
from stream_app.web.state.users import NewestUsers
from tests.web.cases import run_of, vector_value

VECTORS = {"a": (1.0, 0.0), "b": (0.8, 0.6), "c": (0.0, 1.0), "gone": (1.0, 0.1)}


class SmallHeld:
    """As much of `Held` as searching asks for; every item is called iron, c is called lady too."""

    def __init__(self) -> None:
        self.item_view = ItemView(build_index("exact", 2, "r1"), 1)
        self.index = self.item_view.index
        self.index.upsert(list(VECTORS), np.array(list(VECTORS.values()), dtype=np.float32))
        self.items = ItemQueries(self.index)
        self.catalogue, self.users = Catalogue(), NewestUsers(5)
        self.model = cast(Any, type("Model", (), {"release": "r1"}))
        for item_id in (*VECTORS, "new"):
            title = "iron lady" if item_id == "c" else "iron"
            value = encode(Item(item_id=item_id, title=title, available=item_id != "gone"))
            for take in (self.catalogue.take, self.item_view._take_items):
                take(run_of((item_id.encode(), value)))
        self.users.take_vectors(run_of((b"ann", vector_value("ann", 0, ["a"], "r1", dim=2))))
        self.users.take_vectors(run_of((b"old", vector_value("old", 0, ["a"], "r0", dim=2))))


@pytest.fixture
def held() -> Held:
    """A small one."""
    return cast(Held, SmallHeld())


def cosine(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    """Of two vectors, written out."""
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


def test_by_meaning_the_nearest_come_first_and_what_is_gone_does_not_come(held: Held) -> None:
    found = search_meaning(held, "text", np.array([1.0, 0.0], dtype=np.float32), None, 5)
    assert (found.by, found.personalised) == ("text-tower", False)
    assert [(item.item_id, item.score) for item in found.items] == [("a", 1.0), ("b", 0.8), ("c", 0.0)]
    assert [item.title for item in found.items] == ["iron", "iron", "iron lady"]
    assert len(search_meaning(held, "text", np.array([1.0, 0.0], dtype=np.float32), None, 1).items) == 1


def test_by_words_the_rarer_word_counts_more(held: Held) -> None:
    found = search_words(held, "iron lady", None, 5)
    assert (found.by, found.personalised) == ("words", False)
    assert [item.item_id for item in found.items] == ["c", "a", "b", "new"]
    assert found.items[0].score == 1.0 > found.items[1].score == found.items[3].score > 0
    assert search_words(held, "copper", None, 5).items == []


def test_a_users_taste_is_added(held: Held) -> None:
    user_D = user_vector(held, "ann")
    assert user_D is not None
    plain = {item.item_id: item.score for item in search_words(held, "iron", None, 5).items}
    personal = search_words(held, "iron", "ann", 5)
    assert personal.personalised
    for item in personal.items:
        taste = cosine(np.array(VECTORS[item.item_id]), user_D) if item.item_id in VECTORS else 0.0
        assert item.score == pytest.approx(plain[item.item_id] + USER_SHARE * taste, abs=2e-4)
    scores = [item.score for item in personal.items]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("user_id", ["old", "nobody"])
def test_without_a_vector_of_the_release_nothing_is_personal(held: Held, user_id: str) -> None:
    assert user_vector(held, user_id) is None
    assert search_words(held, "iron", user_id, 5) == search_words(held, "iron", None, 5)
