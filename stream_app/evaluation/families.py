"""The baselines that always stand beside, and how their dials are chosen on the time before the split.

Popularity is shown at every half-life. Of every other family one member is shown: the one with the best NDCG@10 on the
tuning time, the last tenth of the events before the split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stream_app.evaluation.baselines import Baseline, Learner, Panel, Popularity, Smoothed, SmoothedStatistic
from stream_app.evaluation.neighbours import ItemNeighbours, SessionNeighbours, Sessions
from stream_app.evaluation.questions import Histories, Question
from stream_app.evaluation.statistics import DecayedPopularity, Statistic, Transitions
from stream_app.records import Event
from stream_app.stages.metrics import ndcg10_of
from stream_app.stages.scoring import half_life_name

POPULARITY_HALF_LIVES_S = (900.0, 3600.0, 21600.0, 86400.0, 604800.0)
"""From a news hour to a week of films."""

OTHER_HALF_LIVES_S = (3600.0, 21600.0, 86400.0, 604800.0)
"""Of transitions, and of an item's age."""

PRIOR_WEIGHTS = (1e-6, 1.0, 10.0, 100.0)
"""From breaking ties to deciding nearly everything."""

NUM_VOTERS = (1, 10)
"""Newest items of the user that vote in item-kNN."""

TUNING_SHARE = 0.1
"""Share of the events before the split, the last by time, on which dials are chosen."""

MAX_TUNING_TARGETS = 1500
"""Targets that dials are chosen on; of more, every n-th is taken. Standard error of NDCG@10 about .01."""


@dataclass(frozen=True)
class Dials:
    """A member of a family: which of its statistics, and how popularity smooths it."""

    statistic: int = 0
    prior: int = 1
    weight: float = 1e-6

    def told(self, family: Family) -> str:
        """In words."""
        name = half_life_name(POPULARITY_HALF_LIVES_S[self.prior])
        detail = family.details[self.statistic]
        return f"{detail + ', ' if detail else ''}prior {name} x {self.weight:g}"


@dataclass(frozen=True)
class Family:
    """Statistics of one kind that differ in a dial.

    `make` gives new ones from the histories frozen at a moment, and the sessions that families share.
    """

    name: str
    details: tuple[str, ...]
    make: Callable[[Histories, Sessions], Sequence[Statistic]]


def families() -> tuple[Family, ...]:
    """All of them, in the order of the table."""
    ages = tuple(f"half-life {half_life_name(value)}" for value in OTHER_HALF_LIVES_S)
    return (
        Family("last-item transitions", ("",), lambda _, __: [Transitions(None)]),
        Family(
            "last-item transitions, decayed", ages, lambda _, __: [Transitions(value) for value in OTHER_HALF_LIVES_S]
        ),
        Family("item-kNN, frozen at the split", tuple(f"{num} voting" for num in NUM_VOTERS), _item_neighbours),
        Family("session-kNN", ("",), lambda _, sessions: [SessionNeighbours(sessions)]),
        Family(
            "session-kNN, weighted by item age",
            ages,
            lambda _, sessions: [SessionNeighbours(sessions, value) for value in OTHER_HALF_LIVES_S],
        ),
    )


def _item_neighbours(frozen: Histories, _: Sessions) -> Sequence[Statistic]:
    return ItemNeighbours.family(frozen.items_by_user(), NUM_VOTERS)


def standard_panel(past: Sequence[Event], chosen: dict[str, Dials], more: Sequence[Baseline] = ()) -> Panel:
    """All baselines with the dials chosen, fresh; item-kNN is fitted to `past`.

    Args:
        past: All events before the split; the panel has not taken them yet.
        chosen: By family name, see `choose_dials`.
        more: Further baselines.
    """
    frozen = histories_of(past)
    priors, sessions = _priors(), Sessions()
    baselines: list[Baseline] = [
        Popularity(f"popularity, half-life {half_life_name(prior.half_life_s)}", prior) for prior in priors
    ]
    for family in families():
        dials = chosen.get(family.name, Dials())
        statistic = family.make(frozen, sessions)[dials.statistic]
        baselines.append(SmoothedStatistic(family.name, statistic, priors[dials.prior], dials.weight))
    return Panel([*baselines, *more])


def choose_dials(past: Sequence[Event]) -> dict[str, Dials]:
    """The best member of every family on the last tenth of `past`, by family name; defaults where nothing tells."""
    start = int(len(past) * (1 - TUNING_SHARE))
    frozen = histories_of(past[:start])
    priors, sessions = _priors(), Sessions()
    statistics = {family.name: family.make(frozen, sessions) for family in families()}
    learners: list[Learner] = [*priors, *(one for members in statistics.values() for one in members)]
    sums: dict[tuple[str, Dials], float] = {}
    every = max(1, (len(past) - start) // (2 * MAX_TUNING_TARGETS))
    histories = Histories()
    for number, event in enumerate(past):
        if number >= start and number % every == 0 and is_target(histories, event):
            question = histories.question(event.user_id, event.ts)
            row = histories.item_row(event.item_id)
            for name, members in statistics.items():
                for place, member in enumerate(members):
                    _add_gains(sums, name, place, member, priors, question, row)
        touch = histories.take(event)
        for learner in learners:
            learner.take(touch)
    best: dict[str, Dials] = {}
    for name, dials in sums:
        if name not in best or sums[name, dials] > sums[name, best[name]]:
            best[name] = dials
    return best


def _add_gains(
    sums: dict[tuple[str, Dials], float],
    name: str,
    place: int,
    statistic: Statistic,
    priors: Sequence[DecayedPopularity],
    question: Question,
    row: int,
) -> None:
    """Add NDCG@10 of all dials of one statistic on one question."""
    rows_C, scores_C = statistic.scores(question)
    for number, prior in enumerate(priors):
        for weight in PRIOR_WEIGHTS:
            rank = Smoothed(question, rows_C, scores_C, prior, weight).rank_of(row)
            key = name, Dials(place, number, weight)
            sums[key] = sums.get(key, 0.0) + ndcg10_of(rank)


def is_target(histories: Histories, event: Event) -> bool:
    """Whether an event is judged: its user touched something before, but never this item."""
    return histories.knows_user(event.user_id) and not histories.has_seen(event.user_id, event.item_id)


def histories_of(events: Sequence[Event]) -> Histories:
    """The histories after all these events."""
    histories = Histories()
    for event in events:
        histories.take(event)
    return histories


def _priors() -> list[DecayedPopularity]:
    return [DecayedPopularity(half_life_s) for half_life_s in POPULARITY_HALF_LIVES_S]
