"""Baselines behind one contract: `ranking(question)` before the event, then their learners take the touch.

A baseline is a statistic about some items, smoothed by decayed popularity as a Dirichlet prior smooths counts:
``score(i) = statistic(i) + weight * popularity_share(i)`` (Zhai & Lafferty 2004). With a vanishing weight popularity
only breaks ties and ranks what the statistic says nothing about; with a large one it decides. Which weight and
half-life are best differs from log to log, so they are chosen on the time before the split (`families`). SASRec alone
has no prior.

Shapes: C items with a score, N items known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stream_app.evaluation.questions import UNKNOWN_ROW, Question, Touch
from stream_app.evaluation.statistics import NO_ROWS, NO_SCORES, DecayedPopularity, Statistic

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Ranking(Protocol):
    """An order of a question's candidates, or of some of them."""

    @property
    def num_ranked(self) -> int:
        """How many candidates are in the order; what is not stands behind in no order."""

    def rank_of(self, row: int) -> float:
        """Rank of an unseen item, from 1; ties count against it. NaN where it is not in the order."""

    def top(self, num_items: int) -> Ints:
        """Rows of the first items, best first; ties in an order that is the same every time."""


class Learner(Protocol):
    """Whatever learns from touches."""

    def take(self, touch: Touch) -> None:
        """Learn from a touch."""


class Baseline(Protocol):
    """A method to be beaten."""

    @property
    def name(self) -> str:
        """What it is called in tables."""

    @property
    def learners(self) -> Sequence[Learner]:
        """What must take every touch; several methods may share one. Frozen methods have none."""

    def ranking(self, question: Question) -> Ranking:
        """The order it would put the candidates in; valid until the next question or touch."""


@dataclass(frozen=True)
class Smoothed:
    """A ranking by ``scores + weight * popularity_share``; without a prior what has no score is not ranked.

    Args:
        question: That is answered.
        rows_C: Unseen items with a score, each once.
        scores_C: Their scores, above zero.
        prior: Popularity, or None.
        weight: Of the prior, above zero.
    """

    question: Question
    rows_C: Ints
    scores_C: Floats
    prior: DecayedPopularity | None = None
    weight: float = 1.0
    totals_C: Floats = field(init=False)

    def __post_init__(self) -> None:
        added = 0.0 if self.prior is None else self.weight * self.prior.shares(self.rows_C)
        object.__setattr__(self, "totals_C", self.scores_C + added)

    @property
    def num_ranked(self) -> int:
        """See `Ranking`."""
        return len(self.rows_C) if self.prior is None else self.question.num_candidates

    def rank_of(self, row: int) -> float:
        """See `Ranking`."""
        if row == UNKNOWN_ROW:
            return float("nan")
        own = self.totals_C[self.rows_C == row]
        if self.prior is None:
            return float(np.count_nonzero(self.totals_C >= own[0])) if len(own) else float("nan")
        if len(own):
            total = float(own[0])
            log_score = self.prior.log_score_of_share(total / self.weight)
        else:
            total = self.weight * float(self.prior.shares(np.array([row]))[0])
            log_score = self.prior.log_score(row)
        others = self.prior.num_at_least(log_score, self.question, self.rows_C)
        return float(np.count_nonzero(self.totals_C >= total) + others)

    def top(self, num_items: int) -> Ints:
        """See `Ranking`."""
        rows, totals = self.rows_C, self.totals_C
        if len(rows) > 4 * num_items:
            kept = totals >= np.partition(totals, len(rows) - num_items)[len(rows) - num_items]
            rows, totals = rows[kept], totals[kept]
        if self.prior is not None:
            more = self.prior.top(num_items, self.question, self.rows_C)
            rows = np.concatenate([rows, more])
            totals = np.concatenate([totals, self.weight * self.prior.shares(more)])
        # Stable: items whose share has vanished stay in the order of popularity.
        return rows[np.argsort(-totals, kind="stable")][:num_items]


@dataclass(frozen=True)
class Popularity:
    """Decayed popularity alone."""

    name: str
    popularity: DecayedPopularity

    @property
    def learners(self) -> Sequence[Learner]:
        """See `Baseline`."""
        return (self.popularity,)

    def ranking(self, question: Question) -> Ranking:
        """See `Baseline`."""
        return Smoothed(question, NO_ROWS, NO_SCORES, self.popularity)


@dataclass(frozen=True)
class SmoothedStatistic:
    """A statistic, with popularity as its prior."""

    name: str
    statistic: Statistic
    prior: DecayedPopularity | None = None
    weight: float = 1.0

    @property
    def learners(self) -> Sequence[Learner]:
        """See `Baseline`."""
        return (self.statistic,) if self.prior is None else (self.statistic, self.prior)

    def ranking(self, question: Question) -> Ranking:
        """See `Baseline`."""
        return Smoothed(question, *self.statistic.scores(question), self.prior, self.weight)


class Panel:
    """Several baselines that learn side by side, each statistic once.

    Args:
        baselines: With different names.
    """

    def __init__(self, baselines: Sequence[Baseline]) -> None:
        self.baselines = tuple(baselines)
        self._learners = list({id(one): one for baseline in baselines for one in baseline.learners}.values())

    def take(self, touch: Touch) -> None:
        """Let all of them learn from a touch."""
        for learner in self._learners:
            learner.take(touch)
