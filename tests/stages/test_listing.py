"""Lists: to whom one is due, what it is made for, and that nobody's depends on others."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from stream_app.records import SliceVectorRecord, pack_vector
from stream_app.stages.listing import (
    LISTS_AT_ONCE,
    MAX_SEARCH,
    KnownItems,
    ListRule,
    ScorerInForce,
    by_epoch,
    index_version,
    make_list,
    make_lists,
    queries_of,
    recommendation_id,
    search_of,
    take_vectors,
)
from stream_app.stages.parts import in_parts
from stream_app.stages.profile import UserProfile
from stream_app.stages.score_rule import ScoreRule
from tests.stages.test_profile import vector
from tests.stages.test_ranking import ITEMS as ITEM_IDS
from tests.stages.test_ranking import SCORER, items_with, trend, view_of

RULE = ListRule("events", "r1", SCORER, ScoreRule(10, 20, 1.0, 9), list_items=3, candidates=5)
IN_FORCE = ScorerInForce(SCORER, 3)
ITEMS = KnownItems(index_version("r1", 9), items_with({"i2": False}))


def vector_for(user_id: str, offset: int, items: list[str], *, fresh: bool = True) -> SliceVectorRecord:
    """A slice vector of a user; slices are numbered by offset."""
    return msgspec.structs.replace(vector(offset, items), user_id=user_id, fresh=fresh)


def test_a_list_is_due_to_whoever_has_a_new_event_and_answers_the_last() -> None:
    profiles: dict[str, UserProfile] = {}
    records = [
        vector_for("a", 1, ["i0"]),
        vector_for("b", 2, ["i1"], fresh=False),
        vector_for("c", 3, ["i1"]),
        vector_for("a", 4, ["i3"]),
        msgspec.structs.replace(vector_for("d", 5, ["i4"]), release="r0"),
    ]
    assert [(one.user_id, one.offset) for one in take_vectors(records, profiles, "r1")] == [("a", 4), ("c", 3)]
    assert {user: (profile.seen, profile.answered) for user, profile in profiles.items()} == {
        "a": (["i0", "i3"], 4),
        "b": (["i1"], -1),
        "c": (["i1"], 3),
    }
    assert take_vectors(records, profiles, "r1") == [], "the same once more asks for nothing"


def test_a_list_is_made_with_the_newest_vector_though_an_older_one_is_published_again_behind_it() -> None:
    older, newer = vector_for("a", 1, ["i0"]), vector_for("a", 2, ["i1"])
    newer = msgspec.structs.replace(newer, user_vector=pack_vector(np.array([2.0], dtype=np.float32)))
    profiles: dict[str, UserProfile] = {}
    assert take_vectors([older, newer, older], profiles, "r1") == [newer]
    assert search_of(["a"], profiles, 5).vectors_UD.tolist() == [[2.0]]


def test_lists_are_made_by_epoch_and_live_ones_last() -> None:
    epochs = [7, None, 3, 7, 0]
    asked = [msgspec.structs.replace(vector_for("a", n, []), join_epoch=epoch) for n, epoch in enumerate(epochs)]
    groups = [(epoch, [one.offset for one in group]) for epoch, group in by_epoch(asked)]
    assert groups == [(0, [4]), (3, [2]), (7, [0, 3]), (None, [1])]


def test_what_a_user_gets_of_the_index_does_not_depend_on_the_others() -> None:
    vector_bytes = np.array([1.0, 2.0], dtype="<f4").tobytes()
    profiles = {
        "few": UserProfile(seen=["i0"], user_vector=vector_bytes),
        "many": UserProfile(seen=[f"s{n}" for n in range(2000)], user_vector=vector_bytes),
    }
    search = search_of(["few", "many"], profiles, 5)
    assert (search.vectors_UD.shape, list(search.limits)) == ((2, 2), [6, MAX_SEARCH])
    found = [f"i{n}" for n in range(MAX_SEARCH)]
    queries = queries_of(search, profiles, [found, found])
    assert [len(queries[user].from_index) for user in ("few", "many")] == [6, MAX_SEARCH]
    assert queries["few"].seen == {"i0"}


def test_a_list_says_what_it_was_made_from() -> None:
    profile = UserProfile(seen=["i0"], user_vector=np.ones(8, dtype="<f4").tobytes())
    search = search_of(["a"], {"a": profile}, RULE.candidates)
    query = queries_of(search, {"a": profile}, [["i0", "i1", "i2"]])["a"]
    record = vector_for("a", 4, ["i0"])
    made = make_list(record, query, view_of(trend("i5", 2.0), trend("i2", 9.0)), ITEMS, RULE, IN_FORCE)
    assert {item.item_id: item.sources for item in made.items} == {"i1": ["index"], "i5": ["popular_15m", "popular_1h"]}
    assert (made.user_id, made.offset, made.epoch, made.release) == ("a", 4, 5, "r1")
    assert made.index_version == "r1/9"
    assert made.recommendation_id == recommendation_id(RULE, record, "r1/9", 5, 3)
    assert made.scorer_epoch == 3


def test_lists_made_together_are_those_made_alone() -> None:
    generator = np.random.default_rng(0)
    users = [f"u{n}" for n in range(2 * LISTS_AT_ONCE + 1)]
    profiles = {
        user: UserProfile(seen=[f"i{n % 9}"], user_vector=generator.standard_normal(8).astype("<f4").tobytes())
        for n, user in enumerate(users)
    }
    search = search_of(users, profiles, RULE.candidates)
    queries = queries_of(search, profiles, [list(generator.permutation(ITEM_IDS)) for _ in users])
    view = view_of(trend("i5", 2.0), trend("i3", 9.0, ("i1", 1.0, 1.0)), trend("i7", 1.0))
    records = [vector_for(user, n, ["i0"]) for n, user in enumerate(users)]
    parts = list(in_parts(records, LISTS_AT_ONCE))
    assert [len(part) for part in parts] == [LISTS_AT_ONCE, LISTS_AT_ONCE, 1]
    together = [one for part in parts for one in make_lists(part, queries, view, ITEMS, RULE, IN_FORCE)]
    assert together == [make_list(one, queries[one.user_id], view, ITEMS, RULE, IN_FORCE) for one in records]


@pytest.mark.parametrize("change", ["events", "release", "version", "epoch", "offset", "partition", "scorer"])
def test_an_id_names_everything_a_list_is_a_function_of(change: str) -> None:
    record = vector_for("a", 4, [])
    other = msgspec.structs.replace(record, **{change: 9}) if change in ("offset", "partition") else record
    rule = replace(RULE, events="x") if change == "events" else RULE
    rule = replace(rule, release="x") if change == "release" else rule
    version, epoch = "r1/8" if change == "version" else "r1/9", 6 if change == "epoch" else 5
    scorer_epoch = 4 if change == "scorer" else 3
    made = recommendation_id(rule, other, version, epoch, scorer_epoch)
    assert made != recommendation_id(RULE, record, "r1/9", 5, 3)
