"""The evaluation beside the baselines: the same figures as the project's own evaluation, and a paired comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders.runtime import SliceEncoderRuntime
from encoders.train import TrainConfig
from stream_app.baselines import standard_baselines
from stream_app.evaluation import evaluate
from stream_app.records import Event
from stream_app.settings import parse_settings
from stream_app.stages.metrics import quality
from stream_app.stages.scoring import default_weights, feature_names
from stream_app.training import train
from tests.bench.model import LISTS, NUM_RESAMPLES, Judged, judge, paired_difference, quality_table, result_of

NUM_ITEMS = 30


def made_log(num_events: int, seed: int = 0) -> list[Event]:
    """Users who walk through the items in circles, with jumps, an event every half minute."""
    generator = np.random.default_rng(seed)
    places = generator.integers(0, NUM_ITEMS, 12)
    events = []
    for number in range(num_events):
        user = int(generator.integers(0, len(places)))
        places[user] = (places[user] + generator.integers(1, 3)) % NUM_ITEMS
        item_id, ts = f"i{places[user]}", 1_700_000_000_000 + 30_000 * number
        events.append(Event(user_id=f"u{user}", item_id=item_id, type="click", ts=ts))
    return events


@pytest.mark.slow
def test_it_judges_as_the_evaluation_does(tmp_path: Path) -> None:
    settings = parse_settings({})
    events = made_log(700)
    from_ms = events[500].ts
    config = TrainConfig(dim=8, num_layers=1, max_epochs=1)
    train(events[:500], settings, tmp_path / "model", config=config, report=lambda line: None)
    encoder = SliceEncoderRuntime.load(tmp_path / "model")
    weights_F = default_weights(settings.half_lives_s).vector(feature_names(settings.half_lives_s))
    expected = evaluate(events, settings, encoder, {LISTS: weights_F}, from_ms, baselines=standard_baselines())
    judged = judge(events, settings, encoder, weights_F, from_ms, standard_baselines())
    found = {name: quality(ranks, judged.users) for name, ranks in judged.ranks.items()}
    assert found == expected
    assert found[LISTS].num_targets > 10


def test_the_paired_error_is_that_of_resampled_users() -> None:
    generator = np.random.default_rng(3)
    users = [f"u{number}" for number in generator.integers(0, 9, 60)]
    first_T, second_T = generator.random(60), generator.random(60)
    difference, error = paired_difference(first_T, second_T, users, seed=5)
    names = list(dict.fromkeys(users))
    drawn = np.random.default_rng(5).integers(0, len(names), (NUM_RESAMPLES, len(names)))
    means = []
    for sample in drawn.tolist():
        taken = [place for number in sample for place, user in enumerate(users) if user == names[number]]
        means.append((first_T[taken] - second_T[taken]).mean())
    assert difference == pytest.approx((first_T - second_T).mean())
    assert error == pytest.approx(np.std(means))


def test_what_is_common_to_both_cancels() -> None:
    noise_T = np.random.default_rng(1).random(50)
    users = [f"u{number % 7}" for number in range(50)]
    difference, error = paired_difference(noise_T + 0.125, noise_T, users)
    assert difference == pytest.approx(0.125)
    assert error == pytest.approx(0.0, abs=1e-12)


def test_the_ratio_is_to_the_best_popularity() -> None:
    ranks: dict[str, list[int | None]] = {
        LISTS: [1, 1, None],
        "popularity, half-life 1h": [None, None, None],
        "popularity, half-life 1d": [1, None, None],
        "last-item transitions, half-life 1d": [1, 1, 1],
    }
    result = result_of("made", Judged(["u", "v", "w"], ranks), {"seconds": 1})
    assert result.details["best_popularity"] == "popularity, half-life 1d"
    ratio = result.figures["ndcg10_ratio_to_best_popularity"]
    assert (ratio.value, ratio.reached) == (2.0, True)
    assert result.figures["hr10"].value == pytest.approx(2 / 3)
    methods = [line.split("  ")[0] for line in quality_table(result.details["methods"]).splitlines()]
    assert methods[1:3] == ["last-item transitions, half-life 1d", LISTS]
