"""How a list was chosen: candidates add up, and each item kept out has its rule."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from index import build_index
from stream_app.inspection.choice import (
    SEEN,
    UNAVAILABLE,
    ListChanges,
    Recommender,
    RemovedItem,
    differences,
    list_changes,
)
from stream_app.inspection.vectors import EncodedUser
from stream_app.models import list_rule, served_model
from stream_app.records import RankedItem, Recommendation, SliceVectorRecord, TrendRecord, pack_vector
from stream_app.settings_rules import trend_rule
from stream_app.stages.listing import ScorerInForce
from stream_app.stages.profile import UserProfile, take_slice_vector
from stream_app.stages.trend_view import TrendView
from tests.replay_cases import demo_encoder, demo_settings

TOUCHED = ("t1", "t2", "t3", "sold", "mine")


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    """The demo's model over an index of three of its items; `sold` is not available."""
    settings, encoder = demo_settings(list_items=2), demo_encoder()
    ids, vectors_ID = encoder.item_vectors()
    index = build_index("faiss", encoder.dim, encoder.release)
    index.upsert(ids[:3], vectors_ID[:3])
    rule = list_rule(settings, served_model(settings))
    scorer = ScorerInForce(rule.scorer)
    return Recommender(settings, encoder, index, rule, lambda item_id: item_id != "sold", scorer, "m/3")


@pytest.fixture(scope="module")
def user() -> EncodedUser:
    """A user who has seen `mine` and the index's first item."""
    encoder = demo_encoder()
    ids, vectors_ID = encoder.item_vectors()
    record = SliceVectorRecord(
        user_id="ann",
        seq=0,
        revision=2,
        closed=False,
        fresh=True,
        items=[ids[0], "mine"],
        last_ts=1000,
        partition=1,
        offset=5,
        release=encoder.release,
        slice_vector=pack_vector(vectors_ID[0]),
        user_vector=pack_vector(vectors_ID[1]),
        num_slices_merged=0,
    )
    profile = UserProfile()
    take_slice_vector(profile, record)
    return EncodedUser(profile, record, [], np.zeros((4, encoder.dim), dtype=np.float32), 0)


def trends(followers: dict[str, float]) -> TrendView:
    """Five items, each touched once in epoch 3, and what followed `mine`."""
    rule = trend_rule(demo_settings())
    view = TrendView(rule)
    records = [
        TrendRecord(
            item_id=item,
            epoch=3,
            first_epoch=3,
            counts=[1.0] * len(rule.half_lives_ms),
            predecessors=[("mine", followers[item], followers[item])] if item in followers else [],
        )
        for item in TOUCHED
    ]
    view.advance(4, records)
    return view


def test_scores_are_the_sums_of_their_parts_and_the_list_is_the_best_of_them(
    recommender: Recommender, user: EncodedUser
) -> None:
    choice = recommender.choose(user, trends({"t2": 3.0}))
    ids, _ = demo_encoder().item_vectors()
    assert {one.item_id for one in choice.candidates} == {"t1", "t2", "t3", ids[1], ids[2]}
    for one in choice.candidates:
        parts = [value * recommender.weights[name] for name, value in one.features.items()]
        assert one.score == pytest.approx(sum(parts) + one.network, abs=2e-6)
    assert len({one.network for one in choice.candidates}) > 1
    best = choice.candidates[:2]
    assert [(one.item_id, one.score, one.sources) for one in best] == [
        (item.item_id, item.score, item.sources) for item in choice.recommendation.items
    ]
    assert [one.is_listed for one in choice.candidates] == [True, True, False, False, False]
    scores = [one.score for one in choice.candidates]
    assert scores == sorted(scores, reverse=True) and [one.rank for one in choice.candidates] == [1, 2, 3, 4, 5]
    followed = next(one for one in choice.candidates if one.item_id == "t2")
    assert followed.sources == [*(f"popular_{name}" for name in ("15m", "1h", "6h", "1d", "7d", "30d")), "transition"]
    assert (choice.recommendation.epoch, choice.recommendation.offset) == (4, 5)


def test_what_is_kept_out_has_its_rule_and_its_sources(recommender: Recommender, user: EncodedUser) -> None:
    ids, _ = demo_encoder().item_vectors()
    removed = {one.item_id: one for one in recommender.choose(user, trends({"sold": 1.0})).removed}
    popular = ["popular_15m", "popular_1h", "popular_6h", "popular_1d", "popular_7d", "popular_30d"]
    assert removed == {
        ids[0]: RemovedItem(item_id=ids[0], rule=SEEN, sources=["index"]),
        "mine": RemovedItem(item_id="mine", rule=SEEN, sources=popular),
        "sold": RemovedItem(item_id="sold", rule=UNAVAILABLE, sources=[*popular, "transition"]),
    }


def test_nothing_kept_out_where_nothing_is_known(recommender: Recommender, user: EncodedUser) -> None:
    stranger = dataclasses.replace(user, profile=UserProfile(user_vector=user.profile.user_vector))
    empty = TrendView(trend_rule(demo_settings()))
    choice = recommender.choose(stranger, empty)
    assert choice.removed == []
    assert {tuple(one.sources) for one in choice.candidates} == {("index",)}
    assert choice.recommendation.epoch == -1


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ("", "", ListChanges(items_in=[], items_out=[], moved=[])),
        ("pq", "pq", ListChanges(items_in=[], items_out=[], moved=[])),
        ("pq", "qp", ListChanges(items_in=[], items_out=[], moved=[("q", 2, 1), ("p", 1, 2)])),
        ("pqr", "pxr", ListChanges(items_in=["x"], items_out=["q"], moved=[])),
        ("pqr", "xpq", ListChanges(items_in=["x"], items_out=["r"], moved=[("p", 1, 2), ("q", 2, 3)])),
        ("pq", "", ListChanges(items_in=[], items_out=["p", "q"], moved=[])),
    ],
)
def test_changes_of_a_list(before: str, after: str, changes: ListChanges) -> None:
    assert list_changes(before, after) == changes


def test_differences_name_what_differs() -> None:
    def made(epoch: int, *items: RankedItem) -> Recommendation:
        return Recommendation(
            recommendation_id="r",
            user_id="a",
            event_ts=1,
            partition=0,
            offset=0,
            release="m",
            index_version="m/3",
            epoch=epoch,
            has_vector=True,
            items=list(items),
        )

    one = RankedItem(item_id="p", score=1.0, sources=["index"])
    other = RankedItem(item_id="p", score=1.000001, sources=["index"])
    assert differences(made(1, one), made(1, one)) == []
    assert differences(made(1, one), made(2, other)) == [
        "epoch is 2, published was 1",
        "rank 1 is p (1.000001, index), published was p (1.000000, index)",
    ]
    assert differences(made(1, one), made(1)) == ["0 items, published were 1"]
