"""The online scorer: what it learns, that the same choices give the same bytes, and that it keeps little."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.stages import learning
from stream_app.stages.learning import KEPT_CHOICES, Example, Scorer, ScorerState, initial_state, learn, sample, scores
from tests.examples import examples

NAMES = ["first", "second", "noise", "user"]
BLANK = Scorer(feature_names=NAMES, weights=[0.0] * len(NAMES))

Rule = npt.NDArray[np.float64]


def choices(seed: int, num_choices: int, rule_F: Rule) -> list[Example]:
    """Choices of people who take what `rule_F` weighs most, with some chance."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(num_choices):
        features_CF = generator.standard_normal((20, len(NAMES))) * [1.0, 5.0, 1.0, 1.0] + [0.0, 40.0, 0.0, 0.0]
        features_CF[:, 3] = generator.standard_normal()
        taken = int(np.argmax(features_CF @ rule_F + generator.gumbel(size=20)))
        made.append(Example(features_CF, taken))
    return made


def ndcg(scorer: Scorer, examples: Sequence[Example]) -> float:
    """NDCG@10 of the taken."""
    gains = []
    for example in examples:
        values = scores(scorer, example.features_CF)
        rank = int((values >= values[example.chosen]).sum())
        gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    return float(np.mean(gains))


def learned(examples: Sequence[Example], state: ScorerState | None = None) -> ScorerState:
    """After the examples, a hundred at a time."""
    state = state or initial_state(BLANK)
    for start in range(0, len(examples), 100):
        state = learn(state, examples[start : start + 100])
    return state


def test_without_choices_nothing_changes() -> None:
    state = initial_state(BLANK)
    assert learn(state, []) is state


def test_a_scorer_without_a_network_is_a_weighted_sum() -> None:
    scorer = Scorer(feature_names=["a", "b"], weights=[2.0, -1.0])
    assert scores(scorer, np.array([[1.0, 1.0], [0.5, 3.0]])).tolist() == [1.0, -2.0]


def test_a_fresh_state_scores_as_the_scorer_it_starts_from() -> None:
    start = Scorer(feature_names=NAMES, weights=[1.0, -0.5, 0.0, 2.0])
    features_CF = choices(0, 1, np.ones(4))[0].features_CF
    np.testing.assert_allclose(
        scores(learning.scorer_of(initial_state(start)), features_CF), scores(start, features_CF)
    )


def test_it_learns_what_people_take() -> None:
    rule_F = np.array([2.0, 0.4, 0.0, 0.0])
    scorer = learning.scorer_of(learned(choices(1, 2000, rule_F)))
    unseen = choices(2, 500, rule_F)
    best = ndcg(Scorer(feature_names=NAMES, weights=rule_F.tolist()), unseen)
    assert ndcg(scorer, unseen) > 0.95 * best
    assert ndcg(BLANK, unseen) < 0.5 * best


@pytest.mark.slow
def test_it_learns_that_a_feature_counts_for_some_users_only() -> None:
    """What no weighted sum can: the sign of the first feature is that of the user's."""

    def flipped(examples: list[Example]) -> list[Example]:
        made = []
        for example in examples:
            sign = np.sign(example.features_CF[0, 3])
            features_CF = example.features_CF * [sign, 1.0, 1.0, 1.0]
            made.append(Example(features_CF, example.chosen))
        return made

    rule_F = np.array([2.0, 0.0, 0.0, 0.0])
    scorer = learning.scorer_of(learned(flipped(choices(3, 4000, rule_F))))
    unseen = choices(4, 500, rule_F)
    best = ndcg(Scorer(feature_names=NAMES, weights=rule_F.tolist()), unseen)
    assert ndcg(scorer, flipped(unseen)) > 0.85 * best


@pytest.mark.slow
def test_it_is_back_within_an_hour_after_a_shift() -> None:
    """Four scorer-epochs of a quarter of an hour with 250 choices each after the rule turned round."""
    old_F, new_F = np.array([2.0, 0.0, 0.0, 0.0]), np.array([-2.0, 0.3, 0.0, 0.0])
    state = learned(choices(5, 3000, old_F))
    unseen = choices(6, 500, new_F)
    assert ndcg(learning.scorer_of(state), unseen) < 0.3
    for quarter in range(4):
        state = learn(state, choices(10 + quarter, 250, new_F))
    fitted = learning.scorer_of(learned(choices(7, 3000, new_F)))
    assert ndcg(learning.scorer_of(state), unseen) > 0.9 * ndcg(fitted, unseen)


def test_the_same_choices_give_the_same_bytes() -> None:
    examples = choices(8, 300, np.array([1.0, 0.1, 0.0, 0.0]))
    assert msgspec.msgpack.encode(learned(examples)) == msgspec.msgpack.encode(learned(examples))


def test_a_kept_state_goes_on_as_if_it_had_never_been_put_away() -> None:
    examples = choices(9, 400, np.array([1.0, 0.1, 0.0, 0.0]))
    stored = msgspec.msgpack.encode(learned(examples[:200]))
    taken_up = msgspec.msgpack.decode(stored, type=ScorerState)
    assert learned(examples[200:], taken_up) == learned(examples)


def test_what_is_kept_is_bounded() -> None:
    state = learned(choices(11, KEPT_CHOICES + 300, np.ones(4)))
    assert len(state.kept) == KEPT_CHOICES
    assert len(msgspec.msgpack.encode(state)) < 400_000


def test_new_means_and_spreads_change_no_score() -> None:
    """A feature that doubles its spread is rescaled; what was learned of it stays."""
    state = learned(choices(12, 500, np.array([1.0, 0.2, 0.0, 0.0])))
    features_CF = choices(13, 1, np.ones(4))[0].features_CF
    before = scores(learning.scorer_of(state), features_CF)
    wide = [learning._kept(Example(one.features_CF * 3 + 7, one.chosen)) for one in choices(14, 50, np.ones(4))]
    after = scores(learning.scorer_of(learning._rescaled(state, wide)), features_CF)
    np.testing.assert_allclose(after - after[0], before - before[0], atol=1e-4)


def test_a_feature_that_comes_late_is_learned_like_any_other() -> None:
    """A vector that is known only from some day on: until then its feature is 0 for everybody."""
    rule_F = np.array([2.0, 0.4, 0.0, 0.0])
    early = [Example(one.features_CF * [0, 1, 1, 1], one.chosen) for one in choices(17, 1500, rule_F)]
    state = learned(choices(18, 1000, rule_F), learned(early))
    assert np.abs(np.array(learning.scorer_of(state).weights)).max() < 50
    unseen = choices(19, 500, rule_F)
    best = ndcg(Scorer(feature_names=NAMES, weights=rule_F.tolist()), unseen)
    assert ndcg(learning.scorer_of(state), unseen) > 0.9 * best


def test_a_feature_that_never_varies_does_no_harm() -> None:
    examples = [Example(one.features_CF * [1, 1, 0, 1], one.chosen) for one in choices(15, 300, np.ones(4))]
    scorer = learning.scorer_of(learned(examples))
    assert np.isfinite(scores(scorer, examples[0].features_CF)).all()


@given(st.integers(1, 120), st.integers(0, 30), st.integers(0, 10**6))
@examples(50)
def test_a_sample_keeps_the_chosen_and_no_row_twice(num_candidates: int, max_negatives: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    features_CF = np.round(generator.standard_normal((num_candidates, 5)), 1)
    features_CF[:, 0] = np.arange(num_candidates)  # so that rows can be told apart
    chosen = int(generator.integers(num_candidates))
    made = sample(features_CF, chosen, max_negatives)
    rows = [int(value) for value in made.features_CF[:, 0]]
    assert rows[made.chosen] == chosen
    assert len(rows) == len(set(rows)) == min(num_candidates, max_negatives + 1)
    assert (made.features_CF == features_CF[rows]).all()
    num_stood_for = len(rows) - made.num_spread + made.weight * made.num_spread
    assert num_stood_for == pytest.approx(num_candidates if max_negatives else 1)


def plain_sample(features_CF: npt.NDArray[np.float64], chosen: int, max_negatives: int) -> list[int]:
    """Oracle: the rows of a sample, found one after the other."""
    others = [row for row in range(len(features_CF)) if row != chosen]
    if len(others) <= max_negatives:
        return [chosen, *others]
    ranked = [
        sorted(others, key=lambda row: (-features_CF[row, column], row)) for column in range(features_CF.shape[1])
    ]
    in_turn = dict.fromkeys(row for ranks in zip(*ranked, strict=True) for row in ranks)
    foremost = sorted(list(in_turn)[: max_negatives // 2])
    rest = [row for row in others if row not in foremost]
    places = np.linspace(0, len(rest) - 1, max_negatives - len(foremost)).astype(np.int64)
    return [chosen, *foremost, *(rest[place] for place in places)]


@given(st.integers(1, 90), st.integers(0, 30), st.integers(1, 5), st.integers(0, 10**6))
@examples(50)
def test_a_sample_is_what_sorting_all_rows_by_each_feature_gives(
    num_candidates: int, max_negatives: int, num_values: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    # Few different values, so that many rows tie and features name the same ones.
    features_CF = generator.integers(num_values, size=(num_candidates, 4)).astype(np.float64)
    features_CF[:, 3] = np.arange(num_candidates)
    chosen = int(generator.integers(num_candidates))
    made = sample(features_CF, chosen, max_negatives)
    assert made.features_CF[:, 3].astype(int).tolist() == plain_sample(features_CF, chosen, max_negatives)


def test_a_row_that_counts_three_times_teaches_what_three_rows_do() -> None:
    generator = np.random.default_rng(8)
    features_CF = generator.standard_normal((5, 4))
    state = initial_state(Scorer(feature_names=NAMES, weights=[0.0] * 4))
    parameters = generator.standard_normal(len(np.frombuffer(state.parameters))) * 0.3
    weighted = Example(features_CF, 1, num_spread=2, weight=3.0)
    repeated = Example(np.concatenate([features_CF, features_CF[3:], features_CF[3:]]), 1)
    gradients = [learning._gradient(state, parameters, [learning._kept(one)]) for one in (weighted, repeated)]
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)
    assert np.abs(gradients[0]).max() > 0.01


def test_a_sample_has_what_each_feature_puts_first() -> None:
    features_CF = np.zeros((100, 3))
    features_CF[[17, 42, 77], [0, 1, 2]] = 1.0
    made = sample(features_CF, 5, 8)
    assert made.features_CF.sum(axis=0).tolist() == [1.0, 1.0, 1.0]


@given(st.integers(1, 60))
@examples(20)
def test_a_score_does_not_depend_on_other_candidates(num_candidates: int) -> None:
    scorer = learning.scorer_of(learned(choices(16, 100, np.ones(4))))
    features_CF = np.random.default_rng(0).standard_normal((60, 4))
    assert (
        scores(scorer, features_CF[:num_candidates]).tolist() == scores(scorer, features_CF)[:num_candidates].tolist()
    )
