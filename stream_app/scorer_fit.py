"""The scorer that a model brings: learned on the log as the stream learns, choice after choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from encoders.contract import SliceEncoder
from stream_app.offline import OfflineStream
from stream_app.records import Event
from stream_app.settings import Settings
from stream_app.stages import learning
from stream_app.stages.choices import MAX_NEGATIVES
from stream_app.stages.learning import BATCH_CHOICES, Example, Scorer
from stream_app.stages.scoring import default_scorer

MAX_EVENTS: Final = 60_000
"""Newest events whose choices are learned from; older ones build up state only. A list takes about two milliseconds."""

MIN_CHOICES: Final = 200
"""With fewer the scorer to begin with is kept: what would be learned is noise."""

VECTOR_FEATURES: Final = ("vector", "no_vector")


def fit_scorer(
    events: Sequence[Event],
    settings: Settings,
    encoder: SliceEncoder,
    split_ms: int,
    report: Callable[[str], None],
) -> tuple[Scorer, int]:
    """Learn the scorer from what users chose, and say from how many choices.

    Before the split the encoder was trained on those very choices, so its word counts for nothing there: the features
    of the vectors are left out, and are learned from the choices after it.

    Args:
        events: In order of time, all before anything that is to be judged.
        settings: How the stream is cut and ranked.
        encoder: The trained encoder.
        split_ms: What the encoder was trained on ends here.
        report: Takes lines of progress.
    """
    start = default_scorer(settings.half_lives_s)
    state = learning.initial_state(start)
    batch: list[Example] = []
    num_choices = 0
    for example in _examples(events, settings, encoder, split_ms):
        batch.append(example)
        num_choices += 1
        if len(batch) == BATCH_CHOICES:
            state, batch = learning.learn(state, batch), []
            if num_choices % (100 * BATCH_CHOICES) == 0:
                report(f"scorer: {num_choices} choices learned from")
    if num_choices < MIN_CHOICES:
        report(f"scorer: only {num_choices} choices to learn from, {MIN_CHOICES} needed: the one to begin with is kept")
        return start, num_choices
    report(f"scorer: learned from {num_choices} choices")
    return learning.scorer_of(learning.learn(state, batch)), num_choices


def _examples(events: Sequence[Event], settings: Settings, encoder: SliceEncoder, split_ms: int) -> Iterator[Example]:
    """The choices of the newest events whose item was among the candidates, in order."""
    names = default_scorer(settings.half_lives_s).feature_names
    of_vectors = [names.index(name) for name in VECTOR_FEATURES]
    for moment in OfflineStream(settings, encoder).walk(events, ask_from_ms=events[-MAX_EVENTS:][0].ts):
        if moment.found is None or moment.features_CF is None:
            continue
        chosen = moment.found.place_of(moment.event.item_id)
        if chosen < 0:
            continue
        features_CF = np.array(moment.features_CF)
        if moment.event.ts < split_ms:
            features_CF[:, of_vectors] = 0.0
        yield learning.sample(features_CF, chosen, MAX_NEGATIVES)
