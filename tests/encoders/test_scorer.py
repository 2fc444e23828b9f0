"""The listwise scorer: right by hand, right against a slow oracle, and blind to what cannot matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.contract import TooLittleDataError
from encoders.scorer import fit_listwise

Lists = tuple[np.ndarray, np.ndarray, np.ndarray]


def made_up_lists(seed: int, num_groups: int = 400) -> Lists:
    """Lists of 2 to 9 candidates, chosen from by the weights (2, -1, 0) plus Gumbel noise."""
    generator = np.random.default_rng(seed)
    starts_G1 = np.concatenate([[0], np.cumsum(generator.integers(2, 10, num_groups))]).astype(np.int64)
    features_CF = generator.standard_normal((int(starts_G1[-1]), 3))
    utilities_C = features_CF @ np.array([2.0, -1.0, 0.0]) + generator.gumbel(size=len(features_CF))
    groups = np.split(utilities_C, starts_G1[1:-1])
    return features_CF, starts_G1, np.array([int(group.argmax()) for group in groups], dtype=np.int64)


def mean_loss(features_CF: np.ndarray, starts_G1: np.ndarray, positives_G: np.ndarray, weights_F: np.ndarray) -> float:
    """The loss by its definition, one group at a time."""
    losses = []
    for start, end, positive in zip(starts_G1[:-1], starts_G1[1:], positives_G, strict=True):
        scores = features_CF[start:end] @ weights_F
        losses.append(np.log(np.exp(scores).sum()) - scores[positive])
    return float(np.mean(losses))


def test_finds_the_weights_that_chose() -> None:
    """Choices by utility plus Gumbel noise follow the softmax exactly, so its weights must come back."""
    fitted = fit_listwise(*made_up_lists(0, num_groups=3000), l2=1e-6)
    assert fitted.weights_F == pytest.approx([2.0, -1.0, 0.0], abs=0.15)
    assert fitted.loss < fitted.loss_before - 0.5


def test_loss_is_the_definition_and_at_its_minimum() -> None:
    lists = made_up_lists(1)
    fitted = fit_listwise(*lists, l2=0.0)
    assert fitted.loss == pytest.approx(mean_loss(*lists, fitted.weights_F), abs=1e-9)
    assert fitted.loss_before == pytest.approx(mean_loss(*lists, np.zeros(3)), abs=1e-9)
    for feature in range(3):
        for step in (-0.01, 0.01):
            moved_F = fitted.weights_F + step * (np.arange(3) == feature)
            assert mean_loss(*lists, moved_F) > fitted.loss


@settings(max_examples=15, deadline=None)
@given(
    scales=st.lists(st.floats(0.001, 1000.0), min_size=3, max_size=3),
    shifts=st.lists(st.floats(-50.0, 50.0), min_size=3, max_size=3),
)
def test_units_of_the_features_do_not_matter(scales: list[float], shifts: list[float]) -> None:
    features_CF, starts_G1, positives_G = made_up_lists(2, num_groups=100)
    plain = fit_listwise(features_CF, starts_G1, positives_G)
    rescaled = fit_listwise(features_CF * scales + shifts, starts_G1, positives_G)
    assert rescaled.weights_F * scales == pytest.approx(plain.weights_F, abs=1e-3)


def test_same_input_same_bytes_and_input_untouched() -> None:
    lists = made_up_lists(3)
    copies = [array.copy() for array in lists]
    first, second = (fit_listwise(*lists, seed=4) for _ in range(2))
    assert first.weights_F.tobytes() == second.weights_F.tobytes()
    assert fit_listwise(*lists, seed=5).weights_F == pytest.approx(first.weights_F, abs=1e-3)
    assert all(np.array_equal(old, new) for old, new in zip(copies, lists, strict=True))


def test_a_feature_without_spread_gets_no_weight() -> None:
    features_CF, starts_G1, positives_G = made_up_lists(6)
    features_CF[:, 1] = 0.1
    fitted = fit_listwise(features_CF, starts_G1, positives_G)
    assert fitted.weights_F[1] == 0.0 and np.isfinite(fitted.weights_F).all()


def test_the_penalty_shrinks() -> None:
    lists = made_up_lists(7)
    norms = [float(np.linalg.norm(fit_listwise(*lists, l2=l2).weights_F)) for l2 in (0.0, 0.1, 10.0)]
    assert norms[0] > norms[1] > norms[2]


def test_huge_scores_do_not_overflow() -> None:
    """One feature decides every list, so without a penalty the weights only grow; they stay finite."""
    starts_G1 = np.arange(0, 41, 2)
    features_CF = np.tile([[1e6], [-1e6]], (20, 1))
    fitted = fit_listwise(features_CF, starts_G1, np.zeros(20, dtype=np.int64), l2=0.0)
    assert np.isfinite(fitted.weights_F).all() and 0 <= fitted.loss < 1e-3


def test_refuses_what_cannot_be_fitted() -> None:
    features_CF, starts_G1, positives_G = made_up_lists(8, num_groups=5)
    with pytest.raises(TooLittleDataError, match="1 groups with a positive, expected at least 2"):
        fit_listwise(features_CF[: starts_G1[1]], starts_G1[:2], positives_G[:1])
    with pytest.raises(ValueError, match="positives_G must lie within"):
        fit_listwise(features_CF, starts_G1, positives_G + 10)
    with pytest.raises(ValueError, match="group_starts_G1 must rise"):
        fit_listwise(features_CF, starts_G1 + 1, positives_G)
    with pytest.raises(ValueError, match="finite numbers"):
        fit_listwise(features_CF * np.nan, starts_G1, positives_G)
