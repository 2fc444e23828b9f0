"""The comparison of two user vectors, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.stages.drift import DriftCheck, compare, cosine_of, is_checked, overlap_of, summary_of

NO_ITEMS = np.zeros((0, 2), np.float32)


def vector(*values: float) -> np.ndarray:
    """A float32 vector in few words."""
    return np.array(values, dtype=np.float32)


def items_on_a_circle(num_items: int) -> np.ndarray:
    """Items at whole degrees from 0 on, shape (num_items, 2)."""
    angles = np.deg2rad(np.arange(num_items))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("first", "second", "cosine"),
    [
        ((3, 4), (3, 4), 1.0),
        ((3, 4), (30, 40), 1.0),
        ((1, 0), (0, 2), 0.0),
        ((1, 0), (-5, 0), -1.0),
        ((3, 4), (4, 3), 24 / 25),
        ((0, 0), (0, 0), 1.0),
        ((0, 0), (1, 0), 0.0),
    ],
)
def test_cosines(first: tuple[float, ...], second: tuple[float, ...], cosine: float) -> None:
    assert cosine_of(vector(*first), vector(*second)) == pytest.approx(cosine, abs=1e-7)


def test_a_turned_vector_loses_the_items_that_it_turned_away_from() -> None:
    # The ten nearest to 0 degrees are 0 to 9; the ten nearest to 12.4 degrees are 8 to 17.
    turned = vector(np.cos(np.deg2rad(12.4)), np.sin(np.deg2rad(12.4)))
    assert overlap_of(vector(1, 0), turned, items_on_a_circle(90)) == 0.2
    assert overlap_of(vector(1, 0), vector(7, 0), items_on_a_circle(90)) == 1.0
    assert overlap_of(vector(1, 0), vector(0, 1), items_on_a_circle(90)) == 0.0


def test_few_items_are_all_in_common_and_none_are_too() -> None:
    assert overlap_of(vector(1, 0), vector(0, 1), items_on_a_circle(4)) == 1.0
    assert overlap_of(vector(1, 0), vector(0, 1), NO_ITEMS) == 1.0


def test_equal_items_are_taken_in_their_order() -> None:
    items_ID = np.ones((30, 2), np.float32)
    assert overlap_of(vector(1, 0), vector(0, 1), items_ID) == 1.0


def test_several_checks_in_a_few_numbers() -> None:
    checks = [DriftCheck("a", 3, 1.0, 1.0), DriftCheck("b", 4, 0.5, 0.8), DriftCheck("a", 5, 0.75, 0.3)]
    found = summary_of(checks)
    assert (found.num_checks, found.num_users, found.num_slices) == (3, 2, 12)
    assert (found.mean_cosine, found.min_cosine) == (0.75, 0.5)
    assert found.mean_overlap_10 == pytest.approx(0.7)


def test_a_check_says_what_was_compared() -> None:
    assert compare("a", 7, vector(3, 4), vector(3, 4), items_on_a_circle(20)) == DriftCheck("a", 7, 1.0, 1.0)


@given(key=st.binary(max_size=9))
def test_nobody_and_everybody(key: bytes) -> None:
    assert not is_checked(key, 0.0)
    assert is_checked(key, 1.0)


def test_a_tenth_of_the_users_is_a_tenth() -> None:
    assert 320 < sum(is_checked(b"user-%d" % number, 0.1) for number in range(4000)) < 480
