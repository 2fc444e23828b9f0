"""What lists ask the index for: the available items nearest to users, as many as are wanted while there are so many."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import IndexKind, ItemIndex, build_index
from stream_app.item_search import nearest_items, tell_availability
from stream_app.stages.listing import Search

IDS = [f"i{number:03d}" for number in range(120)]
VECTORS_ND = np.random.default_rng(0).standard_normal((120, 8)).astype(np.float32)
USERS_UD = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)


def index_of(kind: IndexKind) -> ItemIndex:
    index = build_index(kind, 8, "r1")
    index.upsert(IDS, VECTORS_ND)
    return index


def found(index: ItemIndex, num_items: int) -> list[list[str]]:
    return nearest_items(index, Search(["a", "b", "c"], USERS_UD, [1, num_items, 1]))


@pytest.mark.parametrize("kind", get_args(IndexKind))
def test_while_everything_is_available_the_answer_is_that_of_a_plain_search(kind: IndexKind) -> None:
    index = index_of(kind)
    tell_availability(index, dict.fromkeys(IDS[:7], True))
    version = index.version
    assert found(index, 30) == index.search(USERS_UD, 30).ids
    assert index.version == version == 1


@pytest.mark.parametrize("kind", get_args(IndexKind))
def test_there_are_as_many_as_wanted_however_many_near_ones_are_gone(kind: IndexKind) -> None:
    index = index_of(kind)
    order = index.search(USERS_UD[:1], len(IDS)).ids[0]
    tell_availability(index, dict.fromkeys(order[:100], False))
    assert found(index, 15)[0] == order[100:115]
    assert found(index, 50)[0] == order[100:]
    tell_availability(index, {order[3]: True, "unheard of": False, "another": True})
    assert found(index, 2)[0] == [order[3], order[100]]
    index.remove([order[100]])
    index.upsert([order[100]], VECTORS_ND[:1])
    assert order[100] in found(index, 50)[0]


@given(st.lists(st.dictionaries(st.sampled_from(IDS[:20]), st.booleans()), max_size=6))
def test_what_was_told_last_counts(told: list[dict[str, bool]]) -> None:
    index = index_of("faiss")
    known: dict[str, bool] = {}
    for news in told:
        tell_availability(index, news)
        known |= news
        hidden = {item_id for item_id, is_available in known.items() if not is_available}
        whole = index.search(USERS_UD, len(IDS)).ids
        assert found(index, len(IDS)) == [[item for item in ids if item not in hidden] for ids in whole]
