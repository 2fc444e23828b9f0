"""Every objective and merge trains: on users who walk round the items in one order, the next item is learned."""

from __future__ import annotations

import pytest

from encoders.train import train_model
from encoders.training_config import Objective, TrainConfig
from tests.encoders.cases import MINUTE_MS, cyclic_histories, cyclic_vocabulary

SMALL = {"slice_events": 8, "dim": 32, "num_layers": 1, "max_epochs": 6, "patience_epochs": 0, "batch_events": 256}
CHANCE = 0.08
"""NDCG@10 of a blind guess: the target is somewhere among 60 items less those seen."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        # Binary losses first learn how rare a target is, and only then which one it is.
        {"objective": Objective(kind="gbce", num_negatives=8, calibration=0.1), "max_epochs": 40},
        {"objective": Objective(num_targets=3)},
        {"objective": Objective(num_targets=2, full_softmax_items=10, num_negatives=40)},
        {"objective": Objective(reconstruction_weight=0.0, hide_seen=False)},
        {"precision": "bf16"},
        {"merge": "none"},
        {"merge": "mean"},
        {"merge": "gate"},
        {"merge": "concat"},
        {"merge": "tokens"},
        {"context_events": 0},
    ],
    ids=str,
)
def test_the_next_item_is_learned(changes: dict[str, object]) -> None:
    config = TrainConfig(**{**SMALL, **changes})  # type: ignore[arg-type]
    trained = train_model(cyclic_histories(120, 24), cyclic_vocabulary(), config, 20 * MINUTE_MS, lambda _: None)
    first, last = trained.curve[0], trained.curve[-1]
    assert last.prediction_loss < first.prediction_loss
    assert last.validation_ndcg10 is not None and last.validation_ndcg10 > 4 * CHANCE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_targets": 0}, "num_targets 0"),
        ({"calibration": 1.5}, "calibration 1.5"),
        ({"reconstruction_weight": -0.1}, "reconstruction_weight -0.1"),
    ],
)
def test_objectives_out_of_range_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(**changes)  # type: ignore[arg-type]
