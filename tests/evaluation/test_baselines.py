"""The contract of baselines, on every one of them, and each one's numbers worked out by hand or slowly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.sasrec import SasrecConfig
from stream_app.evaluation.baselines import Baseline, Panel, Popularity, Smoothed, SmoothedStatistic
from stream_app.evaluation.families import histories_of, is_target
from stream_app.evaluation.frozen_sasrec import trained_on_all
from stream_app.evaluation.neighbours import ItemNeighbours, SessionNeighbours, Sessions
from stream_app.evaluation.questions import UNKNOWN_ROW, Histories, Question
from stream_app.evaluation.statistics import POOL_ITEMS, DecayedPopularity, Statistic, Transitions
from stream_app.records import Event
from tests.evaluation.cases import event, logs, walked_log
from tests.examples import examples

PAST = walked_log(120, num_items=7, num_users=6, seed=4)
FROZEN = histories_of(PAST)

TINY = SasrecConfig(dim=8, num_layers=1, num_heads=1, window=4, max_epochs=1)

MAKERS: dict[str, Callable[[], Baseline]] = {
    "popularity": lambda: Popularity("p", DecayedPopularity(3600)),
    "transitions": lambda: SmoothedStatistic("t", Transitions(None), DecayedPopularity(3600), 1.0),
    "transitions, tiered": lambda: SmoothedStatistic("t", Transitions(None), DecayedPopularity(900), 1e-6),
    "transitions, decayed": lambda: SmoothedStatistic("d", Transitions(3600), DecayedPopularity(3600), 10.0),
    "transitions alone": lambda: SmoothedStatistic("a", Transitions(3600)),
    "item-kNN": lambda: SmoothedStatistic("i", _item_neighbours(), DecayedPopularity(86400), 1e-6),
    "session-kNN": lambda: SmoothedStatistic("s", SessionNeighbours(Sessions()), DecayedPopularity(3600), 1.0),
    "session-kNN, by age": lambda: SmoothedStatistic("y", SessionNeighbours(Sessions(), 3600), DecayedPopularity(900)),
    "SASRec": lambda: SmoothedStatistic("n", trained_on_all(PAST, TINY, lambda line: None)),
}


def _item_neighbours() -> Statistic:
    return ItemNeighbours.family(FROZEN.items_by_user(), (3,))[0]


SLOW = {"SASRec"}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MAKERS], ids=str
)
def maker(request: pytest.FixtureRequest) -> Callable[[], Baseline]:
    found: Callable[[], Baseline] = MAKERS[request.param]
    return found


def asked(baseline: Baseline, events: Sequence[Event]) -> list[tuple[list[int], str, int]]:
    """The whole order, every candidate's rank and the number ranked, at each target of a log."""
    panel, histories, answers = Panel([baseline]), Histories(), []
    for one in PAST:
        panel.take(histories.take(one))
    for one in events:
        later = Event(user_id=one.user_id, item_id=one.item_id, type=one.type, ts=one.ts + 10**9)
        if is_target(histories, later):
            question = histories.question(later.user_id, later.ts)
            ranking = baseline.ranking(question)
            unseen = np.flatnonzero(~question.seen_N).tolist()
            ranks = [ranking.rank_of(row) for row in unseen]
            answers.append((ranking.top(1000).tolist(), repr(ranks), ranking.num_ranked))
            assert math.isnan(ranking.rank_of(UNKNOWN_ROW))
            check_order(ranking.top(1000).tolist(), dict(zip(unseen, ranks, strict=True)), ranking.num_ranked)
            assert ranking.top(3).tolist() == ranking.top(1000).tolist()[:3]
        panel.take(histories.take(later))
    return answers


def check_order(order: list[int], ranks: dict[int, float], num_ranked: int) -> None:
    """The order holds exactly the ranked candidates; a rank is the last place among those that tie."""
    assert len(order) == num_ranked == sum(not math.isnan(rank) for rank in ranks.values())
    assert len(set(order)) == len(order)
    assert set(order) <= ranks.keys()
    ranked = [ranks[row] for row in order]
    assert ranked == sorted(ranked)
    for rank in ranked:
        assert rank == sum(other <= rank for other in ranked)


@examples(15)
@given(st.data())
def test_orders_and_ranks_agree_and_leave_out_what_was_seen(maker: Callable[[], Baseline], data: st.DataObject) -> None:
    asked(maker(), data.draw(logs(max_size=15)))


def test_the_same_log_gives_the_same_answers(maker: Callable[[], Baseline]) -> None:
    later = walked_log(40, num_items=9, num_users=6, seed=9)
    assert asked(maker(), later) == asked(maker(), later)


def test_asking_changes_nothing(maker: Callable[[], Baseline]) -> None:
    baseline, histories = maker(), Histories()
    panel = Panel([baseline])
    for one in PAST:
        panel.take(histories.take(one))
    question = histories.question("u0", PAST[-1].ts)
    first = baseline.ranking(question).top(9).tolist()
    baseline.ranking(histories.question("u1", PAST[-1].ts)).top(9)
    assert baseline.ranking(histories.question("u0", PAST[-1].ts)).top(9).tolist() == first


def slow_shares(events: Sequence[Event], half_life_s: float, rows: Histories, num_items: int) -> list[float]:
    """Popularity shares, summed one by one."""
    first: dict[tuple[str, str], int] = {}
    for one in events:
        first.setdefault((one.user_id, one.item_id), one.ts)
    now = events[-1].ts
    sums = [0.0] * num_items
    for (_, item), ts in first.items():
        sums[rows.item_row(item)] += 2 ** (-(now - ts) / 1000 / half_life_s)
    return [value / sum(sums) for value in sums]


@examples(60)
@given(logs(), st.sampled_from([1800.0, 86400.0]))
def test_popularity_is_the_decayed_number_of_users(events: list[Event], half_life_s: float) -> None:
    popularity, histories = DecayedPopularity(half_life_s), Histories()
    for one in events:
        popularity.take(histories.take(one))
    found = popularity.shares(np.arange(histories.num_items))
    assert found.tolist() == pytest.approx(slow_shares(events, half_life_s, histories, histories.num_items))


def test_popularity_keeps_its_order_when_old_shares_vanish() -> None:
    # After a thousand half-lives every share of the old items is zero in floating point; the order is not.
    events = [event("a", "old", 0), event("b", "newer", 2), event("c", "newest", 20_000), event("d", "x", 20_001)]
    popularity, histories = DecayedPopularity(60.0), Histories()
    for one in events:
        popularity.take(histories.take(one))
    ranking = Popularity("p", popularity).ranking(histories.question("d", events[-1].ts))
    order = [histories.item_ids[row] for row in ranking.top(9)]
    assert order == ["newest", "newer", "old"]
    assert [ranking.rank_of(histories.item_row(item)) for item in order] == [1, 2, 3]


def test_the_pool_of_popular_items_never_misses_one() -> None:
    generator = np.random.default_rng(2)
    popularity, histories = DecayedPopularity(600.0), Histories()
    for number in range(12 * POOL_ITEMS):
        item = int(generator.integers(0, 6 * POOL_ITEMS))
        popularity.take(histories.take(event(f"u{number % 50}", f"i{item}", number / 10)))
    question = histories.question("u3", histories_end(number))
    scores = popularity.shares(np.arange(histories.num_items))
    expected = sorted(np.flatnonzero(~question.seen_N).tolist(), key=lambda row: (-scores[row], row))[:700]
    assert popularity.top(700, question, np.zeros(0, dtype=np.int64)).tolist() == expected


def histories_end(number: int) -> int:
    """The time of an event of the log above."""
    return event("u", "i", number / 10).ts


def test_transitions_count_the_next_new_item_over_repeats() -> None:
    transitions, histories = Transitions(None), Histories()
    # a: p, p again, q; b: p, q, p again (no transition: p is not new), r. The last before r is p.
    for one in [
        event("a", "p", 0),
        event("a", "p", 1),
        event("a", "q", 2),
        event("b", "p", 3),
        event("b", "q", 4),
        event("b", "p", 5),
        event("b", "r", 6),
        event("c", "p", 7),
    ]:
        transitions.take(histories.take(one))
    rows, scores = transitions.scores(histories.question("c", event("c", "p", 8).ts))
    assert {histories.item_ids[row]: score for row, score in zip(rows, scores, strict=True)} == {"q": 2.0, "r": 1.0}


def test_decayed_transitions_halve_after_their_half_life() -> None:
    transitions, histories = Transitions(3600.0), Histories()
    for one in [event("a", "p", 0), event("a", "q", 0), event("b", "p", 60)]:
        transitions.take(histories.take(one))
    _, scores = transitions.scores(histories.question("b", event("b", "p", 60).ts))
    assert scores.tolist() == pytest.approx([0.5])


def test_smoothing_adds_the_weighted_share() -> None:
    popularity, histories = DecayedPopularity(1e12), Histories()
    for user, item in [("a", "p"), ("b", "p"), ("b", "q"), ("c", "r"), ("d", "x")]:
        popularity.take(histories.take(event(user, item, 0)))
    question = histories.question("d", event("d", "x", 0).ts)
    row = histories.item_row
    # Shares p 2/5, q 1/5, r 1/5. With weight 10: p 4, q 2 + 3, r 2.
    ranking = Smoothed(question, np.array([row("q")]), np.array([3.0]), popularity, 10.0)
    assert [histories.item_ids[one] for one in ranking.top(9)] == ["q", "p", "r"]
    assert [ranking.rank_of(row(item)) for item in "qpr"] == [1, 2, 3]
    # With 2 q and p tie at 4, which counts against both.
    tied = Smoothed(question, np.array([row("q")]), np.array([2.0]), popularity, 10.0)
    assert [tied.rank_of(row(item)) for item in "qpr"] == [2, 2, 3]


def test_item_neighbours_are_cosines_of_their_users() -> None:
    histories = histories_of(
        [
            event(user, item, 0)
            for user, item in [("a", "p"), ("a", "q"), ("b", "p"), ("b", "q"), ("c", "p"), ("c", "r")]
        ]
    )
    (neighbours,) = ItemNeighbours.family(histories.items_by_user(), (1,))
    histories.take(event("d", "p", 1))
    rows, scores = neighbours.scores(histories.question("d", 0))
    found = {histories.item_ids[row]: score for row, score in zip(rows, scores, strict=True)}
    assert found == pytest.approx({"q": 2 / math.sqrt(3 * 2), "r": 1 / math.sqrt(3 * 1)})


def test_item_neighbours_of_more_items_are_weighted_by_place() -> None:
    histories = histories_of([event("a", item, place) for place, item in enumerate("pqr")])
    (neighbours,) = ItemNeighbours.family(histories.items_by_user(), (2,))
    for minute, item in enumerate("pq"):
        histories.take(event("d", item, 10 + minute))
    rows, scores = neighbours.scores(histories.question("d", 0))
    # One user has all three, so every cosine is 1; q votes with 1, p with 1/2.
    assert ([histories.item_ids[row] for row in rows], scores.tolist()) == (["r"], [1.5])


def sessions_of(events: Sequence[Event], age_half_life_s: float | None = None) -> tuple[SessionNeighbours, Histories]:
    neighbours, histories = SessionNeighbours(Sessions(), age_half_life_s), Histories()
    for one in events:
        neighbours.take(histories.take(one))
    return neighbours, histories


SESSIONS = [event("a", "p", 0), event("a", "q", 1), event("b", "p", 2), event("b", "r", 3), event("b", "q", 4)]


def votes(neighbours: SessionNeighbours, histories: Histories, question: Question) -> dict[str, float]:
    rows, scores = neighbours.scores(question)
    return {histories.item_ids[row]: score for row, score in zip(rows.tolist(), scores.tolist(), strict=True)}


def test_sessions_that_share_items_vote() -> None:
    neighbours, histories = sessions_of([*SESSIONS, event("c", "p", 5), event("c", "r", 6)])
    question = histories.question("c", event("c", "q", 7).ts)
    # Running: r (newest, 1), p (1/2). a shares p: 1/2, over the root of 2; b shares both: 3/2, over the root of 3.
    expected = {"q": 0.5 / math.sqrt(2) + 1.5 / math.sqrt(3)}
    assert votes(neighbours, histories, question) == pytest.approx(expected)


def test_a_session_that_is_over_is_represented_by_its_last_item() -> None:
    neighbours, histories = sessions_of([*SESSIONS, event("c", "r", 5), event("c", "p", 6)])
    later = histories.question("c", event("c", "q", 60).ts)
    # Only p counts now; c's own session is over, and votes like any other, for nothing that c has not seen.
    assert votes(neighbours, histories, later) == pytest.approx({"q": 1 / math.sqrt(2) + 1 / math.sqrt(3)})


def test_votes_are_halved_with_the_age_of_an_item() -> None:
    plain, _ = sessions_of([*SESSIONS, event("c", "p", 5)])
    aged, histories = sessions_of([*SESSIONS, event("c", "p", 5)], age_half_life_s=60.0)
    question = histories.question("c", event("c", "q", 5).ts)
    # q is 4 minutes old, r 2.
    before = votes(plain, histories, question)
    assert votes(aged, histories, question) == pytest.approx({"q": before["q"] / 16, "r": before["r"] / 4})


def test_statistics_that_share_sessions_count_a_touch_once() -> None:
    sessions = Sessions()
    shared = [SessionNeighbours(sessions, 3600.0), SessionNeighbours(sessions)]
    alone = [SessionNeighbours(Sessions(), 3600.0)]
    histories = Histories()
    for one in [*SESSIONS, event("c", "p", 5)]:
        touch = histories.take(one)
        for neighbours in (*shared, *alone):
            neighbours.take(touch)
    question = histories.question("c", event("c", "q", 6).ts)
    assert votes(shared[0], histories, question) == votes(alone[0], histories, question)


def test_a_panel_lets_what_is_shared_learn_once() -> None:
    prior = DecayedPopularity(3600.0)
    panel = Panel([Popularity("p", prior), SmoothedStatistic("t", Transitions(None), prior, 1.0)])
    histories = Histories()
    for user, item in [("a", "p"), ("b", "q"), ("b", "p")]:
        panel.take(histories.take(event(user, item, 0)))
    assert prior.shares(np.array([0, 1])).tolist() == pytest.approx([2 / 3, 1 / 3])
