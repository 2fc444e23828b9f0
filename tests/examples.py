"""How many examples Hypothesis tries: what a test asks for, times what the profile says."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import HealthCheck, settings

USUAL: Final = 100
"""Examples of a test that asks for no number, in the profile `whole`."""

FEWEST: Final = 5
"""A test that asks for so many or more gets no fewer, in any profile."""

PROFILES: Final = {"quick": USUAL // 10, "whole": USUAL, "long": USUAL * 20}
"""Profiles, and what `USUAL` becomes in them: for `make check`, `make test`, and a night."""


def register_profiles() -> None:
    """Make the profiles known, and load `whole`."""
    for name, max_examples in PROFILES.items():
        # Hypothesis also fails tests by the clock; a busy machine is no fault of theirs.
        settings.register_profile(
            name, deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=max_examples
        )
    settings.load_profile("whole")


def num_examples(wanted: int) -> int:
    """Examples of a test that asks for `wanted` in the profile `whole`."""
    return max(min(wanted, FEWEST), wanted * settings().max_examples // USUAL)


def examples(wanted: int = USUAL, **others: Any) -> settings:
    """Settings of a test that asks for `wanted` examples; a number given to Hypothesis would be for all profiles.

    Args:
        wanted: See `num_examples`.
        others: Further settings.
    """
    return settings(max_examples=num_examples(wanted), **others)
