"""Training: next-item prediction over sliced histories, with a strict split in time.

What comes at or after the split is judged, never learned from: training sees the histories cut off there.
With early stopping the split's later part does choose *which* epoch's weights are kept; no more than that.

Shapes: E events.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.contract import TooLittleDataError
from encoders.devices import Devices, seed_torch
from encoders.histories import TrainingHistories, next_targets
from encoders.item_features import KnownItems
from encoders.sampling import SliceReader
from encoders.spec import canonical
from encoders.trained import TrainedModel, TrainProgress
from encoders.training_config import TrainConfig, config_values
from encoders.training_run import TrainingRun
from encoders.training_state import Checkpoints, TrainingState, prefixed, under
from encoders.transformer import SliceModel
from encoders.validation import ValidationPlan, plan_validation, validation_ndcg
from encoders.vocabulary import FIRST_NAME_ROW, Vocabulary

MIN_TARGETS = 200
MIN_ITEMS = 20

OnProgress = Callable[[TrainProgress], None]


def use_threads(num_threads: int) -> None:
    """Let the arithmetic of this process use so many threads; more than one may change the last digits."""
    torch.set_num_threads(num_threads)


def train_model(
    histories: TrainingHistories,
    vocabulary: Vocabulary,
    config: TrainConfig,
    split_ms: int,
    on_progress: OnProgress,
    *,
    on_step: OnProgress = lambda _: None,
    checkpoint_folder: Path | None = None,
    resume: bool = False,
    clock: Callable[[], float] = time.monotonic,
    items: KnownItems | None = None,
) -> TrainedModel:
    """Train a model on everything before the split and judge it on what follows.

    Started in several processes (see `devices`), each calls this with the same arguments and gets the same model.

    Args:
        histories: whole histories; no slice longer than ``config.slice_events``.
        vocabulary: of items and types seen *before* the split; the caller gives later ones row 1.
        config: model and training settings.
        split_ms: targets before it are trained on, those at or after it are validation.
        on_progress: called after each epoch, once its checkpoint is written; what it raises ends the training.
            In the main process only, as all that is told or written.
        on_step: called every few seconds within an epoch.
        checkpoint_folder: where to keep the newest two epochs, to `resume` from.
        resume: go on from the newest checkpoint there, to the same weights as without the break; begin where
            there is none.
        clock: seconds, for `time_budget_s` and all that is told of time; `time.process_time` makes the budget
            one of processor time.
        items: what is known of the vocabulary's items besides their ids.

    Raises:
        TooLittleDataError: with fewer than `MIN_TARGETS` targets or `MIN_ITEMS` items before the split.
        CheckpointError: the checkpoints there are of another training, damaged, or there without `resume`.
        PretrainedModelError: the backbone cannot be had, or does not do.
        ValueError: if the histories do not fit the vocabulary or the config.
    """
    past = histories.before(split_ms)
    _check_rows(histories, vocabulary)
    targets_E = next_targets(past, skip_repeats=config.objective.skip_repeat_targets)
    num_targets = int((targets_E > 0).sum())
    _check_enough(past, num_targets)
    devices = Devices()
    with devices.own_randomness():
        seed_torch(config.seed)
        run = TrainingRun(past, vocabulary, config, targets_E, devices, clock, items)
        dims = run.model.dims
        reader = SliceReader(histories, dims.gap_edges_ms, dims.slice_events, dims.context_events)
        plan = plan_validation(reader, split_ms, config.max_validation_targets, config.seed)
        loop = _Loop(run, plan)
        if checkpoint_folder is not None:
            belongs_to = _belongs_to(histories, vocabulary, config, split_ms, devices)
            belongs_to["items_sha256"] = items.digest() if items else None
            loop.keep_in(Checkpoints(checkpoint_folder, belongs_to), resume=resume)
        loop.train(on_progress, on_step)
    best_epoch = loop.best_epoch or len(loop.curve)
    model = loop.best_model().cpu().eval()
    model.merge_lora()
    found = (split_ms, num_targets, len(plan.events_T), tuple(loop.curve), best_epoch)
    sources = items.sources if items else {}
    return TrainedModel(model.requires_grad_(False), vocabulary, config, *found, sources)


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


def _belongs_to(
    histories: TrainingHistories, vocabulary: Vocabulary, config: TrainConfig, split_ms: int, devices: Devices
) -> dict[str, object]:
    """All that decides the weights a training ends with, but for the machine."""
    names = [list(vocabulary.item_ids), list(vocabulary.type_names)]
    return {
        "config": config_values(config),
        "histories_sha256": histories.digest(),
        "vocabulary_sha256": hashlib.sha256(canonical(names)).hexdigest(),
        "split_ms": split_ms,
        "num_processes": devices.num_ranks,
    }


class _Loop:
    """Epochs until they, the patience or the time are used up, with the best weights kept aside."""

    def __init__(self, run: TrainingRun, plan: ValidationPlan) -> None:
        self.run = run
        self.plan = plan
        self.curve: list[TrainProgress] = []
        self.best_epoch = 0
        self._best: dict[str, Tensor] = {}
        self._checkpoints: Checkpoints | None = None

    def keep_in(self, checkpoints: Checkpoints, *, resume: bool) -> None:
        """Write checkpoints from now on, after going on from the newest one if asked to.

        Raises:
            CheckpointError: see `Checkpoints`.
        """
        self._checkpoints = checkpoints
        if not resume:
            checkpoints.require_none()
        elif state := checkpoints.newest():
            self.curve = list(state.curve)
            self.best_epoch = state.best_epoch
            self._best = under("best", state.tensors)
            self.run.take(state.tensors, state.num_steps, state.curve[-1].elapsed_s)
        self.run.devices.wait_for_all()  # nobody may write while another still reads

    def train(self, on_progress: OnProgress, on_step: OnProgress) -> None:
        """Train on to the end."""
        while not self._is_over():
            number = len(self.curve) + 1
            sums = self.run.epoch(number, on_step)
            ndcg = self._judge()
            self.curve.append(self.run.point(number, sums, self.run.progress(), ndcg))
            self._take_if_best()
            if self.run.devices.is_main:
                if self._checkpoints:
                    self._checkpoints.save(self._state())
                on_progress(self.curve[-1])
            self.run.devices.wait_for_all()

    def best_model(self) -> SliceModel:
        """The model with the weights to keep."""
        if self._best:
            self.run.judged.load_state_dict(self._best)
        return self.run.judged

    def _is_over(self) -> bool:
        if not self.curve:
            return False
        patience = self.run.config.patience_epochs
        waited = len(self.curve) - self.best_epoch if self.best_epoch else 0
        is_patience_over = bool(patience) and waited >= patience
        return len(self.curve) >= self.run.config.max_epochs or is_patience_over or self.curve[-1].share >= 1.0

    def _judge(self) -> float | None:
        """NDCG@10 of the model as it is; the main process judges for all, so that all decide alike."""
        if not len(self.plan.events_T):
            return None
        own = validation_ndcg(self.run.judged, self.plan) if self.run.devices.is_main else 0.0
        return self.run.devices.agreed(own)

    def _take_if_best(self) -> None:
        ndcg = self.curve[-1].validation_ndcg10
        if ndcg is None or not self.run.config.patience_epochs:
            return
        best = self.curve[self.best_epoch - 1].validation_ndcg10 if self.best_epoch else None
        if best is None or ndcg > best:
            self.best_epoch = len(self.curve)
            self._best = {name: value.clone() for name, value in self.run.judged.state_dict().items()}

    def _state(self) -> TrainingState:
        tensors = {**self.run.tensors(), **prefixed("best", self._best)}
        return TrainingState(self.run.num_steps, self.best_epoch, tuple(self.curve), tensors)
