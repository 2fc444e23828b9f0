"""Measures against fractions worked out by hand, against slow counting, and their laws."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.stages.metrics import (
    ALL_METRICS,
    Judged,
    interval_of,
    measures,
    ndcg10_of,
    user_bootstrap,
)

NAN = math.nan


def judged(lists: list[list[float]], num_candidates: int = 100, num_ranked: int | None = None) -> Judged:
    """Lists of the ranks of their relevant items, all of which were candidates."""
    ranks = [rank for one in lists for rank in one]
    return Judged(
        np.array(ranks, dtype=np.float64),
        np.array([number for number, one in enumerate(lists) for _ in one], dtype=np.int64),
        np.full(len(lists), num_candidates if num_ranked is None else num_ranked),
        np.full(len(lists), num_candidates),
        np.ones(len(ranks), dtype=np.bool_),
    )


def values_of(lists: list[list[float]], num_candidates: int = 100, num_ranked: int | None = None) -> dict[str, float]:
    """The measures of one list."""
    (row,) = measures(judged(lists, num_candidates, num_ranked)).tolist()
    return dict(zip(ALL_METRICS, row, strict=True))


def test_three_relevant_items_two_of_them_listed() -> None:
    # Ranks 2 and 4 of a list of ten; the third stands at 30 of 100.
    found = values_of([[4.0, 30.0, 2.0]])
    assert found["HR@10"] == 1.0
    assert found["Recall@10"] == pytest.approx(Fraction(2, 3))
    assert found["Precision@10"] == pytest.approx(Fraction(2, 10))
    assert found["F1@10"] == pytest.approx(Fraction(4, 13))  # 2 · 1/5 · 2/3 / (1/5 + 2/3)
    assert found["MRR@10"] == pytest.approx(Fraction(1, 2))
    assert found["MAP@10"] == pytest.approx((Fraction(1, 2) + Fraction(2, 4)) / 3)
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert found["NDCG@10"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert found["Accuracy@1"] == 0.0
    # 97 others: 1 stands above the first, 2 above the second, 27 above the third.
    assert found["AUC"] == pytest.approx(1 - Fraction(1 + 2 + 27, 3 * 97))


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (1.0, {"HR@10": 1, "NDCG@10": 1, "MRR@10": 1, "MAP@10": 1, "Accuracy@1": 1, "AUC": 1, "Precision@10": 0.1}),
        (3.0, {"HR@10": 1, "NDCG@10": 0.5, "MRR@10": 1 / 3, "MAP@10": 1 / 3, "Accuracy@1": 0, "AUC": 1 - 2 / 99}),
        (10.0, {"HR@10": 1, "MRR@10": 0.1, "F1@10": 2 / 11, "AUC": 1 - 9 / 99}),
        (11.0, {"HR@10": 0, "NDCG@10": 0, "MRR@10": 0, "HR@20": 1, "Precision@20": 0.05, "AUC": 1 - 10 / 99}),
        (100.0, {"HR@20": 0, "AUC": 0}),
    ],
)
def test_one_relevant_item(rank: float, expected: dict[str, float]) -> None:
    found = values_of([[rank]])
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_an_item_that_is_ranked_nowhere_stands_in_the_middle_of_what_is_left() -> None:
    # 20 of 100 are ranked; 79 others are left, half of which count as above: 20 + 39.5 of 99.
    found = values_of([[NAN]], num_ranked=20)
    assert found["AUC"] == pytest.approx(1 - (20 + 39.5) / 99)
    assert found["HR@20"] == found["MAP@20"] == 0.0


def test_an_item_that_nobody_knew_counts_as_the_last() -> None:
    unknown = Judged(np.array([NAN]), np.array([0]), np.array([5]), np.array([5]), np.zeros(1, dtype=np.bool_))
    assert measures(unknown)[0, ALL_METRICS.index("AUC")] == 0.0


def test_a_list_without_any_other_candidate_is_right() -> None:
    assert values_of([[1.0]], num_candidates=1)["AUC"] == 1.0


def test_relevant_items_with_the_same_rank_count_one_after_the_other() -> None:
    # Tied at rank 2: both may stand there, so precision at the first is 1/2, at the second 2/2.
    assert values_of([[2.0, 2.0]])["MAP@10"] == pytest.approx((Fraction(1, 2) + Fraction(2, 2)) / 2)


RANKS = st.lists(st.sets(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=6)


@given(RANKS)
def test_measures_are_what_slow_counting_says(lists: list[set[int]]) -> None:
    found = measures(judged([sorted(map(float, one)) for one in lists], num_candidates=40))
    for row, relevant in zip(found, lists, strict=True):
        shown = dict(zip(ALL_METRICS, row.tolist(), strict=True))
        is_relevant = [place in relevant for place in range(1, 41)]
        for depth in (10, 20):
            hits = sum(is_relevant[:depth])
            assert shown[f"HR@{depth}"] == (hits > 0)
            precision, recall = hits / depth, hits / len(relevant)
            assert shown[f"F1@{depth}"] == pytest.approx(2 * precision * recall / (precision + recall) if hits else 0.0)
            gains = [1 / math.log2(place + 2) for place in range(depth)]
            best = sum(gains[: min(depth, len(relevant))])
            dcg = sum(gain for gain, right in zip(gains, is_relevant, strict=False) if right)
            assert shown[f"NDCG@{depth}"] == pytest.approx(dcg / best)
            precisions = [sum(is_relevant[: place + 1]) / (place + 1) for place in range(depth) if is_relevant[place]]
            assert shown[f"MAP@{depth}"] == pytest.approx(sum(precisions) / len(relevant))
        others = [place for place in range(1, 41) if place not in relevant]
        pairs = [relevant_place < other for relevant_place in relevant for other in others]
        assert shown["AUC"] == pytest.approx(sum(pairs) / len(pairs))


@given(RANKS, st.randoms(use_true_random=False))
def test_the_order_of_targets_within_a_list_does_not_matter(lists: list[set[int]], random: object) -> None:
    ranks = [list(map(float, one)) for one in lists]
    expected = measures(judged(ranks))
    for one in ranks:
        random.shuffle(one)  # type: ignore[attr-defined]
    np.testing.assert_allclose(measures(judged(ranks)), expected)


def test_only_some_targets_leave_lists_without_any_out() -> None:
    whole = judged([[1.0, 5.0], [7.0], [2.0]])
    part = whole.only(np.array([False, True, False, True]))
    assert part.lists_T.tolist() == [0, 1]
    assert measures(part)[:, ALL_METRICS.index("MRR@10")].tolist() == [1 / 5, 1 / 2]


@given(st.integers(1, 25))
def test_the_gain_of_one_rank_is_that_of_its_list(rank: int) -> None:
    found = values_of([[float(rank)]])
    assert ndcg10_of(float(rank)) == pytest.approx(found["NDCG@10"])
    assert ndcg10_of(NAN) == 0.0


def test_resampling_draws_whole_users() -> None:
    # Two users with constant values: a resample has both, or one of them twice, and nothing in between.
    values = np.array([[0.0], [0.0], [0.0], [1.0]])
    means = set(np.round(user_bootstrap(values, ["a", "a", "a", "b"], num_resamples=200)[:, 0], 6).tolist())
    assert means == {0.0, 0.25, 1.0}


def test_the_same_users_are_drawn_for_two_methods() -> None:
    noise = np.random.default_rng(0).random((40, 1))
    users = [f"u{number % 9}" for number in range(40)]
    difference = user_bootstrap(noise + 0.125, users) - user_bootstrap(noise, users)
    np.testing.assert_allclose(difference, 0.125)


def test_an_interval_holds_the_middle_of_the_resamples() -> None:
    interval = interval_of(0.4, np.arange(1001) / 1000)
    assert (interval.mean, interval.low, interval.high) == (0.4, 0.025, 0.975)
