"""Training a model for the stream: cut the log as the stream does, train the encoder, fit the scorer, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from encoders.checkpoint import save_model
from encoders.histories import TrainingHistories
from encoders.item_features import TEXT, ItemContent, KnownItems, contents_of, known_items
from encoders.runtime import SliceEncoderRuntime
from encoders.spec import add_file
from encoders.train import train_model
from encoders.trained import TrainedModel, TrainProgress
from encoders.training_config import TrainConfig
from encoders.vocabulary import FIRST_NAME_ROW, Vocabulary
from stream_app.errors import ModelError
from stream_app.models import SCORER_FILE, STREAM_FILE, as_model_error, stream_spec
from stream_app.offline import history_slices
from stream_app.records import Event
from stream_app.scorer_fit import fit_scorer
from stream_app.settings import Settings
from stream_app.stages.learning import Scorer
from stream_app.stages.slicing import Slice, UserHistory

if TYPE_CHECKING:  # transformers takes seconds more to import than torch: only where such a model is asked for
    from encoders.item_models import ItemModels

Report = Callable[[str], None]

MIN_TEXT_PAIRS = 100
"""Fewer pairs of texts teach a text model nothing but themselves."""


@dataclass(frozen=True)
class TrainingItems:
    """What is known of items besides their ids.

    Args:
        contents: What the catalogue says of items, by id.
        models: The models that read their texts and look at their pictures; None for words, categories, prices alone.
        tunes_text: Whether the text model is fine-tuned first, in place, on what users touched together.
    """

    contents: Mapping[str, ItemContent]
    models: ItemModels | None = None
    tunes_text: bool = False


@dataclass(frozen=True)
class TrainingOutcome:
    """What came of a training."""

    release: str
    folder: Path
    validation_ndcg10: float | None
    best_epoch: int
    scorer: Scorer
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
    checkpoint_folder: Path | None = None,
    resume: bool = False,
    clock: Callable[[], float] = time.monotonic,
    items: TrainingItems | None = None,
) -> TrainingOutcome:
    """Train encoder and scorer on `events` (in order of time) and write the model folder.

    The last `validation_share` of the events by time is never learned from by the encoder: it decides when to
    stop, and the scorer is fitted on it, walking it as the stream would. For `checkpoint_folder`, `resume` and
    `clock` see `encoders.train.train_model`. A text model that was fine-tuned is written into the model folder.

    Raises:
        ModelError: The log is too thin to learn from, or the checkpoints are of another training.
    """
    split_ms = split_time_ms(events, validation_share)
    trained = train_encoder(
        events,
        settings,
        config=config,
        split_ms=split_ms,
        report=report,
        checkpoint_folder=checkpoint_folder,
        resume=resume,
        clock=clock,
        items=items,
    )
    release = save_model(trained, folder, half=half)
    if items and items.tunes_text and items.models and items.models.text:
        items.models.text.save(folder / TEXT)
    add_file(folder, STREAM_FILE, msgspec.json.encode(stream_spec(settings)))
    scorer, num_choices = fit_scorer(events, settings, SliceEncoderRuntime.load(folder), split_ms, report)
    add_file(folder, SCORER_FILE, msgspec.json.format(msgspec.json.encode(scorer)))
    best = trained.curve[trained.best_epoch - 1].validation_ndcg10 if trained.curve else None
    return TrainingOutcome(release, folder, best, trained.best_epoch, scorer, num_choices, trained.curve)


def split_time_ms(events: Sequence[Event], validation_share: float) -> int:
    """The time from which on the last `validation_share` of the events, in order of time, comes."""
    return events[int(len(events) * (1 - validation_share))].ts


def train_encoder(
    events: Sequence[Event],
    settings: Settings,
    *,
    config: TrainConfig,
    split_ms: int,
    report: Report,
    checkpoint_folder: Path | None = None,
    resume: bool = False,
    clock: Callable[[], float] = time.monotonic,
    items: TrainingItems | None = None,
) -> TrainedModel:
    """Train the encoder alone on `events` (in order of time); those from `split_ms` on decide when to stop.

    For `checkpoint_folder`, `resume` and `clock` see `encoders.train.train_model`.

    Raises:
        ModelError: The log is too thin to learn from, the checkpoints are of another training, or a pretrained model
            does not do.
    """
    vocabulary = vocabulary_before(events, settings, split_ms)
    histories = training_histories(history_slices(events, settings), vocabulary, settings)
    report(
        f"{histories.num_events} events of {histories.num_users} users in {histories.num_slices} slices, "
        f"{len(vocabulary.item_ids)} items"
    )
    with as_model_error():
        known = read_items(items, vocabulary, histories.before(split_ms), config.seed, report) if items else None
        return train_model(
            histories,
            vocabulary,
            config,
            split_ms,
            lambda progress: report(progress_line(progress)),
            on_step=lambda progress: report(progress_line(progress)),
            checkpoint_folder=checkpoint_folder,
            resume=resume,
            clock=clock,
            items=known,
        )


def read_items(
    items: TrainingItems, vocabulary: Vocabulary, past: TrainingHistories, seed: int, report: Report
) -> KnownItems:
    """What is known of the items of a vocabulary; the sizes of the features come from these items alone.

    Args:
        items: What there is to read, and with which models.
        vocabulary: Items seen before the split.
        past: Histories before the split, to fine-tune on.
        seed: Of the fine-tuning.
        report: Told of the fine-tuning, and of pictures that cannot be used.

    Raises:
        EncoderError: The cache of vectors cannot be read.
    """
    contents = contents_of(vocabulary.item_ids, items.contents)
    models = items.models
    if models is None:
        return known_items(contents)[0]
    if items.tunes_text:
        models = _tuned(models, contents, past, seed, report)
    known, refused = models.known(contents)
    if refused:
        report(f"{len(refused)} pictures of items cannot be used; the first: {next(iter(refused.values()))}")
    return known


def _tuned(
    models: ItemModels, contents: Sequence[ItemContent], past: TrainingHistories, seed: int, report: Report
) -> ItemModels:
    """The models with the text model fine-tuned; where it was found no longer matters.

    Raises:
        ModelError: Hardly any two items with texts were touched in one slice.
    """
    from encoders.text_tuning import TuningSettings, touched_pairs, tune_text

    assert models.text is not None, "fine-tuning asks for a text model"
    pairs = touched_pairs(past, [""] * FIRST_NAME_ROW + [content.text for content in contents])
    if len(pairs) < MIN_TEXT_PAIRS:
        raise ModelError(
            f"{len(pairs)} pairs of items with different texts were touched one after the other, expected at least "
            f"{MIN_TEXT_PAIRS} to fine-tune on.",
            mend="leave --tune-text out, or bring more events and texts",
        )
    losses = tune_text(models.text, pairs, TuningSettings(seed=seed))
    report(f"text model fine-tuned on {len(pairs)} pairs of texts: loss {losses[0]:.3f} to {losses[-1]:.3f}")
    return replace(models, sources={kind: place for kind, place in models.sources.items() if kind != TEXT})


def vocabulary_before(events: Sequence[Event], settings: Settings, split_ms: int) -> Vocabulary:
    """Items seen before the split, in order of their first event, and the types of the settings."""
    return Vocabulary(
        tuple(dict.fromkeys(event.item_id for event in events if event.ts < split_ms)),
        tuple(settings.event_types),
    )


def training_histories(
    histories: dict[str, UserHistory], vocabulary: Vocabulary, settings: Settings
) -> TrainingHistories:
    """The histories as arrays, users and slices in order."""
    parts = [part for history in histories.values() for part in history.slices]
    entries = [entry for part in parts for entry in part.events]
    weights = [settings.event_types.get(entry.type, 1.0) for entry in entries]
    return TrainingHistories(
        item_rows_E=vocabulary.rows_of([entry.item_id for entry in entries]),
        type_rows_E=vocabulary.type_rows_of([entry.type for entry in entries]),
        ts_ms_E=np.array([entry.ts for entry in entries], dtype=np.int64),
        gaps_ms_E=np.array([gap for part in parts for gap in _gaps(part)], dtype=np.int64),
        slice_starts_S1=_starts(len(part.events) for part in parts),
        user_starts_U1=_starts(len(history.slices) for history in histories.values()),
        event_weights_E=np.array(weights, dtype=np.float32),
    )


def _gaps(part: Slice) -> Iterable[int]:
    previous = part.previous_ts
    for entry in part.events:
        yield -1 if previous < 0 else max(0, entry.ts - previous)
        previous = entry.ts


def _starts(lengths: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *lengths]).astype(np.int64)


def progress_line(progress: TrainProgress) -> str:
    """Where a training stands, in one line: after an epoch with its validation, within one without."""
    judged = "" if progress.validation_ndcg10 is None else f", validation NDCG@10 {progress.validation_ndcg10:.4f}"
    return (
        f"epoch {progress.epoch}, {progress.share:.0%}: loss {progress.prediction_loss:.3f}, "
        f"reconstruction {progress.reconstruction_loss:.4f}{judged}; {progress.events_per_s:.0f} events/s, "
        f"{progress.elapsed_s:.0f} s, at most {progress.left_s:.0f} s left"
    )
