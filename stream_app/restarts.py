"""When a worker that ended is started again: a function of the times at which things happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SETTINGS_EXIT_CODE: Final = 2
"""Exit code of a worker whose settings are wrong: starting it again with the same ones cannot help."""


@dataclass(frozen=True)
class RestartRule:
    """How patient the supervisor is.

    Args:
        first_delay_s: Pause before the first restart; a role whose broker blinked is back at once.
        max_delay_s: Each further pause is twice as long, up to this one.
        healthy_after_s: A worker that was ready this long starts the count anew when it ends.
        max_failed_starts: A worker that was never ready is given up after so many starts.
    """

    first_delay_s: float = 0.2
    max_delay_s: float = 10.0
    healthy_after_s: float = 60.0
    max_failed_starts: int = 3


@dataclass(frozen=True)
class Life:
    """One run of a worker, by a monotonic clock in seconds; `ready_s` is None where it was never ready."""

    started_s: float
    ready_s: float | None
    ended_s: float
    exit_code: int = 1


@dataclass(frozen=True)
class Standing:
    """What is remembered of earlier lives: how many ended badly in a row, and whether any was ready."""

    num_deaths: int = 0
    was_ready: bool = False


def after_death(standing: Standing, life: Life, rule: RestartRule) -> tuple[Standing, float | None]:
    """What follows from the end of a life that nobody asked for.

    Returns:
        The new standing, and the pause in seconds before the next start; None: give the worker up.

    >>> after_death(Standing(), Life(0.0, 1.0, 2.0), RestartRule())
    (Standing(num_deaths=1, was_ready=True), 0.2)
    """
    was_healthy = life.ready_s is not None and life.ended_s - life.ready_s >= rule.healthy_after_s
    num_deaths = 1 if was_healthy else standing.num_deaths + 1
    now = Standing(num_deaths, standing.was_ready or life.ready_s is not None)
    hopeless = life.exit_code == SETTINGS_EXIT_CODE or num_deaths >= rule.max_failed_starts
    if hopeless and not now.was_ready:
        return now, None
    # The exponent is bounded, because a worker may die for weeks.
    delay_s = rule.first_delay_s * 2.0 ** min(num_deaths - 1, 60)
    return now, min(delay_s, rule.max_delay_s)
