"""Training a model for the stream: cut the log as the stream does, train the encoder, fit the scorer, save."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from encoders.checkpoint import save_model
from encoders.histories import TrainingHistories
from encoders.runtime import SliceEncoderRuntime
from encoders.scorer import fit_listwise
from encoders.spec import add_file
from encoders.train import TrainConfig, TrainedModel, TrainProgress, train_model
from encoders.vocabulary import Vocabulary
from stream_app.models import SCORER_FILE, STREAM_FILE, as_model_error, stream_spec
from stream_app.offline import OfflineStream, history_slices
from stream_app.records import Event
from stream_app.settings import Settings
from stream_app.stages.scoring import ScorerWeights, default_weights, feature_names
from stream_app.stages.slicing import Slice, UserHistory

MAX_GROUPS = 4000
"""Choices the scorer is fitted on at most; spread evenly over the validation time."""

MIN_GROUPS = 50
"""With fewer choices the scorer keeps its default weights: they would be fitted to noise."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class TrainingOutcome:
    """What came of a training."""

    release: str
    folder: Path
    validation_ndcg10: float | None
    scorer: ScorerWeights
    num_choices: int
    curve: tuple[TrainProgress, ...]


def train(
    events: Sequence[Event],
    settings: Settings,
    folder: Path,
    *,
    config: TrainConfig,
    validation_share: float = 0.1,
    half: bool = False,
    report: Report = print,
) -> TrainingOutcome:
    """Train encoder and scorer on `events` (in order of time) and write the model folder.

    The last `validation_share` of the events by time is never learned from by the encoder: it decides when to
    stop, and the scorer is fitted on it, walking it as the stream would.

    Raises:
        ModelError: The log is too thin to learn from.
    """
    split_ms = events[int(len(events) * (1 - validation_share))].ts
    with as_model_error():
        trained = _train_encoder(events, settings, config, split_ms, report)
    release = save_model(trained, folder, half=half)
    add_file(folder, STREAM_FILE, msgspec.json.encode(stream_spec(settings)))
    scorer, num_choices = fit_scorer(events, settings, SliceEncoderRuntime.load(folder), split_ms, report)
    add_file(folder, SCORER_FILE, msgspec.json.format(msgspec.json.encode(scorer)))
    best = trained.curve[trained.best_epoch - 1].validation_ndcg10 if trained.curve else None
    return TrainingOutcome(release, folder, best, scorer, num_choices, trained.curve)


def fit_scorer(
    events: Sequence[Event], settings: Settings, encoder: SliceEncoderRuntime, from_ms: int, report: Report
) -> tuple[ScorerWeights, int]:
    """Fit the scorer's weights on what users chose from `from_ms` on, and say on how many choices.

    A choice counts where the item taken was among the candidates; of many, every n-th is used.
    """
    num_after = sum(1 for event in events if event.ts >= from_ms)
    every = max(1, num_after // (2 * MAX_GROUPS))
    choices = itertools.islice(_choices(events, settings, encoder, from_ms), 0, None, every)
    groups = list(itertools.islice(choices, MAX_GROUPS))
    if len(groups) < MIN_GROUPS:
        report(f"scorer: only {len(groups)} choices to fit on, {MIN_GROUPS} needed: default weights are kept")
        return default_weights(settings.half_lives_s), len(groups)
    starts = np.cumsum([0] + [len(features_CF) for features_CF, _ in groups]).astype(np.int64)
    fitted = fit_listwise(
        np.concatenate([features_CF for features_CF, _ in groups]),
        starts,
        np.array([place for _, place in groups], dtype=np.int64),
    )
    report(f"scorer: {len(groups)} choices, loss {fitted.loss_before:.3f} -> {fitted.loss:.3f} nats")
    names = feature_names(settings.half_lives_s)
    weights = {name: float(weight) for name, weight in zip(names, fitted.weights_F, strict=True)}
    return ScorerWeights(weights=weights), len(groups)


def _choices(
    events: Sequence[Event], settings: Settings, encoder: SliceEncoderRuntime, from_ms: int
) -> Iterator[tuple[npt.NDArray[np.float64], int]]:
    """Features (C, F) of each choice's candidates, and the place of the item that was taken."""
    for moment in OfflineStream(settings, encoder).walk(events, ask_from_ms=from_ms):
        if moment.found is None or moment.features_CF is None:
            continue
        if moment.event.item_id in moment.found.sources:
            yield moment.features_CF, list(moment.found.sources).index(moment.event.item_id)


def _train_encoder(
    events: Sequence[Event], settings: Settings, config: TrainConfig, split_ms: int, report: Report
) -> TrainedModel:
    vocabulary = Vocabulary(
        tuple(dict.fromkeys(event.item_id for event in events if event.ts < split_ms)),
        tuple(settings.event_types),
    )
    histories = training_histories(history_slices(events, settings), vocabulary, settings)
    report(
        f"{histories.num_events} events of {histories.num_users} users in {histories.num_slices} slices, "
        f"{len(vocabulary.item_ids)} items"
    )
    return train_model(histories, vocabulary, config, split_ms, lambda progress: report(_line(progress)))


def training_histories(
    histories: dict[str, UserHistory], vocabulary: Vocabulary, settings: Settings
) -> TrainingHistories:
    """The histories as arrays, users and slices in order."""
    parts = [part for history in histories.values() for part in history.slices]
    entries = [entry for part in parts for entry in part.events]
    weights = [sum(settings.event_types.get(entry.type, 1.0) for entry in part.events) for part in parts]
    return TrainingHistories(
        item_rows_E=vocabulary.rows_of([entry.item_id for entry in entries]),
        type_rows_E=vocabulary.type_rows_of([entry.type for entry in entries]),
        ts_ms_E=np.array([entry.ts for entry in entries], dtype=np.int64),
        gaps_ms_E=np.array([gap for part in parts for gap in _gaps(part)], dtype=np.int64),
        slice_starts_S1=_starts(len(part.events) for part in parts),
        user_starts_U1=_starts(len(history.slices) for history in histories.values()),
        slice_weights_S=np.array(weights, dtype=np.float32),
    )


def _gaps(part: Slice) -> Iterable[int]:
    previous = part.previous_ts
    for entry in part.events:
        yield -1 if previous < 0 else max(0, entry.ts - previous)
        previous = entry.ts


def _starts(lengths: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *lengths]).astype(np.int64)


def _line(progress: TrainProgress) -> str:
    judged = "" if progress.validation_ndcg10 is None else f", validation NDCG@10 {progress.validation_ndcg10:.4f}"
    return (
        f"epoch {progress.epoch}/{progress.planned_epochs}: loss {progress.prediction_loss:.3f}, "
        f"reconstruction {progress.reconstruction_loss:.4f}{judged} ({progress.elapsed_s:.0f} s)"
    )
