"""Filtered answers are as long as was asked while so many items match, in the order they promise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import build_index
from index.checks import MAX_CATEGORIES
from stream_app.item_search import attributes_of, tell_items
from stream_app.item_view import ItemView
from stream_app.records import Item, RankedItem, encode
from stream_app.web import filtering
from stream_app.web.answering import ListQuery, kept
from stream_app.web.filtering import added_lines, filter_of
from stream_app.web.searching import user_vector
from stream_app.web.service import Service
from stream_app.web.state.catalogue import Catalogue
from stream_app.web.state.held import Held
from stream_app.web.state.users import NewestUsers
from tests.web.cases import run_of, slice_value, vector_value

NAMES = [f"i{number}" for number in range(12)]

ITEMS = st.builds(
    Item,
    item_id=st.just(""),
    category=st.sampled_from(["tea", "hat", None]),
    tags=st.lists(st.sampled_from(["tea", "new"]), max_size=2),
    price=st.sampled_from([None, 1.0, 5.0]),
    available=st.sampled_from([True, True, False]),
)
QUERIES = st.builds(
    ListQuery,
    count=st.integers(1, 10),
    category=st.sampled_from([None, "tea", "nothing"]),
    max_price=st.sampled_from([None, 2.0, 9.0]),
)


class SmallService:
    """As much of `Service` as filtering asks for: the items told of, vectors of some, and who has seen what.

    Args:
        items: By id.
        with_vectors: Those that have one.
        popular: Most popular first.
        seen: By ann.
    """

    def __init__(self, items: dict[str, Item], with_vectors: set[str], popular: list[str], seen: list[str]) -> None:
        self.held = cast(Held, self)
        self.item_view = ItemView(build_index("faiss", 2, "r1"), 1, tell=tell_items)
        self.index = self.item_view.index
        generator = np.random.default_rng(1)
        for item_id in sorted(with_vectors):
            self.index.upsert([item_id], generator.standard_normal((1, 2)).astype(np.float32))
        self.catalogue, self.users = Catalogue(), NewestUsers(5)
        for item_id, item in items.items():
            for take in (self.catalogue.take, self.item_view._take_items):
                take(run_of((item_id.encode(), encode(item))))
        self.model = cast(Any, type("Model", (), {"release": "r1"}))
        self.trends = cast(Any, type("Trends", (), {"popular": lambda _, count: popular[:count]})())
        if seen:
            self.users.take_slices(run_of((b"ann", slice_value("ann", 0, seen))))
        self.users.take_vectors(run_of((b"ann", vector_value("ann", 0, ["a"], "r1", dim=2))))

    async def compute(self, work: Callable[[], Any]) -> Any:
        """At once."""
        return work()


def added(service: SmallService, user_id: str, listed: list[str], query: ListQuery) -> list[tuple[str, str]]:
    """Ids and sources of what is added to a published list."""
    lines = [RankedItem(item_id=item_id, score=1.0, sources=["index"]) for item_id in listed]
    found = asyncio.run(added_lines(cast(Service, service), user_id, lines, query))
    return [(line.item_id, line.sources[0]) for line in found]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(ITEMS, min_size=12, max_size=12),
    st.sets(st.sampled_from(NAMES)),
    st.permutations(NAMES),
    st.integers(0, 12),
    st.lists(st.sampled_from(NAMES), max_size=4),
    st.sampled_from(["ann", "nobody"]),
    QUERIES,
)
def test_what_is_added_is_all_that_matches_in_the_promised_order(
    made: list[Item],
    with_vectors: set[str],
    order: list[str],
    num_popular: int,
    seen: list[str],
    user_id: str,
    query: ListQuery,
) -> None:
    items = {
        name: Item(item_id=name, category=item.category, tags=item.tags, price=item.price, available=item.available)
        for name, item in zip(NAMES, made, strict=True)
    }
    listed, popular = order[:3], order[12 - num_popular :]
    service = SmallService(items, with_vectors, popular, seen)
    found = added(service, user_id, listed, query)

    def matches(name: str) -> bool:
        item = items[name]
        named = query.category in (None, item.category, *item.tags)
        return named and (query.max_price is None or (item.price is not None and item.price <= query.max_price))

    published = [name for name in listed if matches(name)][: query.count]
    passed = {*published, *(seen if user_id == "ann" else [])}
    rest = [name for name in NAMES if matches(name) and items[name].available and name not in passed]
    user_D = user_vector(service.held, user_id)
    assert (user_D is None) == (user_id == "nobody")
    score_of = (
        {name: service.index.vectors_of([name])[0][0] @ user_D for name in with_vectors} if user_id == "ann" else {}
    )
    wanted = [(name, "index") for name in sorted(score_of, key=lambda name: -score_of[name]) if name in rest]
    for names, source in ((popular, "popular"), (NAMES[::-1], "catalogue")):
        wanted += [(name, source) for name in names if name in rest and name not in dict(wanted)]
    is_filtered = query.category is not None or query.max_price is not None
    assert found == (wanted[: query.count - len(published)] if is_filtered else [])


def test_the_catalogue_is_looked_at_from_its_newest_records_and_not_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = {name: Item(item_id=name, category="tea") for name in NAMES}
    service = SmallService(items, set(), [], [])
    monkeypatch.setattr(filtering, "MAX_LOOKED_AT", 2)
    assert added(service, "nobody", [], ListQuery(category="tea")) == [("i11", "catalogue"), ("i10", "catalogue")]


def test_index_and_catalogue_let_the_same_items_through() -> None:
    item = Item(item_id="i0", category="tea", tags=["hot"], price=2.0)
    service = SmallService({"i0": item}, {"i0"}, [], [])
    line = RankedItem(item_id="i0", score=0.0, sources=[])
    for query in (ListQuery(category=name, max_price=price) for name in ("tea", "hot", "hat") for price in (2.0, 1.9)):
        assert filter_of(query).matches(attributes_of(item)) == (kept(service.held, [line], query) == [line])


def test_of_more_tags_than_an_index_takes_the_category_stays() -> None:
    told = attributes_of(Item(item_id="a", category="tea", tags=[f"t{number}" for number in range(100)]))
    assert len(told.categories) == MAX_CATEGORIES
    assert {"tea", "t0"} <= told.categories
