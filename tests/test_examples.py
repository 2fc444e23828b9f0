"""Tests get as many examples as they ask for, in proportion to the profile, whatever number they ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.examples import FEWEST, PROFILES, examples, num_examples


@pytest.fixture(params=sorted(PROFILES))
def profile(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each profile, loaded for the test."""
    before = settings.get_current_profile_name()
    settings.load_profile(request.param)
    yield request.param
    settings.load_profile(before)


WANTED = {"quick": [2, 5, 5, 40], "whole": [2, 8, 50, 400], "long": [40, 160, 1000, 8000]}


def test_a_profile_is_for_all_tests_also_for_those_that_ask_for_a_number(profile: str) -> None:
    assert [num_examples(wanted) for wanted in WANTED["whole"]] == WANTED[profile]
    assert examples(50, derandomize=True).max_examples == WANTED[profile][2]
    assert num_examples(FEWEST) >= FEWEST


def test_no_test_fails_by_the_clock(profile: str) -> None:
    assert (settings().deadline, examples(7).deadline) == (None, None)
