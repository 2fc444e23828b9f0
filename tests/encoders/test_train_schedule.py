"""The rate comes to rest when the training ends, be it by steps or by time; and what is averaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import encoders.training_run
from encoders.averaging import WeightAverage, new_weight_share
from encoders.devices import Devices, seed_torch
from encoders.histories import next_targets
from encoders.schedule import progress_share, rate_share
from encoders.train import train_model
from encoders.trained import TrainedModel, TrainProgress
from encoders.training_config import Optimisation, TrainConfig
from encoders.training_run import StepLoss, TrainingRun, new_optimizer
from tests.encoders.cases import MINUTE_MS, cyclic_histories, cyclic_vocabulary, made_up_model

pytestmark = pytest.mark.slow

SPLIT_MS = 20 * MINUTE_MS
CONFIG = TrainConfig(slice_events=8, max_epochs=2, patience_epochs=0, batch_events=256)
HISTORIES = cyclic_histories(num_users=60, num_events=24)


def train(config: TrainConfig, clock: Iterator[float] | None = None) -> tuple[TrainedModel, list[TrainProgress]]:
    """A training by the given clock, and what was told within its epochs."""
    within: list[TrainProgress] = []
    times = clock or iter(lambda: 0.0, None)
    trained = train_model(
        HISTORIES,
        cyclic_vocabulary(),
        config,
        SPLIT_MS,
        lambda _: None,
        on_step=within.append,
        clock=lambda: float(next(times)),
    )
    return trained, within


def weights_of(trained: TrainedModel) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in trained.model.state_dict().items()}


def test_rate_rises_then_falls_to_rest() -> None:
    shares = [rate_share(step / 1000, 0.1) for step in range(1, 1001)]
    top = int(np.argmax(shares))
    assert top in (98, 99) and shares[top] == pytest.approx(1.0, abs=1e-3)
    assert (np.diff(shares[:top]) > 0).all() and (np.diff(shares[top + 1 :]) < 0).all()
    assert shares[-1] == pytest.approx(0.01)
    assert rate_share(0.0, 0.0) == 1.0


@given(st.integers(0, 500), st.integers(1, 500), st.floats(0, 1e6), st.none() | st.floats(0.1, 1e6))
def test_progress_never_falls_and_ends_at_one(
    steps: int, planned: int, elapsed_s: float, budget_s: float | None
) -> None:
    here = progress_share(steps, planned, elapsed_s, budget_s)
    assert 0 <= here <= progress_share(steps + 1, planned, elapsed_s + 1, budget_s) <= 1
    assert (here == 1) == (steps >= planned or (budget_s is not None and elapsed_s >= budget_s))


def test_the_rate_follows_a_budget_shorter_than_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that ticks at every look: the budget ends within the first of fifty epochs, at rest all the same."""
    rates: list[float] = []

    def noting(progress: float, warmup_share: float) -> float:
        rates.append(rate_share(progress, warmup_share))
        return rates[-1]

    monkeypatch.setattr(encoders.training_run, "rate_share", noting)
    config = replace(CONFIG, max_epochs=50, batch_events=64, time_budget_s=30.0)
    trained, _ = train(config, iter(map(float, count())))
    assert [(point.epoch, point.share) for point in trained.curve] == [(1, 1.0)]
    assert 10 <= len(rates) <= 16 and max(rates) > 0.9 and rates[-1] == pytest.approx(0.01)
    assert all(later < earlier for earlier, later in pairwise(rates[rates.index(max(rates)) :]))


def test_a_budget_that_is_over_at_once_still_takes_a_step() -> None:
    trained, _ = train(replace(CONFIG, time_budget_s=0.5), iter(map(float, count())))
    assert len(trained.curve) == 1 and np.isfinite(trained.curve[0].prediction_loss)


def test_progress_is_told_within_epochs() -> None:
    """Two looks at the clock a step, a second each: every fifth second is told, with what is left."""
    config = replace(CONFIG, batch_events=64, time_budget_s=1000.0)
    trained, within = train(config, iter(map(float, count())))
    assert {point.epoch for point in within} == {1, 2}
    for point in within:
        assert point.validation_ndcg10 is None and 0 < point.share < 1 and point.events_per_s > 0
        assert point.left_s == pytest.approx(point.elapsed_s / point.share - point.elapsed_s)
    assert all(later.share > earlier.share for earlier, later in pairwise([*within[:3], trained.curve[0]]))


def test_accelerate_changes_no_byte_in_one_process() -> None:
    """The same steps by a bare torch loop."""
    past = HISTORIES.before(SPLIT_MS)
    plain = replace(CONFIG.optimisation, average_share=0.0)
    config = replace(CONFIG, max_epochs=1, optimisation=plain, random_phase=False)
    with torch.random.fork_rng(devices=[]):
        seed_torch(config.seed)
        targets_E = next_targets(past, skip_repeats=True)
        run = TrainingRun(past, cyclic_vocabulary(), config, targets_E, Devices(), lambda: 0.0)
        bare = StepLoss(run.model, config, run.shares_V)
        optimizer = new_optimizer(run.model, config)
        generator = np.random.default_rng([config.seed, 1])
        seed_torch(config.seed, 1, 0)
        run.model.train()
        batches = list(run.sampler.epoch(np.random.default_rng([config.seed, 1]), config.unknown_share))
        for number, batch in enumerate(run.sampler.epoch(generator, config.unknown_share), 1):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * rate_share(number / len(batches), 0.05)
            prediction, reconstruction = bare(batch, None)
            optimizer.zero_grad()
            (prediction + 0.1 * reconstruction).backward()
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
            optimizer.step()
    expected = {name: weight.numpy().tobytes() for name, weight in run.model.state_dict().items()}
    assert weights_of(train(config)[0]) == expected


def test_the_average_of_two_steps_by_hand() -> None:
    """Half-life of one step of two: after step 2 the newest weights have the share 1 - 2 ** -1 = 1/2."""
    model = made_up_model(seed=1).model
    average = WeightAverage(model, 0.5)
    start = model.final_norm.bias.detach().clone()
    with torch.no_grad():
        model.final_norm.bias.add_(4.0)
    average.take(model, 2)
    assert torch.allclose(average.model.final_norm.bias, start + 2.0)
    assert torch.equal(average.model.types.weight, model.types.weight)


@given(st.integers(1, 50))
def test_the_average_has_its_half_life_at_every_length(percent: int) -> None:
    """Of what the average was at step n, half is left after the share's steps, whether n is 1,000 or 8,000."""
    for num_steps in (1_000, 8_000):
        half_life_share, length = percent / 100, percent * num_steps // 100
        kept = np.prod([1 - new_weight_share(step, half_life_share) for step in range(num_steps, num_steps + length)])
        # While it halves the half-life itself grows by the share: a little more than half is left.
        assert 0.499 < kept < 0.502 + 0.2 * half_life_share


def test_the_average_is_what_is_kept_and_judged() -> None:
    averaged, plain = (
        train(replace(CONFIG, optimisation=Optimisation(average_share=share)))[0] for share in (0.2, 0.0)
    )
    assert averaged.curve[0].prediction_loss == plain.curve[0].prediction_loss
    assert averaged.curve[0].validation_ndcg10 != plain.curve[0].validation_ndcg10
    assert weights_of(averaged) != weights_of(plain)


@pytest.mark.parametrize("name", ["average_share", "warmup_share"])
def test_a_share_of_all_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 1.0, expected a share from 0 to below 1"):
        Optimisation(**{name: 1.0})
