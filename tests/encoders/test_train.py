"""Training learns, repeats itself, and never looks past the split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.checkpoint import save_model
from encoders.contract import TooLittleDataError
from encoders.histories import TrainingHistories
from encoders.train import train_model
from encoders.trained import TrainedModel, TrainProgress
from encoders.training_config import Objective, Optimisation, TrainConfig
from tests.encoders.cases import MINUTE_MS, cyclic_histories, cyclic_vocabulary

SPLIT_MS = 20 * MINUTE_MS
QUICK = TrainConfig(slice_events=8, max_epochs=2, patience_epochs=0, batch_events=512)


def ignore(_: TrainProgress) -> None:
    """Progress that nobody reads."""


def train(histories: TrainingHistories, config: TrainConfig = QUICK, split_ms: int = SPLIT_MS) -> TrainedModel:
    return train_model(histories, cyclic_vocabulary(), config, split_ms, ignore, clock=lambda: 0.0)


def weights_of(trained: TrainedModel) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in trained.model.state_dict().items()}


@pytest.mark.slow
def test_learns_what_follows_what() -> None:
    histories = cyclic_histories(num_users=300, num_events=24)
    trained = train(histories, TrainConfig(slice_events=8, max_epochs=10, batch_events=512))
    quality = max(point.validation_ndcg10 or 0.0 for point in trained.curve)
    # All items are equally popular: ranking by popularity is chance, about .09 over 40 unseen items.
    assert quality > 0.9, f"validation NDCG@10 is {quality:.3f}, curve {trained.curve}"
    assert trained.curve[-1].prediction_loss < trained.curve[0].prediction_loss / 2
    assert trained.curve[-1].reconstruction_loss < trained.curve[0].reconstruction_loss


@pytest.mark.slow
def test_sampled_softmax_learns_too() -> None:
    histories = cyclic_histories(num_users=300, num_events=24)
    config = TrainConfig(
        slice_events=8, max_epochs=10, batch_events=512, objective=Objective(full_softmax_items=10, num_negatives=40)
    )
    quality = max(point.validation_ndcg10 or 0.0 for point in train(histories, config).curve)
    assert quality > 0.8, f"validation NDCG@10 is {quality:.3f}"


@pytest.mark.slow
def test_memory_carries_what_the_slice_does_not() -> None:
    """Slices of one event whose next item hangs on the slice before: only the memory can tell."""
    generator = np.random.default_rng(3)
    num_users, num_kinds = 400, 30
    kinds_U = generator.integers(num_kinds, size=num_users)
    rows_UE = np.stack([kinds_U + 2, np.full(num_users, num_kinds + 2), kinds_U + num_kinds + 3], axis=1)
    late_U = np.arange(num_users) >= 320
    times_UE = np.arange(3) * MINUTE_MS + late_U[:, None] * SPLIT_MS
    num_events = rows_UE.size
    histories = TrainingHistories(
        rows_UE.reshape(-1).astype(np.int64),
        np.full(num_events, 2, dtype=np.int64),
        times_UE.reshape(-1).astype(np.int64),
        np.tile(np.array([-1, MINUTE_MS, MINUTE_MS]), num_users),
        np.arange(num_events + 1),
        np.arange(0, num_events + 1, 3),
        np.ones(num_events, dtype=np.float32),
    )
    vocabulary = cyclic_vocabulary(2 * num_kinds + 1)
    config = TrainConfig(max_epochs=25, patience_epochs=0, batch_events=128, dropout=0.0)
    trained = train_model(histories, vocabulary, config, SPLIT_MS, ignore)
    quality = trained.curve[-1].validation_ndcg10 or 0.0
    # Half the targets (the middle item) need no memory; without one, all the others would be chance.
    assert quality > 0.9, f"validation NDCG@10 is {quality:.3f}, at most about .57 without a memory"


@pytest.mark.slow
def test_same_seed_same_bytes(tmp_path: Path) -> None:
    histories = cyclic_histories(num_users=60, num_events=24)
    first, second, other = (train(histories, replace(QUICK, seed=seed)) for seed in (1, 1, 2))
    assert weights_of(first) == weights_of(second)
    assert weights_of(first) != weights_of(other)
    assert save_model(first, tmp_path / "a") == save_model(second, tmp_path / "b")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab"]
    assert files[0] == files[1]


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(cyclic_histories(num_users=60, num_events=24))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_the_best_weights_are_kept() -> None:
    histories = cyclic_histories(num_users=60, num_events=24)
    config = replace(QUICK, max_epochs=6, patience_epochs=2, optimisation=Optimisation(learning_rate=0.03))
    trained = train(histories, config)
    qualities = [point.validation_ndcg10 or 0.0 for point in trained.curve]
    assert trained.best_epoch == int(np.argmax(qualities)) + 1
    assert len(qualities) == 6 or len(qualities) == trained.best_epoch + 2


def test_without_anything_after_the_split_there_is_no_validation() -> None:
    trained = train(cyclic_histories(num_users=60, num_events=24), replace(QUICK, patience_epochs=1), 10**12)
    assert [point.validation_ndcg10 for point in trained.curve] == [None, None]
    assert trained.num_validation_targets == 0 and trained.best_epoch == 2


def test_thin_data_is_refused_with_numbers() -> None:
    with pytest.raises(TooLittleDataError, match=r"38 training targets over 40 items .* 200 over 20"):
        train(cyclic_histories(num_users=2, num_events=24))
    with pytest.raises(TooLittleDataError, match="over 10 items"):
        train(cyclic_histories(num_users=90, num_events=9, num_items=10))


def test_rows_outside_the_vocabulary_are_refused() -> None:
    histories = cyclic_histories(num_users=60, num_events=24, num_items=70)
    with pytest.raises(ValueError, match="item_rows_E runs from 2 to 71, expected 1 to 61"):
        train(histories)


def test_slices_longer_than_the_model_are_refused() -> None:
    with pytest.raises(ValueError, match="a slice has 8 events, the model takes 4"):
        train(cyclic_histories(num_users=60, num_events=24), replace(QUICK, slice_events=4))
