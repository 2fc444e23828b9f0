"""Training: next-item prediction over sliced histories, with a strict split in time.

What comes at or after the split is judged, never learned from: training sees the histories cut off there.
With early stopping the split's later part does choose *which* epoch's weights are kept; no more than that.

Shapes: N targets of a batch, S slices, L events, U runs, K slices of a run, H half-lives, D dimensions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.contract import TooLittleDataError
from encoders.histories import TrainingHistories, initial_half_lives_ms, next_targets
from encoders.loss import full_softmax_loss, proposal_shares, sampled_softmax_loss
from encoders.sampling import BatchSampler, PaddedSlices, SliceReader, TrainBatch
from encoders.spec import ModelDims
from encoders.transformer import SliceModel, decayed_means
from encoders.validation import ValidationPlan, plan_validation, validation_ndcg
from encoders.vocabulary import FIRST_NAME_ROW, Vocabulary

MIN_TARGETS = 200
MIN_ITEMS = 20


@dataclass(frozen=True)
class TrainConfig:
    """How a model is built and trained. The defaults suit logs of ten thousand to a few million events.

    Args:
        dim: D, length of all vectors.
        num_layers: transformer blocks.
        num_heads: attention heads of each block.
        slice_events: L, longest slice.
        num_half_lives: H, decayed means kept per user.
        dropout: share of values dropped while training.
        learning_rate: AdamW's, after warm-up.
        weight_decay: AdamW's.
        warmup_share: share of all steps in which the rate rises from zero.
        clip_norm: longest gradient.
        max_epochs: passes over the data at most.
        patience_epochs: stop after so many epochs without a better validation and keep the best weights;
            0 trains all epochs and keeps the last weights.
        batch_events: events of a batch.
        max_slices: longest run of slices trained on at once; a longer user is cut into several runs.
        unknown_share: share of inputs replaced by the unknown item, so that its row is trained.
        reconstruction_weight: of the autoencoder's loss beside the prediction's.
        skip_repeat_targets: whether items a user had touched before are left out of the loss.
        full_softmax_items: up to so many items the softmax is full, above it is sampled.
        num_negatives: drawn per batch where it is sampled.
        max_validation_targets: judged per epoch; more are sampled down.
        time_budget_s: seconds of the injected clock in which training ends, checked after each epoch; it
            makes the number of epochs, and so the weights, depend on the machine. None: no limit.
        seed: of weights, order, dropout and samples. Same seed, same weights, on one thread.
    """

    dim: int = 64
    num_layers: int = 2
    num_heads: int = 2
    slice_events: int = 16
    num_half_lives: int = 4
    dropout: float = 0.2
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.05
    clip_norm: float = 1.0
    max_epochs: int = 20
    patience_epochs: int = 3
    batch_events: int = 1024
    max_slices: int = 24
    unknown_share: float = 0.03
    reconstruction_weight: float = 0.1
    skip_repeat_targets: bool = True
    full_softmax_items: int = 50_000
    num_negatives: int = 4096
    max_validation_targets: int = 5000
    time_budget_s: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class TrainProgress:
    """One finished epoch.

    Args:
        epoch: from 1.
        planned_epochs: epochs that are still intended, this one included.
        prediction_loss: mean cross-entropy of the epoch's batches, in nats.
        reconstruction_loss: mean squared error of the autoencoder.
        validation_ndcg10: NDCG@10 after the epoch; None if nothing comes after the split.
        elapsed_s: seconds since training began, by the injected clock.
    """

    epoch: int
    planned_epochs: int
    prediction_loss: float
    reconstruction_loss: float
    validation_ndcg10: float | None
    elapsed_s: float


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
        curve: every epoch trained.
        best_epoch: the epoch whose weights these are.
    """

    model: SliceModel
    vocabulary: Vocabulary
    config: TrainConfig
    split_ms: int
    num_train_targets: int
    num_validation_targets: int
    curve: tuple[TrainProgress, ...]
    best_epoch: int


def use_threads(num_threads: int) -> None:
    """Let the arithmetic of this process use so many threads; more than one may change the last digits."""
    torch.set_num_threads(num_threads)


def train_model(
    histories: TrainingHistories,
    vocabulary: Vocabulary,
    config: TrainConfig,
    split_ms: int,
    on_progress: Callable[[TrainProgress], None],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> TrainedModel:
    """Train a model on everything before the split and judge it on what follows.

    Args:
        histories: whole histories; no slice longer than ``config.slice_events``.
        vocabulary: of items and types seen *before* the split; the caller gives later ones row 1.
        config: model and training settings.
        split_ms: targets before it are trained on, those at or after it are validation.
        on_progress: called after each epoch; what it raises ends the training.
        clock: seconds, for `time_budget_s` and `elapsed_s`.

    Raises:
        TooLittleDataError: with fewer than `MIN_TARGETS` targets or `MIN_ITEMS` items before the split.
        ValueError: if the histories do not fit the vocabulary or the config.
    """
    past = histories.before(split_ms)
    _check_rows(histories, vocabulary)
    targets_E = next_targets(past, skip_repeats=config.skip_repeat_targets)
    _check_enough(past, int((targets_E > 0).sum()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        run = _Run(past, vocabulary, config, targets_E)
        reader = SliceReader(histories, run.model.dims.gap_edges_ms, config.slice_events)
        plan = plan_validation(reader, split_ms, config.max_validation_targets, config.seed)
        curve, best_epoch = _epochs(run, plan, on_progress, clock)
    return TrainedModel(
        run.model.eval(),
        vocabulary,
        config,
        split_ms,
        int((targets_E > 0).sum()),
        len(plan.events_T),
        tuple(curve),
        best_epoch,
    )


def _check_rows(histories: TrainingHistories, vocabulary: Vocabulary) -> None:
    for rows, num_rows, name in (
        (histories.item_rows_E, vocabulary.num_item_rows, "item_rows_E"),
        (histories.type_rows_E, vocabulary.num_type_rows, "type_rows_E"),
    ):
        if len(rows) and (rows.min() < 1 or rows.max() >= num_rows):
            raise ValueError(
                f"{name} runs from {rows.min()} to {rows.max()}, expected 1 to {num_rows - 1}; "
                f"take the rows from the vocabulary handed over"
            )


def _check_enough(past: TrainingHistories, num_targets: int) -> None:
    num_items = len(np.unique(past.item_rows_E[past.item_rows_E >= FIRST_NAME_ROW]))
    if num_targets < MIN_TARGETS or num_items < MIN_ITEMS:
        raise TooLittleDataError(
            f"{num_targets} training targets over {num_items} items before the split, expected at least "
            f"{MIN_TARGETS} over {MIN_ITEMS}; bring more events, or move the split to a later time"
        )


class _Run:
    """The parts of one training: model, optimizer, batches; `epoch` goes once over the data."""

    def __init__(
        self,
        past: TrainingHistories,
        vocabulary: Vocabulary,
        config: TrainConfig,
        targets_E: np.typing.NDArray[np.int64],
    ) -> None:
        dims = ModelDims(
            vocabulary.num_item_rows,
            vocabulary.num_type_rows,
            config.dim,
            config.num_layers,
            config.num_heads,
            config.slice_events,
            config.num_half_lives,
        )
        self.config = config
        self.model = SliceModel(dims, initial_half_lives_ms(past, config.num_half_lives), config.dropout)
        self.sampler = BatchSampler(
            SliceReader(past, dims.gap_edges_ms, config.slice_events),
            targets_E,
            max_slices=config.max_slices,
            batch_events=config.batch_events,
        )
        counts_V = np.bincount(targets_E[targets_E > 0], minlength=dims.num_item_rows)
        self.shares_V = proposal_shares(torch.from_numpy(counts_V.astype(np.float64)))
        self.log_shares_V = self.shares_V.log().float()
        self.optimizer = _optimizer(self.model, config)
        self.planned_epochs = config.max_epochs
        self.num_steps = 0

    def epoch(self, number: int) -> tuple[float, float]:
        """Train once over the data; mean prediction and reconstruction loss."""
        self.model.train()
        generator = np.random.default_rng([self.config.seed, number])
        losses: list[tuple[float, float]] = []
        for batch in self.sampler.epoch(generator, self.config.unknown_share):
            self._set_rate()
            losses.append(self._step(batch, generator))
        prediction, reconstruction = np.mean(losses, axis=0).tolist()
        return prediction, reconstruction

    def _set_rate(self) -> None:
        num_planned = self.planned_epochs * self.sampler.num_batches()
        share = rate_share(self.num_steps, num_planned, self.config.warmup_share)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * share
        self.num_steps += 1

    def _step(self, batch: TrainBatch, generator: np.random.Generator) -> tuple[float, float]:
        users_ND, targets_N, reconstruction = batch_outputs(self.model, batch)
        table_VD = self.model.items.weight
        if table_VD.shape[0] - FIRST_NAME_ROW <= self.config.full_softmax_items:
            prediction = full_softmax_loss(users_ND, table_VD, targets_N)
        else:
            shares = self.shares_V.numpy()
            negatives_M = generator.choice(len(shares), self.config.num_negatives, p=shares)
            prediction = sampled_softmax_loss(
                users_ND, table_VD, targets_N, torch.from_numpy(negatives_M), self.log_shares_V
            )
        self.optimizer.zero_grad()
        (prediction + self.config.reconstruction_weight * reconstruction).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        return prediction.item(), reconstruction.item()


def _optimizer(model: SliceModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: not norms, biases, embeddings or half-lives."""
    decayed = [weight for name, weight in model.blocks.named_parameters() if weight.ndim == 2]
    chosen = {id(weight) for weight in decayed}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )


def rate_share(step: int, num_steps: int, warmup_share: float) -> float:
    """Share of the full learning rate at a step: linear warm-up, then half a cosine down to 1%.

    >>> [round(rate_share(step, 100, 0.1), 2) for step in (0, 9, 99)]
    [0.1, 1.0, 0.01]
    """
    num_warmup = max(1, round(num_steps * warmup_share))
    if step < num_warmup:
        return (step + 1) / num_warmup
    progress = min(1.0, (step + 1 - num_warmup) / max(1, num_steps - num_warmup))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def batch_outputs(model: SliceModel, batch: TrainBatch) -> tuple[Tensor, Tensor, Tensor]:
    """User vectors (N, D) at every place with a target, the targets (N,), and the reconstruction loss."""
    states_SLD, raw_SLD = _states_by_length(model, batch.slices)
    pooled, _ = model.pooled(states_SLD, raw_SLD, batch.slices.lengths_S)
    codes_SD, summary_SX = model.codes(pooled)
    codes_UKD = codes_SD.new_zeros((*batch.ends_ms_UK.shape, codes_SD.shape[1]))
    codes_UKD = codes_UKD.index_put((batch.runs_S, batch.ranks_S), codes_SD)
    merged_UKHD = decayed_means(codes_UKD, batch.log_weights_UK, batch.ends_ms_UK, model.half_lives_ms())
    merged_SHD = merged_UKHD[batch.runs_S, batch.ranks_S]
    memory_SD = model.memory_vectors(merged_SHD, batch.ranks_S > 0)
    slices_N, places_N = torch.nonzero(batch.target_rows_SL, as_tuple=True)
    users_ND = model.user_vectors(states_SLD[slices_N, places_N], memory_SD[slices_N])
    targets_N = batch.target_rows_SL[slices_N, places_N]
    return users_ND, targets_N, model.reconstruction_loss(codes_SD, summary_SX)


def _states_by_length(model: SliceModel, slices: PaddedSlices) -> tuple[Tensor, Tensor]:
    """`SliceModel.states`, without paying for the padding of short slices: lengths 1, 2-4 and the rest apart.

    Where sessions are short nearly all slices hold one event; padded to 16 they would cost sixteen times.
    """
    num_places = slices.item_rows_SL.shape[1]
    bounds = sorted({min(bound, num_places) for bound in (1, 4, num_places)})
    group_S = torch.searchsorted(torch.tensor(bounds), slices.lengths_S)
    parts: list[tuple[Tensor, Tensor]] = []
    for group, bound in enumerate(bounds):
        rows = group_S == group
        tables = (slices.item_rows_SL, slices.type_rows_SL, slices.gap_rows_SL)
        states, raw = model.states(*(table[rows, :bound] for table in tables))
        missing = (0, 0, 0, num_places - bound)
        parts.append((F.pad(states, missing), F.pad(raw, missing)))
    back_S = torch.argsort(torch.argsort(group_S, stable=True))
    states_SLD, raw_SLD = (torch.cat(values)[back_S] for values in zip(*parts, strict=True))
    return states_SLD, raw_SLD


def _epochs(
    run: _Run,
    plan: ValidationPlan,
    on_progress: Callable[[TrainProgress], None],
    clock: Callable[[], float],
) -> tuple[list[TrainProgress], int]:
    """Train until the epochs, the patience or the time is used up; the chosen weights are in the model."""
    started_s = clock()
    curve: list[TrainProgress] = []
    best: tuple[float, int, dict[str, Tensor]] | None = None
    while len(curve) < run.planned_epochs:
        prediction, reconstruction = run.epoch(len(curve) + 1)
        ndcg = validation_ndcg(run.model, plan) if len(plan.events_T) else None
        elapsed_s = clock() - started_s
        run.planned_epochs = _planned_epochs(run.config, len(curve) + 1, elapsed_s)
        curve.append(TrainProgress(len(curve) + 1, run.planned_epochs, prediction, reconstruction, ndcg, elapsed_s))
        on_progress(curve[-1])
        if ndcg is None or not run.config.patience_epochs:
            continue
        if best is None or ndcg > best[0]:
            best = ndcg, len(curve), {name: value.clone() for name, value in run.model.state_dict().items()}
        elif len(curve) - best[1] >= run.config.patience_epochs:
            break
    if best is None:
        return curve, len(curve)
    run.model.load_state_dict(best[2])
    return curve, best[1]


def _planned_epochs(config: TrainConfig, num_done: int, elapsed_s: float) -> int:
    """Epochs that fit the time budget at the pace so far, so that the rate's schedule still comes to rest."""
    if config.time_budget_s is None or elapsed_s <= 0:
        return config.max_epochs
    fitting = int(config.time_budget_s / (elapsed_s / num_done))
    return min(config.max_epochs, max(num_done, fitting))
