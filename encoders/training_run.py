"""One training's moving parts: model, average, optimizer and batches. `epoch` goes once over the data.

Shapes: N targets of a batch, E events, V rows of the item table, M sampled negatives, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.averaging import WeightAverage
from encoders.contract import Int64Array
from encoders.devices import Devices, seed_torch
from encoders.forward import batch_outputs
from encoders.histories import TrainingHistories, initial_half_lives_ms, recut
from encoders.item_features import FeatureSpec, KnownItems
from encoders.loss import calibrated_bce_loss, full_softmax_loss, proposal_shares, sampled_softmax_loss
from encoders.sampling import BatchSampler, SliceReader, TrainBatch
from encoders.schedule import progress_share, rate_share
from encoders.spec import ModelDims, ModelShape
from encoders.trained import TrainProgress
from encoders.training_config import BackboneSettings, TrainConfig
from encoders.training_state import optimizer_state, optimizer_tensors, prefixed, under
from encoders.transformer import SliceModel
from encoders.vocabulary import FIRST_NAME_ROW, Vocabulary

if TYPE_CHECKING:
    from encoders.backbone import SequenceBackbone

REPORT_EVERY_S = 5.0
"""Between two reports within an epoch: often enough to see that it goes on."""


class StepLoss(nn.Module):
    """Everything of a step that has gradients, as the one call that several processes are kept in step by."""

    def __init__(self, model: SliceModel, config: TrainConfig, shares_V: Tensor) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.register_buffer("log_shares_V", shares_V.log().float(), persistent=False)

    def forward(self, batch: TrainBatch, negatives_M: Tensor | None) -> tuple[Tensor, Tensor]:
        """Prediction and reconstruction loss of a batch; the softmax is full where there are no negatives."""
        objective = self.config.objective
        with torch.autocast(batch.target_rows_SL.device.type, torch.bfloat16, self.config.precision == "bf16"):
            users_ND, targets_NT, reconstruction = batch_outputs(self.model, batch, objective.num_targets)
            inputs = (users_ND, self.model.item_table(), targets_NT)
            if negatives_M is None:
                # Only where no target is a repeat: else it could be among the seen.
                seen_X2 = batch.seen_X2 if objective.hide_seen and objective.skip_repeat_targets else None
                return full_softmax_loss(*inputs, seen_X2), reconstruction
            if objective.kind == "gbce":
                return calibrated_bce_loss(*inputs, negatives_M, objective.calibration), reconstruction
            return sampled_softmax_loss(*inputs, negatives_M, self.get_buffer("log_shares_V")), reconstruction


class EpochSums:
    """What has been summed over an epoch's batches so far."""

    def __init__(self, started_s: float, device: torch.device) -> None:
        self.started_s = started_s
        self.losses = torch.zeros(2, dtype=torch.float64, device=device)
        self.num_batches = 0
        self.num_events = 0

    def add(self, prediction: Tensor, reconstruction: Tensor, num_events: int) -> None:
        """Count one batch."""
        self.losses += torch.stack([prediction.detach(), reconstruction.detach()])
        self.num_batches += 1
        self.num_events += num_events


class TrainingRun:
    """Model, average, optimizer and batches of one training.

    Args:
        past: histories before the split, and nothing else.
        vocabulary: of their rows.
        config: model and training settings.
        targets_E: see `histories.next_targets`.
        devices: where to train.
        clock: seconds.
        items: what is known of the vocabulary's items; None trains embeddings alone.
        model: to train on, in place; None starts a new one.
    """

    def __init__(
        self,
        past: TrainingHistories,
        vocabulary: Vocabulary,
        config: TrainConfig,
        targets_E: Int64Array,
        devices: Devices,
        clock: Callable[[], float],
        items: KnownItems | None = None,
        model: SliceModel | None = None,
    ) -> None:
        self.config = config
        self.devices = devices
        self.clock = clock
        self.model = _new_model(past, vocabulary, config, items) if model is None else model
        dims = self.model.dims
        self._past = past
        self._targets_E = targets_E
        self.sampler = self._sampler(past)
        counts_V = np.bincount(targets_E[targets_E > 0], minlength=dims.num_item_rows)
        self.shares_V = proposal_shares(torch.from_numpy(counts_V.astype(np.float64)))
        self.step_loss = devices.prepared(StepLoss(self.model, config, self.shares_V))
        self.optimizer = new_optimizer(self.model, config)
        share = config.optimisation.average_share
        self.average = WeightAverage(self.model, share) if share else None
        self.num_steps = 0
        self.started_s = clock()

    def _sampler(self, past: TrainingHistories) -> BatchSampler:
        dims = self.model.dims
        reader = SliceReader(past, dims.gap_edges_ms, dims.slice_events, dims.context_events)
        limits = {"max_slices": self.config.max_slices, "batch_events": self.config.batch_events}
        return BatchSampler(reader, self._targets_E, **limits)

    @property
    def judged(self) -> SliceModel:
        """The model that is judged and kept: the average, where there is one."""
        return self.average.model if self.average else self.model

    def progress(self, *, num_more: int = 0) -> float:
        """Share of the training that is over, or will be after some more steps; the same in every process.

        All processes have to ask together, as the main one's clock counts.
        """
        num_planned = self.config.max_epochs * self.sampler.num_batches(self.devices.num_ranks)
        budget_s = self.config.time_budget_s
        elapsed_s = self.devices.agreed(self.clock() - self.started_s) if budget_s else 0.0
        return progress_share(self.num_steps + num_more, num_planned, elapsed_s, budget_s)

    def epoch(self, number: int, on_step: Callable[[TrainProgress], None]) -> EpochSums:
        """Train once over the data, or until the time is over; at least one step.

        Args:
            number: of the epoch, from 1; with the seed it decides order, dropout and samples.
            on_step: told every `REPORT_EVERY_S` how it goes; in the main process only.
        """
        seed_torch(self.config.seed, number, self.devices.rank)
        generator = np.random.default_rng([self.config.seed, number])
        if self.config.random_phase:
            self.sampler = self._sampler(recut(self._past, self.config.slice_events, generator))
        self.model.train()
        sums = EpochSums(self.clock(), self.devices.device)
        reported_s = sums.started_s
        batches = self.sampler.epoch(
            generator, self.config.unknown_share, rank=self.devices.rank, num_ranks=self.devices.num_ranks
        )
        for batch in batches:
            share = self.progress(num_more=1)
            self._step(batch, generator, share, sums)
            if share >= 1.0:
                break
            now_s = self.clock()
            if self.devices.is_main and now_s - reported_s >= REPORT_EVERY_S:
                reported_s = now_s
                on_step(self.point(number, sums, share))
        return sums

    def point(
        self, number: int, sums: EpochSums, share: float, validation_ndcg10: float | None = None
    ) -> TrainProgress:
        """Where the training stands, by this process's own batches and clock."""
        now_s = self.clock()
        prediction, reconstruction = (sums.losses / sums.num_batches).tolist()
        num_events = sums.num_events * self.devices.num_ranks
        return TrainProgress(
            number,
            share,
            prediction,
            reconstruction,
            validation_ndcg10,
            now_s - self.started_s,
            num_events / max(1e-9, now_s - sums.started_s),
        )

    def _step(self, batch: TrainBatch, generator: np.random.Generator, share: float, sums: EpochSums) -> None:
        self.set_rate(share)
        prediction, reconstruction = self.step_loss(batch.to(self.devices.device), self._negatives(generator))
        self.optimizer.zero_grad()
        (prediction + self.config.objective.reconstruction_weight * reconstruction).backward()
        self.take_step()
        self.num_steps += 1
        if self.average:
            self.average.take(self.model, self.num_steps)
        sums.add(prediction, reconstruction, batch.num_events)

    def set_rate(self, share: float) -> None:
        """Set the learning rate for a share of the training that is over."""
        config = self.config.optimisation
        rate = config.learning_rate * rate_share(share, config.warmup_share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_share"]

    def take_step(self) -> None:
        """Change the weights by the gradients there are."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimisation.clip_norm)
        self.optimizer.step()

    def _negatives(self, generator: np.random.Generator) -> Tensor | None:
        """Rows to be told from the targets; None where the vocabulary is small enough for all of them."""
        objective = self.config.objective
        if objective.is_full(len(self.shares_V)):
            return None
        if objective.kind == "gbce":
            num_items = len(self.shares_V) - FIRST_NAME_ROW
            num_drawn = min(objective.num_negatives, num_items - 1)
            negatives_M = FIRST_NAME_ROW + generator.choice(num_items, num_drawn, replace=False)
        else:
            negatives_M = generator.choice(len(self.shares_V), objective.num_negatives, p=self.shares_V.numpy())
        return torch.from_numpy(negatives_M).to(self.devices.device)

    def tensors(self) -> dict[str, Tensor]:
        """Everything learned so far, by name."""
        moments = prefixed("optimizer", optimizer_tensors(self.optimizer.state_dict()["state"]))
        average = prefixed("average", self.average.model.state_dict()) if self.average else {}
        return {**prefixed("model", self.model.state_dict()), **average, **moments}

    def take(self, tensors: Mapping[str, Tensor], num_steps: int, elapsed_s: float) -> None:
        """Go on from the tensors of another run of the same training."""
        self.model.load_state_dict(under("model", tensors))
        if self.average:
            self.average.model.load_state_dict(under("average", tensors))
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict(
            {"state": optimizer_state(under("optimizer", tensors)), "param_groups": groups},
        )
        self.num_steps = num_steps
        self.started_s = self.clock() - elapsed_s


def _new_model(
    past: TrainingHistories, vocabulary: Vocabulary, config: TrainConfig, items: KnownItems | None
) -> SliceModel:
    dims = model_dims(vocabulary, config, items.spec if items else FeatureSpec())
    backbone = None
    if config.backbone is not None:
        backbone = _new_backbone(config.backbone, dims)
        dims = replace(dims, backbone=backbone.config())
    half_lives_ms = initial_half_lives_ms(past, config.num_half_lives)
    return SliceModel(dims, half_lives_ms, config.dropout, items.features if items else None, backbone)


def _new_backbone(settings: BackboneSettings, dims: ModelDims) -> SequenceBackbone:
    # The library takes seconds and 200 MB to import; trainings without a backbone have no use for it.
    from encoders.backbone import make_backbone

    return make_backbone(settings, dims.dim, dims.num_places)


def model_dims(vocabulary: Vocabulary, config: TrainConfig, items: FeatureSpec) -> ModelDims:
    """The tensors' shapes of a model for this vocabulary, with blocks."""
    shape: dict[str, Any] = {one.name: getattr(config, one.name) for one in fields(ModelShape)}
    shape["context_events"] = min(config.context_events, config.slice_events)
    return ModelDims(vocabulary.num_item_rows, vocabulary.num_type_rows, items=items, **shape)


def new_optimizer(model: SliceModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: not norms, biases, embeddings or half-lives.

    A backbone has a rate of its own, see `BackboneSettings.rate_share`.
    """
    of_backbone = set() if model.backbone is None else {id(weight) for weight in model.backbone.model.parameters()}
    may_decay = of_backbone | {id(weight) for weight in model.blocks.parameters()}
    backbone_share = config.backbone.rate_share if config.backbone else 1.0
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for weight in model.parameters():
        decay = config.optimisation.weight_decay if weight.ndim == 2 and id(weight) in may_decay else 0.0
        share = backbone_share if id(weight) in of_backbone else 1.0
        groups.setdefault((decay, share), []).append(weight)
    # In this order, as checkpoints know a weight by its place.
    ordered = [
        {"params": groups[decay, share], "weight_decay": decay, "rate_share": share}
        for decay, share in sorted(groups, reverse=True)
    ]
    return torch.optim.AdamW(ordered, lr=config.optimisation.learning_rate, betas=(0.9, 0.98), fused=True)
