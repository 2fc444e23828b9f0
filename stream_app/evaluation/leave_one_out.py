"""Leave-one-out: of each user the last new item is held out, whenever it was; all else is learned from.

Not a test of a stream, since what is learned from may be later than what is judged: it is here to stand beside
published tables. The held-out items never reach training, not even to decide when to stop: models train to the end of
their budget.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from encoders.sampling import SliceReader
from encoders.train import train_model
from encoders.training_config import TrainConfig
from encoders.validation import plan_validation, validation_ranks
from encoders.vocabulary import Vocabulary
from stream_app.errors import LogFormatError
from stream_app.evaluation.baselines import Panel
from stream_app.evaluation.judging import OURS, Findings, Judge, Report
from stream_app.models import as_model_error
from stream_app.offline import history_slices
from stream_app.records import Event
from stream_app.settings import Settings
from stream_app.training import training_histories

STEP_MS = 1000
"""Time between two items of a sequence that has an order only."""


@dataclass(frozen=True)
class HeldOut:
    """A log with each user's last new item held out.

    Args:
        past: All events before their user's held-out one, in order of time.
        taken: The held-out events, one for each user with at least two items, at a time after all of `past`.
    """

    past: list[Event]
    taken: list[Event]

    @property
    def split_ms(self) -> int:
        """A time after `past`."""
        return self.past[-1].ts + 1


def hold_out(events: Sequence[Event]) -> HeldOut:
    """Hold out each user's last event on an item that is new to the user; what comes after it is left out.

    Args:
        events: In order of time.
    """
    by_user: dict[str, list[Event]] = {}
    for event in events:
        by_user.setdefault(event.user_id, []).append(event)
    past: list[Event] = []
    last: list[Event] = []
    for own in by_user.values():
        first_touches = {event.item_id: place for place, event in reversed(list(enumerate(own)))}
        place = max(first_touches.values())
        if place:
            last.append(own[place])
        past.extend(own[: place or len(own)])
    past.sort(key=lambda event: event.ts)
    split_ms = past[-1].ts + 1
    return HeldOut(past, [msgspec.structs.replace(event, ts=split_ms) for event in last])


def read_sequences(path: Path, event_type: str) -> list[Event]:
    """Read a file with the items of one user on each line, oldest first, as events a second apart.

    Raises:
        LogFormatError: It cannot be read, or holds nothing.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = data.decode("utf-8").splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise LogFormatError(
            f"{path} cannot be read as sequences: {error}.", mend="give a text file with one user's items on each line"
        ) from error
    events = [
        Event(user_id=f"line {number}", item_id=item_id, type=event_type, ts=place * STEP_MS)
        for number, line in enumerate(lines, start=1)
        for place, item_id in enumerate(line.split())
    ]
    if not events:
        raise LogFormatError(f"{path} holds no items.", mend="give a text file with one user's items on each line")
    events.sort(key=lambda event: event.ts)
    return events


def own_ranks(
    held: HeldOut,
    settings: Settings,
    config: TrainConfig,
    report: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Train the slice model on the past; the rank of each user's held-out item among all items new to the user.

    Users whose held-out item training never saw are left out.

    Args:
        held: The log.
        settings: How histories are cut into slices.
        config: Of the training; it goes on to its end, without early stopping.
        report: Takes lines of progress.
        clock: Of the training's time budget.

    Raises:
        ModelError: There is too little to learn from.
    """
    vocabulary = Vocabulary(tuple(dict.fromkeys(event.item_id for event in held.past)), tuple(settings.event_types))
    config = replace(config, patience_epochs=0, slice_events=settings.slice_events)
    past = training_histories(history_slices(held.past, settings), vocabulary, settings)
    with as_model_error():
        trained = train_model(
            past,
            vocabulary,
            config,
            held.split_ms,
            lambda progress: report(
                f"{OURS}, epoch {progress.epoch} ({progress.share:.0%}): loss {progress.prediction_loss:.3f} "
                f"({progress.elapsed_s:.0f} s)"
            ),
            clock=clock,
        )
    slices = history_slices([*held.past, *held.taken], settings)
    whole = training_histories(slices, vocabulary, settings)
    dims = trained.model.dims
    reader = SliceReader(whole, dims.gap_edges_ms, dims.slice_events, dims.context_events)
    plan = plan_validation(reader, held.split_ms, max_targets=len(held.taken), seed=0)
    users = np.array(list(slices), dtype=object)[whole.users_of_events()[plan.events_T]]
    return dict(zip(users.tolist(), validation_ranks(trained.model, plan).astype(float).tolist(), strict=True))


@dataclass(frozen=True)
class RankAlone:
    """A rank without a list, as a `Ranking`."""

    rank: float
    num_ranked: int

    def rank_of(self, row: int) -> float:
        """See `Ranking`."""
        return self.rank

    def top(self, num_items: int) -> npt.NDArray[np.int64]:
        """Nothing: the list was not kept."""
        return np.zeros(0, dtype=np.int64)


def leave_one_out(held: HeldOut, panel: Panel, ranks: dict[str, float] | None, report: Report) -> Findings:
    """Judge the held-out items.

    Args:
        held: The log.
        panel: Fresh baselines.
        ranks: The model's own ranks by user, or None to judge the baselines alone.
        report: Takes lines of progress.
    """
    judge = Judge("leave-one-out", panel, has_lists=ranks is not None)
    for event in held.past:
        judge.take(event)
    for number, event in enumerate(held.taken, start=1):
        question = judge.histories.question(event.user_id, event.ts)
        own = None
        if ranks is not None:
            own = RankAlone(ranks.get(event.user_id, float("nan")), question.num_candidates)
        judge.ask(question, [event], own)
        if number % 2000 == 0:
            report(f"{number:,} of {len(held.taken):,} users judged")
    return judge.findings
