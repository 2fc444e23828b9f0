"""How a model is built and trained: all dials of a training, frozen, in groups. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from encoders.spec import ModelShape
from encoders.vocabulary import FIRST_NAME_ROW

PRETRAINED_RATE_SHARE = 0.05
"""Of the rate for new weights: 1e-4 where that is 2e-3, as usual for fine-tuning; more would undo what they know."""


@dataclass(frozen=True)
class Optimisation:
    """AdamW, its rate and what is made of the weights it passes through.

    Args:
        learning_rate: AdamW's, after warm-up.
        weight_decay: AdamW's.
        warmup_share: share of the training in which the rate rises from zero.
        clip_norm: longest gradient.
        average_share: half-life of the moving average of the weights, as a share of the steps so far; the
            average is judged and kept in place of the last weights. 0: no average.

    Raises:
        ValueError: if a number is outside of its range.
    """

    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.05
    clip_norm: float = 1.0
    average_share: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.average_share < 1:
            raise ValueError(f"average_share is {self.average_share}, expected a share from 0 to below 1")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share is {self.warmup_share}, expected a share from 0 to below 1")


@dataclass(frozen=True)
class Objective:
    """What is to be predicted, and how that is rewarded.

    Args:
        kind: "softmax" is cross-entropy, among all items or among sampled ones, see `full_softmax_items`; "gbce" is the
            calibrated binary cross-entropy of gSASRec, always among sampled ones.
        num_targets: next items that each place predicts; more than 1 is dense all-action.
        full_softmax_items: up to so many items the softmax is full, above it is sampled.
        num_negatives: drawn per batch where items are sampled.
        calibration: t of gBCE, 0 to 1.
        reconstruction_weight: of the autoencoder's loss beside the prediction's; 0 leaves it out.
        skip_repeat_targets: whether items a user had touched before are no targets.
        hide_seen: whether they take no part in a full softmax either, as they take none in lists. Without effect where
            they may be targets.

    Raises:
        ValueError: if a number is outside of its range.
    """

    kind: Literal["softmax", "gbce"] = "softmax"
    num_targets: int = 1
    full_softmax_items: int = 50_000
    num_negatives: int = 4096
    calibration: float = 0.75
    reconstruction_weight: float = 0.1
    skip_repeat_targets: bool = True
    hide_seen: bool = True

    def __post_init__(self) -> None:
        if self.num_targets < 1 or self.num_negatives < 1:
            raise ValueError(f"num_targets {self.num_targets} and num_negatives {self.num_negatives}: at least 1 each")
        if not 0 <= self.calibration <= 1 or self.reconstruction_weight < 0:
            raise ValueError(
                f"calibration {self.calibration}, reconstruction_weight {self.reconstruction_weight}: "
                f"expected 0 to 1, and 0 or more"
            )

    def is_full(self, num_item_rows: int) -> bool:
        """Whether all items are told from the target; `num_item_rows` as in `ModelDims`."""
        return self.kind == "softmax" and num_item_rows - FIRST_NAME_ROW <= self.full_softmax_items


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters on every linear layer: W + (alpha / rank) · B A, with A and B learned, W frozen.

    Args:
        rank: columns of B.
        alpha: scale of the adapters; twice the rank is usual.
        dropout: share of the adapters' inputs dropped in training.

    Source: arXiv 2106.09685; all linear layers as in arXiv 2305.14314.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"{self}: expected rank and alpha of at least 1 and a dropout in [0, 1)")


@dataclass(frozen=True)
class BackboneSettings:
    """Which sequence model of the transformers library stands in place of the blocks, and how it is trained.

    Args:
        source: of pretrained weights, see `encoders.pretrained.locate`; None makes random ones from `config`.
        config: fields of the library's configuration, ``model_type`` among them; empty with a source.
        tuning: "full" trains all weights, "lora" adapters only.
        lora: shape of the adapters.
    """

    source: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    tuning: Literal["full", "lora"] = "full"
    lora: LoraSettings = field(default_factory=LoraSettings)

    def __post_init__(self) -> None:
        if (self.source is None) == (not self.config):
            raise ValueError("a backbone needs either a source of weights or a configuration, not both")
        if self.tuning not in ("full", "lora"):
            raise ValueError(f"tuning is {self.tuning!r}, expected 'full' or 'lora'")
        if self.tuning == "lora" and self.source is None:
            raise ValueError("LoRA leaves the weights as they are, and these would be random; give a source of weights")

    @property
    def rate_share(self) -> float:
        """The backbone's learning rate as a share of the others': low where all of its weights were trained before."""
        return PRETRAINED_RATE_SHARE if self.source is not None and self.tuning == "full" else 1.0


@dataclass(frozen=True)
class TrainConfig(ModelShape):
    """How a model is built and trained. The defaults suit logs of ten thousand to a few million events.

    With slices shorter than `context_events`, contexts are as long as slices.

    Args:
        dropout: share of values dropped while training.
        objective: what is predicted.
        optimisation: optimizer, rate and averaging.
        max_epochs: passes over the data at most.
        patience_epochs: stop after so many epochs without a better validation and keep the best weights;
            0 trains all epochs and keeps the last weights.
        batch_events: events of a batch, in each process.
        max_slices: longest run of slices trained on at once; a longer user is cut into several runs.
        random_phase: whether the borders of full slices are moved at random in each epoch, see `histories.recut`.
        unknown_share: share of inputs replaced by the unknown item, so that its row is trained.
        max_validation_targets: judged per epoch; more are sampled down.
        time_budget_s: seconds of the injected clock in which training ends, validations included. The rate
            comes to rest with it. It makes the number of steps, and so the weights, depend on the machine.
            None: no limit.
        precision: of the arithmetic; the weights are float32 either way.
        seed: of weights, order, dropout and samples. Same seed, same weights, on one thread of one process.
        backbone: in place of the blocks; None for blocks.
    """

    dropout: float = 0.2
    objective: Objective = field(default_factory=Objective)
    optimisation: Optimisation = field(default_factory=Optimisation)
    max_epochs: int = 20
    patience_epochs: int = 3
    batch_events: int = 1024
    max_slices: int = 24
    random_phase: bool = True
    unknown_share: float = 0.03
    max_validation_targets: int = 5000
    time_budget_s: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    backbone: BackboneSettings | None = None


def config_values(config: TrainConfig) -> dict[str, Any]:
    """All dials as JSON values; a backbone is named only where there is one."""
    return {name: value for name, value in asdict(config).items() if name != "backbone" or value is not None}
