"""A whole evaluation: what comes after the split reaches no training, no dial and nothing frozen."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from encoders.item_features import ItemContent
from encoders.spec import load_spec
from encoders.train import use_threads
from stream_app.errors import UsageError
from stream_app.evaluation.judging import OURS
from stream_app.evaluation.results import EvaluationReport
from stream_app.evaluation.run import EvaluationOptions, evaluate_events, own_model
from stream_app.event_log import LogEvents
from stream_app.records import Event
from stream_app.settings import Settings
from tests.evaluation.cases import event, walked_log

ENDLESS_S = 1e6
"""Longer than any training here: epochs and patience end it, so that the clock changes nothing."""


def scrambled(log: list[Event], from_ms: int, seed: int) -> list[Event]:
    """The log with everything from a time on replaced by other users and items; only the times are kept."""
    generator = np.random.default_rng(seed)

    def other(one: Event) -> Event:
        user, item = generator.integers(0, 60, 2).tolist()
        return Event(user_id=f"u{user}", item_id=f"i{item}", type="click", ts=one.ts)

    return [one if one.ts < from_ms else other(one) for one in log]


def evaluated(log: list[Event], folder: Path) -> tuple[EvaluationReport, list[str]]:
    """The report, and what was told of trainings, without seconds."""
    told: list[str] = []
    settings = Settings(state_dir=str(folder))
    options = EvaluationOptions(budget_s=ENDLESS_S, split=0.75)
    report = evaluate_events(LogEvents(log, 0), settings, options, told.append)
    return report, [re.sub(r"\(\d+ s\)", "", line) for line in told if line.startswith("SASRec")]


@pytest.mark.slow
def test_what_comes_after_the_split_reaches_nothing_that_is_learned_before_it(tmp_path: Path) -> None:
    use_threads(1)
    log = walked_log(800, num_items=30, num_users=20, seed=5)
    from_ms = log[600].ts
    report, told = evaluated(log, tmp_path)
    other, told_other = evaluated(scrambled(log, from_ms, 1), tmp_path)
    assert report.notes["model"] == other.notes["model"]
    assert report.notes == other.notes
    assert told == told_other and len(told) >= 1
    assert report.targets != other.targets or report.methods != other.methods
    assert report.methods[0].name == OURS


@pytest.mark.slow
def test_the_model_that_is_trained_learns_from_the_catalogue(tmp_path: Path) -> None:
    use_threads(1)
    log = walked_log(800, num_items=30, num_users=20, seed=5)
    contents = {f"i{number}": ItemContent(title=f"part {number % 3}") for number in range(30)}
    for asked, reads_words in ((contents, True), (None, False)):
        options = EvaluationOptions(budget_s=1.0, contents=asked)
        folder = own_model(log, Settings(state_dir=str(tmp_path)), tmp_path / str(reads_words), options, lambda _: None)
        assert (load_spec(folder).dims.items.word_buckets > 0) == reads_words


def test_a_log_without_targets_says_so(tmp_path: Path) -> None:
    log = [event(f"u{number % 3}", f"i{number % 2}", number) for number in range(60)]
    options = EvaluationOptions(only_baselines=True, budget_s=1.0)
    with pytest.raises(UsageError, match="Nothing is left to judge"):
        evaluate_events(LogEvents(log, 0), Settings(state_dir=str(tmp_path)), options, lambda line: None)
