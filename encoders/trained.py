"""What a training tells while it runs, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from encoders.training_config import TrainConfig
from encoders.transformer import SliceModel
from encoders.vocabulary import Vocabulary


@dataclass(frozen=True)
class TrainProgress:
    """Where a training stands: after an epoch, or within one.

    Args:
        epoch: from 1.
        share: of the training as planned, by steps or by time, whichever is further.
        prediction_loss: mean cross-entropy of the epoch's batches so far, in nats.
        reconstruction_loss: mean squared error of the autoencoder over the same batches.
        validation_ndcg10: NDCG@10 after the epoch; None within an epoch, or if nothing comes after the split.
        elapsed_s: seconds since training began, by the injected clock.
        events_per_s: events trained on per second of this epoch, in all processes together.
    """

    epoch: int
    share: float
    prediction_loss: float
    reconstruction_loss: float
    validation_ndcg10: float | None
    elapsed_s: float
    events_per_s: float = 0.0

    @property
    def left_s(self) -> float:
        """Seconds until the planned end at the pace so far; patience may end the training before."""
        return self.elapsed_s * (1 - self.share) / self.share


@dataclass(frozen=True)
class TrainedModel:
    """A trained network with all that is needed to save and use it.

    Args:
        model: in evaluation mode, on the CPU.
        vocabulary: of its rows.
        config: it was trained with.
        split_ms: first moment not learned from, in milliseconds.
        num_train_targets: predictions learned from per epoch.
        num_validation_targets: predictions judged per epoch.
        curve: every epoch trained; the last may have been cut short by the time budget.
        best_epoch: the epoch whose weights these are.
        item_sources: as in `ModelSpec`.
    """

    model: SliceModel
    vocabulary: Vocabulary
    config: TrainConfig
    split_ms: int
    num_train_targets: int
    num_validation_targets: int
    curve: tuple[TrainProgress, ...]
    best_epoch: int
    item_sources: Mapping[str, str] = field(default_factory=dict)
