"""Ranking: who may be listed, who brought whom, and scores that a person can follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import RankedItem, TrendRecord
from stream_app.stages.item_columns import ItemColumns
from stream_app.stages.learning import Scorer
from stream_app.stages.popularity import TrendRule
from stream_app.stages.ranking import (
    RECENT_WEIGHTS,
    SHARE_FLOOR,
    VECTOR_FLOOR,
    Candidates,
    Query,
    features,
    features_together,
    gather,
    rank,
)
from stream_app.stages.scoring import default_scorer
from stream_app.stages.trend_view import TrendView
from tests.stages.item_cases import items_of
from tests.stages.plain_lists import plain_features, plain_rank, plain_sources

RULE = TrendRule(epoch_ms=60_000, half_lives_ms=(900_000.0, 3_600_000.0))
SCORER = default_scorer([half_life_ms / 1000 for half_life_ms in RULE.half_lives_ms])
NAMES = SCORER.feature_names
ITEMS = [f"i{number}" for number in range(12)]
VECTORS = {item_id: np.random.default_rng(n).standard_normal(8) for n, item_id in enumerate(ITEMS[:9])}


def is_listed(catalogue: Mapping[str, bool]) -> Callable[[str], bool]:
    """Whether an item may be listed; one that the catalogue does not know may."""
    return lambda item_id: catalogue.get(item_id, True)


def items_with(catalogue: Mapping[str, bool]) -> ItemColumns:
    """Vectors of most of the items, and a catalogue."""
    return items_of(VECTORS, 8, is_listed(catalogue))


ALL = items_with({})


def named(sources: Mapping[str, Sequence[str]]) -> Candidates:
    """Candidates that nobody touched yet."""
    names = list(dict.fromkeys(name for some in sources.values() for name in some))
    brought_CO = np.array([[name in some for name in names] for some in sources.values()], dtype=np.bool_)
    return Candidates(np.arange(len(sources)), brought_CO, names, [], 0, list(sources))


def trend(item_id: str, count: float, *predecessors: tuple[str, float, float]) -> TrendRecord:
    """The trend of an item in few words."""
    return TrendRecord(item_id=item_id, epoch=5, first_epoch=5, counts=[count, count], predecessors=list(predecessors))


def view_of(*records: TrendRecord) -> TrendView:
    """A view at epoch 5."""
    view = TrendView(RULE)
    view.advance(5, records)
    return view


@st.composite
def views(draw: st.DrawFn) -> TrendView:
    """Trends of some items."""
    predecessors = st.lists(st.tuples(st.sampled_from(ITEMS), st.just(1.0), st.floats(1, 5)), max_size=4)
    touched = draw(st.lists(st.sampled_from(ITEMS), unique=True))
    return view_of(*(trend(item, draw(st.sampled_from([1.0, 2.0, 5.5])), *draw(predecessors)) for item in touched))


@st.composite
def queries(draw: st.DrawFn) -> Query:
    """What some user asks with."""
    some = st.lists(st.sampled_from(ITEMS), unique=True)
    has_vector = draw(st.booleans())
    vector_D = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(8).astype(np.float32)
    return Query(
        seen=frozenset(draw(some)),
        recent=draw(some),
        user_vector=vector_D if has_vector else None,
        from_index=draw(some) if has_vector else (),
        silent_ms=draw(st.integers(0, 10**9)),
    )


def sources_of(found: Candidates) -> dict[str, list[str]]:
    """The sources that brought each candidate, by item id."""
    return dict(zip(found.ids, found.sources_at(np.arange(len(found))), strict=True))


def listed(query: Query, view: TrendView, available: dict[str, bool], num_each: int = 5) -> list[RankedItem]:
    """The list of a user."""
    items = items_with(available)
    found = gather(query, view, num_each, items)
    return rank(found, features(query, found, view, items), SCORER, 10)


@given(queries(), views(), st.dictionaries(st.sampled_from(ITEMS), st.booleans()), st.integers(1, 6))
def test_each_item_is_new_to_the_user_available_and_names_those_who_brought_it(
    query: Query, view: TrendView, available: dict[str, bool], num_each: int
) -> None:
    made = listed(query, view, available, num_each)
    ids = [item.item_id for item in made]
    assert len(set(ids)) == len(ids) <= 10
    assert not set(ids) & set(query.seen)
    assert all(available.get(item_id, True) for item_id in ids)
    recent = query.recent[: len(RECENT_WEIGHTS)]
    touched = set(view.item_ids)
    origins = {
        "index": set(query.from_index),
        "transition": {view.item_ids[row] for row in view.after(recent).rows_K},
        "reverse": {view.item_ids[row] for row in view.before(recent).rows_K},
        "cotouch": {view.item_ids[row] for row in view.after(query.from_index[:10]).rows_K} - VECTORS.keys(),
        "popular_15m": touched,
        "popular_1h": touched,
    }
    for item in made:
        assert item.sources
        assert len(set(item.sources)) == len(item.sources)
        assert all(item.item_id in origins[source] for source in item.sources)
    # No source brings more than it may.
    found = gather(query, view, num_each, items_with(available))
    for source in origins:
        assert sum(source in sources for sources in sources_of(found).values()) <= num_each


@given(queries(), views(), st.dictionaries(st.sampled_from(ITEMS), st.booleans()), st.integers(1, 6))
def test_lists_are_to_the_bit_what_they_are_by_id_one_item_after_the_other(
    query: Query, view: TrendView, available: dict[str, bool], num_each: int
) -> None:
    items = items_with(available)
    found = gather(query, view, num_each, items)
    sources = plain_sources(query, view, num_each, is_listed(available), VECTORS)
    assert list(sources_of(found).items()) == list(sources.items())
    features_CF = features(query, found, view, items)
    assert features_CF.tolist() == plain_features(query, list(sources), view, VECTORS).tolist()
    assert rank(found, features_CF, SCORER, 4) == plain_rank(sources, features_CF, SCORER, 4)


def test_unavailable_items_leave_room_for_those_behind_them_however_many_they_are() -> None:
    view = view_of(*(trend(f"i{number}", 100.0 - number) for number in range(60)))
    hidden = {f"i{number}": False for number in range(57)}
    for num_each, expected in ((1, ["i57"]), (2, ["i57", "i58"]), (10, ["i57", "i58", "i59"])):
        found = gather(Query(frozenset({"i4"}), []), view, num_each, items_with(hidden))
        assert sources_of(found) == {item_id: ["popular_15m", "popular_1h"] for item_id in expected}


@given(st.lists(queries(), min_size=1, max_size=4), views())
def test_the_features_of_several_lists_are_those_of_each_alone(some: list[Query], view: TrendView) -> None:
    found = [gather(query, view, 4, ALL) for query in some]
    alone = [features(query, one, view, ALL) for query, one in zip(some, found, strict=True)]
    assert features_together(some, found, view, ALL).tobytes() == np.concatenate(alone).tobytes()


@given(queries(), views())
def test_lists_are_in_order_and_the_same_every_time(query: Query, view: TrendView) -> None:
    made = listed(query, view, {})
    assert made == sorted(made, key=lambda item: (-item.score, item.item_id))
    assert made == listed(query, view, {})
    assert all(math.isfinite(item.score) for item in made)


@given(queries(), views(), st.data())
def test_scores_depend_on_no_companion_but_the_one_with_the_best_vector(
    query: Query, view: TrendView, data: st.DataObject
) -> None:
    found = gather(query, view, 12, ALL)
    kept = [item for item in found.ids if data.draw(st.booleans())]
    if query.user_vector is not None and found.ids:
        with_vector = [item for item in found.ids if item in VECTORS]
        vector_D = query.user_vector.astype(np.float64)
        best = max(with_vector, key=lambda item: VECTORS[item].astype(np.float32) @ vector_D, default=None)
        kept = kept if best is None or best in kept else [*kept, best]
    places = [found.place_of(item) for item in kept]
    fewer = replace(found, rows_C=found.rows_C[places], brought_CO=found.brought_CO[places])
    scores = [
        {item.item_id: item.score for item in rank(some, features(query, some, view, ALL), SCORER, 99)}
        for some in (found, fewer)
    ]
    assert scores[1] == {item: scores[0][item] for item in kept}


def test_by_hand() -> None:
    # The user just took p, after which q came 4 times and r twice; s is twice as popular as q.
    view = view_of(
        *(trend("p", 8.0), trend("q", 4.0, ("p", 4.0, 4.0)), trend("r", 0.5, ("p", 2.0, 2.0))),
        *(trend("s", 8.0), trend("gone", 9.0)),
    )
    query = Query(seen={"p"}, recent=["p"])
    found = gather(query, view, 2, items_with({"gone": False}))
    assert sources_of(found) == {
        "s": ["popular_15m", "popular_1h"],
        "q": ["popular_15m", "popular_1h", "transition"],
        "r": ["transition"],
    }
    shares = found.shares.of(view.rows_of(["q", "r", "s", "unheard of"])).tolist()
    expected = [[share] * 4 + [0.0] * 4 for share in (4 / 9, 2 / 9, 0.0, 0.0)]
    assert shares == [pytest.approx(row) for row in expected]
    assert {view.item_ids[row] for row in found.shares.brought(0)[0].tolist()} == {"q", "r"}
    table = dict(zip(sources_of(found), features(query, found, view, ALL), strict=True))
    column = {name: place for place, name in enumerate(NAMES)}
    assert table["q"][column["popularity_15m"]] == pytest.approx(-math.log1p(math.log2(9 / 4)))
    assert table["q"][column["transition_last_short"]] == pytest.approx(
        math.log(4 / 9 + SHARE_FLOOR) - math.log(SHARE_FLOOR)
    )
    assert table["s"][column["transition_recent_long"]] == 0.0
    only_transitions = Scorer(feature_names=NAMES, weights=[float(name == "transition_recent_long") for name in NAMES])
    made = rank(found, np.array(list(table.values())), only_transitions, 2)
    assert [(item.item_id, item.score) for item in made] == [
        ("q", round(math.log((4 / 9 + SHARE_FLOOR) / SHARE_FLOOR), 6)),
        ("r", round(math.log((2 / 9 + SHARE_FLOOR) / SHARE_FLOOR), 6)),
    ]


def test_older_items_of_the_user_count_less_and_only_the_newest_is_last() -> None:
    view = view_of(trend("p", 1.0), trend("r", 3.0), trend("q", 1.0, ("p", 1.0, 1.5), ("r", 1.0, 1.0)))
    found = gather(Query(seen=set(), recent=["p", "r"]), view, 10, ALL)
    expected = [0.5, 0.75, 0.5 + RECENT_WEIGHTS[1] * 0.25, 0.75 + RECENT_WEIGHTS[1] * 0.25]
    assert found.shares.of(view.rows_of(["q"]))[0, :4].tolist() == pytest.approx(expected)


def test_what_came_before_the_users_items_is_offered_too() -> None:
    # Others went from q to p and to r; this user went to p and r without q.
    view = view_of(trend("q", 2.0), trend("p", 1.0, ("q", 1.0, 1.0)), trend("r", 3.0, ("q", 1.0, 3.0)))
    found = gather(Query(seen={"p", "r"}, recent=["p", "r"]), view, 10, ALL)
    assert sources_of(found)["q"] == ["popular_15m", "popular_1h", "reverse"]
    expected = [0.5, 0.5, 0.5 + RECENT_WEIGHTS[1] * 0.25, 0.5 + RECENT_WEIGHTS[1] * 0.75]
    shares = found.shares.of(view.rows_of(["q"]))[0]
    assert shares.tolist() == pytest.approx([0.0] * 4 + expected)
    table = features(Query(seen={"p", "r"}, recent=["p", "r"]), found, view, ALL)
    column = NAMES.index("reverse_recent_long")
    assert table[0, column] == pytest.approx(math.log(expected[3] + SHARE_FLOOR) - math.log(SHARE_FLOOR))


def test_an_item_without_a_vector_is_offered_where_it_follows_what_is_near_the_user() -> None:
    # Nobody touched the new items twice; i0 and i1 have vectors, and i1 followed i0 just as the new ones did.
    records = [trend(item, 1.0, ("i0", 1.0, count)) for item, count in (("i1", 5.0), ("new", 1.0), ("newer", 2.0))]
    view = view_of(trend("i0", 9.0), trend("s", 8.0), trend("t", 7.0), *records)
    query = Query(seen={"i0"}, recent=[], user_vector=np.ones(8, dtype=np.float32), from_index=["i0"])
    found = gather(query, view, 1, ALL)
    assert sources_of(found) == {"s": ["popular_15m", "popular_1h"], "newer": ["cotouch"]}
    found = gather(query, view, 2, items_with({"newer": False}))
    assert sources_of(found) == {
        "s": ["popular_15m", "popular_1h"],
        "t": ["popular_15m", "popular_1h"],
        "new": ["cotouch"],
    }


@given(queries(), st.data())
def test_lists_do_not_depend_on_the_order_in_which_trends_came(query: Query, data: st.DataObject) -> None:
    records = [
        trend(
            item, data.draw(st.sampled_from([1.0, 2.0])), *((other, 1.0, 1.0) for other in ITEMS[:4] if other != item)
        )
        for item in data.draw(st.lists(st.sampled_from(ITEMS), unique=True))
    ]
    view, turned = view_of(*records), view_of(*reversed(records))
    assert sources_of(gather(query, view, 3, ALL)) == sources_of(gather(query, turned, 3, ALL))
    assert listed(query, view, {}) == listed(query, turned, {})


def test_the_scorer_is_told_how_much_a_user_knows_and_how_long_it_was_silent() -> None:
    query = Query(seen={"p", "q"}, recent=["p"], silent_ms=59_000)
    view = view_of(trend("s", 1.0), trend("t", 1.0))
    features_CF = features(query, gather(query, view, 5, ALL), view, ALL)
    assert features_CF[:, NAMES.index("user_seen")].tolist() == pytest.approx([math.log(3)] * 2)
    assert features_CF[:, NAMES.index("user_silent")].tolist() == pytest.approx([math.log(60)] * 2)


def test_the_vector_feature_is_the_distance_from_the_best_dot_product() -> None:
    vectors = {"p": [3.0, 0.0], "q": [1.0, 1.0], "r": [-90.0, 0.0]}
    found = named({item: ["index"] for item in ("p", "q", "r", "no vector")})
    query = Query(seen=(), recent=(), user_vector=np.array([1.0, 0.5], dtype=np.float32))
    features_CF = features(query, found, view_of(), items_of(vectors, 2))
    assert features_CF[:, NAMES.index("vector")].tolist() == [0.0, -1.5, VECTOR_FLOOR, 0.0]
    assert features_CF[:, NAMES.index("no_vector")].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_ties_go_by_item_id_even_where_rounding_made_them() -> None:
    found = named({"b": ["index"], "a": ["index"], "c": ["index"]})
    made = rank(found, np.array([[1.0], [1.0 - 1e-9], [1.0 + 1e-9]]), Scorer(feature_names=["one"], weights=[1.0]), 3)
    assert [(item.item_id, item.score) for item in made] == [("a", 1.0), ("b", 1.0), ("c", 1.0)]


def test_without_trends_and_vector_there_is_an_empty_list() -> None:
    query = Query(seen=(), recent=["p"])
    found = gather(query, TrendView(RULE), 5, ALL)
    features_CF = features(query, found, TrendView(RULE), ALL)
    assert features_CF.shape == (0, len(NAMES))
    assert rank(found, features_CF, SCORER, 5) == []


def test_without_trends_the_index_alone_makes_the_list() -> None:
    vector_D = np.array(VECTORS["i1"], dtype=np.float32)
    made = listed(Query((), (), vector_D, ["i1", "i2"]), TrendView(RULE), {})
    dots = {item_id: float(VECTORS[item_id] @ vector_D) for item_id in ("i1", "i2")}
    assert [item.item_id for item in made] == sorted(dots, key=lambda item_id: -dots[item_id])
    assert all(item.sources == ["index"] for item in made)
