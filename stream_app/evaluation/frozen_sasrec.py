"""The full-history SASRec as a baseline: trained on the time before the split, frozen there.

Items have the rows of `Histories` here, in order of first occurrence: what it was trained on comes first, so item row r
is row r + 2 of its table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from encoders.sasrec import NextItem, Sasrec, SasrecConfig, train_sasrec
from encoders.trained import TrainProgress
from encoders.vocabulary import FIRST_NAME_ROW
from stream_app.evaluation.families import histories_of, is_target
from stream_app.evaluation.questions import Histories, Question, Touch
from stream_app.evaluation.statistics import NO_ROWS, NO_SCORES
from stream_app.records import Event

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NAME = "SASRec, frozen at the split"

MAX_VALIDATION_TARGETS = 2000
"""Targets judged after each epoch, spread evenly over the validation time."""


class SasrecScores:
    """Its scores of the items it was trained on; what came later has none."""

    def __init__(self, model: Sasrec, num_items: int) -> None:
        self._model = model
        self._num_items = num_items

    def take(self, touch: Touch) -> None:
        """See `Statistic`: frozen."""

    def scores(self, question: Question) -> tuple[Ints, Floats]:
        """See `Statistic`; they may be below zero, so there is no prior."""
        items = [item + FIRST_NAME_ROW for item in reversed(question.recent) if item < self._num_items]
        if not items:
            return NO_ROWS, NO_SCORES
        scores_I = self._model.scores([np.array(items, dtype=np.int64)])[0]
        rows = np.flatnonzero(~question.seen_N[: self._num_items])
        return rows, scores_I[rows].astype(np.float64)


def trained_on_log(
    past: Sequence[Event],
    config: SasrecConfig,
    report: Callable[[str], None],
    *,
    validation_share: float = 0.1,
    clock: Callable[[], float] = time.process_time,
) -> SasrecScores:
    """Train on all but the last part of `past`, which decides when to stop.

    Raises:
        TooLittleDataError: No user has two items.
    """
    start = int(len(past) * (1 - validation_share))
    histories = histories_of(past[:start])
    sequences = _sequences(past[:start], histories)
    num_items = histories.num_items
    asked = _validation(past[start:], histories, num_items)
    every = max(1, len(asked) // MAX_VALIDATION_TARGETS)
    model = train_sasrec(
        sequences,
        num_items + FIRST_NAME_ROW,
        config,
        lambda progress: report(line_of(progress)),
        validation=asked[::every],
        clock=clock,
    )
    return SasrecScores(model, num_items)


def trained_on_all(
    past: Sequence[Event],
    config: SasrecConfig,
    report: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.process_time,
) -> SasrecScores:
    """Train on all of `past`, to the end of the budget.

    Raises:
        TooLittleDataError: No user has two items.
    """
    histories = histories_of(past)
    model = train_sasrec(
        _sequences(past, histories),
        histories.num_items + FIRST_NAME_ROW,
        config,
        lambda progress: report(line_of(progress)),
        clock=clock,
    )
    return SasrecScores(model, histories.num_items)


def line_of(progress: TrainProgress) -> str:
    """A line of progress."""
    judged = "" if progress.validation_ndcg10 is None else f", validation NDCG@10 {progress.validation_ndcg10:.4f}"
    return (
        f"SASRec, epoch {progress.epoch} ({progress.share:.0%}): loss {progress.prediction_loss:.3f}{judged} "
        f"({progress.elapsed_s:.0f} s)"
    )


def _sequences(past: Sequence[Event], histories: Histories) -> list[Ints]:
    """Each user's items as table rows, in order of first touch."""
    items: dict[str, dict[str, None]] = {}
    for event in past:
        items.setdefault(event.user_id, {}).setdefault(event.item_id)
    return [
        np.array([histories.item_row(item_id) + FIRST_NAME_ROW for item_id in known], dtype=np.int64)
        for known in items.values()
    ]


def _validation(later: Sequence[Event], histories: Histories, num_items: int) -> list[NextItem]:
    """The targets of the validation time on items that training saw; `histories` is brought up to its end."""
    found = []
    for event in later:
        row = histories.item_row(event.item_id)
        if 0 <= row < num_items and is_target(histories, event):
            before = [item for item in reversed(histories.question(event.user_id, event.ts).recent) if item < num_items]
            if before:
                found.append(NextItem(np.array(before, dtype=np.int64) + FIRST_NAME_ROW, row + FIRST_NAME_ROW))
        histories.take(event)
    return found
