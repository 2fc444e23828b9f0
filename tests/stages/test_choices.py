"""Choices: what counts as one, and what is told of it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from stream_app.records import SliceVectorRecord, unpack_vector
from stream_app.stages.choices import (
    MAX_NEGATIVES,
    WHOLE_ONE_IN,
    Choice,
    at_one_moment,
    choice_hash,
    choice_record,
    queries_for,
    search_for,
    take_choices,
)
from stream_app.stages.listing import LISTS_AT_ONCE
from stream_app.stages.profile import UserProfile
from stream_app.stages.ranking import Candidates, Query
from stream_app.stages.score_rule import ScoreRule
from tests.stages.test_profile import vector
from tests.stages.test_ranking import named

RULE = ScoreRule(epoch_ms=10, scorer_epoch_ms=40, users_share=1.0, choices_per_epoch=9)


def taken(
    items: list[str], *, seq: int = 0, fresh: bool = True, user_id: str = "ann", **changes: object
) -> SliceVectorRecord:
    """A fresh slice vector; its user vector is [seq, seq]. Each event makes another revision of its slice."""
    made = vector(seq, items, float(seq))
    made = msgspec.structs.replace(made, user_id=user_id, fresh=fresh, revision=len(items))
    return msgspec.structs.replace(made, **changes)


def items_of(records: list[SliceVectorRecord]) -> list[tuple[str, list[str]]]:
    """The items chosen and what was known as seen before, after all records."""
    release = records[0].release
    return [(choice.item_id, choice.profile.seen) for choice in take_choices(records, {}, release)]


def test_a_choice_is_a_new_item_of_a_known_user_beside_the_profile_before_it() -> None:
    records = [taken(["p"]), taken(["p", "q"]), taken(["p", "q", "r"])]
    assert items_of(records) == [("q", ["p"]), ("r", ["p", "q"])]


@pytest.mark.parametrize(
    "second",
    [
        taken(["p", "p"]),
        taken(["p", "q"], fresh=False),
        taken(["q", "p"]),
        taken(["p", "q", "q"]),
        taken(["p", "q"], release="another"),
        taken(["p", "q"], user_id="bob"),
    ],
    ids=["seen", "only closed", "came late", "taken before in the run", "another release", "first of its user"],
)
def test_no_choice(second: SliceVectorRecord) -> None:
    assert items_of([taken(["p"]), second]) == []


def test_a_user_of_another_release_must_be_known_anew() -> None:
    profiles = {"ann": UserProfile(seen=["p"], user_vector=b"\0" * 8, release="old")}
    records = [taken(["p", "q"]), taken(["p", "q", "r"])]
    assert [choice.item_id for choice in take_choices(records, profiles, records[0].release)] == ["r"]


def test_the_index_is_asked_with_the_vector_before_the_choice() -> None:
    records = [taken(["p"], seq=0), taken(["q"], seq=1), taken(["r"], seq=2)]
    choices = take_choices(records, {}, records[0].release)
    search = search_for(choices, 5)
    assert search.vectors_UD[:, 0].tolist() == [0.0, 1.0]
    assert list(search.limits) == [5 + 1, 5 + 2]
    first, second = queries_for(search, choices, [list("abcdefgh")] * 2)
    assert (list(first.from_index), list(second.from_index)) == (list("abcdef"), list("abcdefg"))
    assert (set(first.seen), list(second.recent)) == ({"p"}, ["q", "p"])


def test_choices_are_cut_where_they_join_other_trends() -> None:
    epochs = [None] * (LISTS_AT_ONCE + 1) + [4, 4, 5, 4]
    choices = [Choice(taken(["p", f"q{n}"], join_epoch=epoch), UserProfile()) for n, epoch in enumerate(epochs)]
    queries = [Query(seen=(), recent=(), silent_ms=n) for n in range(len(choices))]
    parts = list(at_one_moment(choices, queries))
    assert [(epoch, len(some)) for epoch, some, _ in parts] == [
        *((None, LISTS_AT_ONCE), (None, 1)),
        *((4, 2), (5, 1), (4, 1)),
    ]
    assert [choice for _, some, _ in parts for choice in some] == choices
    assert [query for _, _, some in parts for query in some] == queries
    assert list(at_one_moment([], [])) == []


def choice_of(item_id: str, ts_ms: int) -> Choice:
    return Choice(taken(["p", item_id], last_ts=ts_ms, join_epoch=7, offset=3, partition=1), UserProfile())


def drawn(item_id: str, *, whole: bool) -> Choice:
    """A choice at the first time at which it is drawn to be told whole, or not."""
    times = (ts for ts in range(1000) if (choice_hash("ann", ts, item_id) % WHOLE_ONE_IN == 0) == whole)
    return choice_of(item_id, next(times))


def offer(num: int) -> tuple[Candidates, np.ndarray]:
    """Candidates i0, i1, ... with two features each: [number, -number]."""
    features_CF = np.arange(num)[:, None] * np.array([[1.0, -1.0]])
    return named({f"i{number}": ["index"] for number in range(num)}), features_CF


def test_one_choice_in_some_is_told_whole_with_the_place_of_the_item() -> None:
    made = choice_record(drawn("i2", whole=True), *offer(50), RULE)
    assert made is not None
    assert (made.is_whole, made.chosen, made.num_candidates, made.epoch) == (True, 2, 50, 2)
    assert unpack_vector(made.features).reshape(50, 2)[:3].tolist() == [[0, 0], [1, -1], [2, -2]]
    assert (made.item_id, made.partition, made.offset, made.user_id) == ("i2", 1, 3, "ann")


def test_of_the_others_a_sample_is_told_that_has_the_item() -> None:
    made = choice_record(drawn("i47", whole=False), *offer(90), RULE)
    assert made is not None and not made.is_whole
    assert made.num_candidates == MAX_NEGATIVES + 1
    # 89 others, of which 60 are told: the foremost 30, and 30 that stand for 59.
    assert made.num_spread == 30
    assert made.weight == pytest.approx(59 / 30)
    assert unpack_vector(made.features).reshape(-1, 2)[made.chosen].tolist() == [47, -47]


def test_an_item_that_nobody_offered_is_told_only_where_lists_are_judged() -> None:
    assert choice_record(drawn("new", whole=False), *offer(50), RULE) is None
    made = choice_record(drawn("new", whole=True), *offer(50), RULE)
    assert made is not None
    assert (made.chosen, made.num_candidates, made.features) == (-1, 0, "")
