"""Structured pruning of a trained model: whole attention heads and whole layers go, and what is left is a plain model.

The result has smaller dims and smaller tensors, is saved and loaded like any other, and can be trained on. Every layer
keeps as many heads as the others, so that one number says it; which ones may differ.

Shapes: S slices, L events, N places with targets, T targets of a place, D dimensions, I attention dimensions, K layers,
A heads, E events of the histories.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.compression import require_plain
from encoders.devices import Devices, seed_torch
from encoders.forward import batch_outputs
from encoders.histories import TrainingHistories, next_targets
from encoders.loss import full_softmax_loss
from encoders.sampling import BatchSampler, SliceReader, TrainBatch
from encoders.spec import ModelDims
from encoders.training_config import TrainConfig
from encoders.training_run import TrainingRun
from encoders.transformer import SliceModel
from encoders.vocabulary import Vocabulary

CALIBRATION_SLICES = 24
"""Longest run of slices in a calibration batch, as in training."""


def calibration_batch(
    histories: TrainingHistories, dims: ModelDims, *, num_events: int = 4096, seed: int = 0
) -> TrainBatch:
    """Whole runs of slices, drawn at random, to judge heads and layers by.

    Args:
        histories: that the model was trained on; nothing of the validation.
        dims: of the model.
        num_events: events in the batch, about.
        seed: of the draw.

    Raises:
        ValueError: if the histories have no target: no user has a second item.
    """
    reader = SliceReader(histories, dims.gap_edges_ms, dims.slice_events, dims.context_events)
    targets_E = next_targets(histories, skip_repeats=True)
    if not (targets_E > 0).any():
        raise ValueError(f"{histories.num_events} events without a target, expected a user with a second item")
    sampler = BatchSampler(reader, targets_E, max_slices=CALIBRATION_SLICES, batch_events=num_events)
    return next(sampler.epoch(np.random.default_rng(seed), 0.0))


def pruned(model: SliceModel, batch: TrainBatch, *, num_heads: int, num_layers: int) -> SliceModel:
    """A smaller copy of a model: first layers go, one after the other, then heads of those that are left.

    Args:
        model: trained, in float32; left as it is.
        batch: to judge by, see `calibration_batch`.
        num_heads: left in each layer, from 1 to those there are.
        num_layers: left, from 1 to those there are.

    Returns:
        A model in evaluation mode, on the same device; with nothing to remove its weights are the same bytes.

    Raises:
        ValueError: if a number is out of its range, the batch has no targets, or the model is compressed or has a
            backbone.
    """
    require_plain(model)
    if model.backbone is not None:
        raise ValueError("the model has a backbone: only blocks are pruned; take a smaller backbone")
    for name, wanted, found in (
        ("num_heads", num_heads, model.dims.num_heads),
        ("num_layers", num_layers, model.dims.num_layers),
    ):
        if not 1 <= wanted <= found:
            raise ValueError(f"{name} is {wanted}, expected 1 to {found}, as many as the model has")
    batch = batch.to(model.device)
    if not (batch.target_rows_SL > 0).any():
        raise ValueError("the calibration batch has no targets; take one of `calibration_batch`")
    shallow = _with_layers(model, _layers_to_keep(model, batch, num_layers))
    if num_heads == shallow.dims.num_heads:
        return shallow
    top_KA = head_scores(shallow, batch).topk(num_heads, dim=1).indices.sort(1).values
    return _with_heads(shallow, top_KA.tolist())


def head_scores(model: SliceModel, batch: TrainBatch) -> Tensor:
    """(K, A) float32: how much the loss would change without each head, to first order.

    Of each slice the absolute sum of the head's output times the loss's gradient by it, summed over slices. The loss is
    the cross-entropy of the next items among all, whatever the model was trained for. O(one step of training).

    Source: Michel et al. 2019, arXiv 1905.10650 (importance as the gradient of a head's mask); heads
    are told apart within their layer only, so scores are not normalised by layer.
    """
    probe = copy.deepcopy(model).eval().requires_grad_(True)
    mixed: list[tuple[int, Tensor]] = []
    for layer, block in enumerate(probe.blocks):
        block.get_submodule("attention_out").register_forward_pre_hook(_keep_in(mixed, layer))
    users_ND, targets_NT, _ = batch_outputs(probe, batch)
    full_softmax_loss(users_ND, probe.item_table(), targets_NT).backward()  # type: ignore[no-untyped-call]
    scores_KA = torch.zeros(model.dims.num_layers, model.dims.num_heads, device=model.device)
    width = model.dims.attention_dim // model.dims.num_heads
    for layer, mixed_SLI in mixed:
        assert mixed_SLI.grad is not None, "every head leads to the user vectors"
        changes_SLI = (mixed_SLI * mixed_SLI.grad).detach()
        by_head = changes_SLI.reshape(*changes_SLI.shape[:2], *scores_KA.shape[1:], width)
        scores_KA[layer] += by_head.sum((1, 3)).abs().sum(0)
    return scores_KA


def _keep_in(mixed: list[tuple[int, Tensor]], layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        inputs[0].retain_grad()
        mixed.append((layer, inputs[0]))

    return hook


def _layers_to_keep(model: SliceModel, batch: TrainBatch, num_layers: int) -> list[int]:
    """The layers left when always the one goes that is missed least: O(K²) passes over the batch."""
    kept = list(range(model.dims.num_layers))
    if len(kept) == num_layers:
        return kept
    wanted_ND = _users(model, batch)

    def change_without(layer: int) -> float:
        fewer = _with_layers(model, [other for other in kept if other != layer])
        return float((_users(fewer, batch) - wanted_ND).square().mean())

    while len(kept) > num_layers:
        kept.remove(min(kept, key=change_without))
    return kept


@torch.no_grad()
def _users(model: SliceModel, batch: TrainBatch) -> Tensor:
    """(N, D) user vectors at every place with a target, without dropout."""
    training = model.training
    users_ND, _, _ = batch_outputs(model.eval(), batch)
    model.train(training)
    return users_ND


def _with_layers(model: SliceModel, kept: Sequence[int]) -> SliceModel:
    """A copy with some of the layers, in order."""
    weights: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        first, *rest = name.split(".")
        if first != "blocks":
            weights[name] = weight
        elif int(rest[0]) in kept:
            weights[".".join([first, str(kept.index(int(rest[0]))), *rest[1:]])] = weight
    return _filled(model, replace(model.dims, num_layers=len(kept)), weights)


def _with_heads(model: SliceModel, kept: Sequence[Sequence[int]]) -> SliceModel:
    """A copy with some of the heads, for each layer the same number, in order."""
    dims = model.dims
    weights: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        first, *rest = name.split(".")
        is_block = first == "blocks"
        weights[name] = (
            _of_heads(".".join(rest[1:]), weight, dims.num_heads, kept[int(rest[0])]) if is_block else weight
        )
    num_heads, head_dim = len(kept[0]), dims.attention_dim // dims.num_heads
    return _filled(model, replace(dims, num_heads=num_heads, head_dim=head_dim), weights)


def _of_heads(name: str, weight: Tensor, num_heads: int, kept: Sequence[int]) -> Tensor:
    """What some heads have of a block's tensor; those that belong to no head are left whole."""
    heads = list(kept)
    if "keys_values" in name:
        # Rows of all heads' queries, if there are any, then of their keys, then of their values.
        num_parts = 3 if name.startswith("queries") else 2
        parts = weight.reshape(num_parts, num_heads, -1, *weight.shape[1:])
        return parts[:, heads].flatten(0, 2)
    if name in ("distance_bias_AT", "memory_bias_AR"):
        return weight[heads]
    if name == "attention_out.weight":
        return weight.reshape(len(weight), num_heads, -1)[:, heads].flatten(1)
    return weight


def _filled(model: SliceModel, dims: ModelDims, weights: dict[str, Tensor]) -> SliceModel:
    with torch.random.fork_rng(devices=[]):  # the weights it starts with are replaced at once
        made = SliceModel(dims, model.half_lives_ms().tolist(), model.dropout)
    made.load_state_dict(weights)
    return made.to(model.device).eval().requires_grad_(False)


def finetuned(
    model: SliceModel,
    histories: TrainingHistories,
    vocabulary: Vocabulary,
    config: TrainConfig,
    split_ms: int,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> SliceModel:
    """A copy of a model, trained one epoch more: what pruning took is in part made up for.

    Args:
        model: in float32; left as it is.
        histories: whole histories.
        vocabulary: of the model.
        config: how it is trained, rate and objective; what says how a model is built has no effect.
        split_ms: only targets before it are trained on.
        clock: seconds, for a time budget.

    Raises:
        ValueError: if the model is compressed, or the vocabulary has other rows.
    """
    require_plain(model)
    rows = (vocabulary.num_item_rows, vocabulary.num_type_rows)
    expected_rows = (model.dims.num_item_rows, model.dims.num_type_rows)
    if rows != expected_rows:
        raise ValueError(f"the vocabulary has {rows} item and type rows, the model {expected_rows}; take the model's")
    past = histories.before(split_ms)
    targets_E = next_targets(past, skip_repeats=config.objective.skip_repeat_targets)
    devices = Devices()
    with devices.own_randomness():
        seed_torch(config.seed)
        tuned = copy.deepcopy(model).requires_grad_(True)
        run = TrainingRun(past, vocabulary, replace(config, max_epochs=1), targets_E, devices, clock, model=tuned)
        run.epoch(1, lambda _: None)
    return run.judged.cpu().eval().requires_grad_(False)
