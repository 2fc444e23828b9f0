"""Pruning takes what matters least, leaves a plain smaller model, and what it leaves can be trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from encoders.checkpoint import load_model, save_model
from encoders.compression import CompressionKind, compressed, num_bytes
from encoders.contract import MergeKind
from encoders.forward import batch_outputs
from encoders.loss import full_softmax_loss
from encoders.pruning import calibration_batch, finetuned, head_scores, pruned
from encoders.reference import ReferenceEncoder
from encoders.runtime import SliceEncoderRuntime
from encoders.sampling import TrainBatch
from encoders.training_config import TrainConfig
from encoders.transformer import SliceModel
from tests.encoders.cases import (
    MINUTE_MS,
    cyclic_histories,
    cyclic_vocabulary,
    histories_of,
    made_up_model,
    random_batch,
)
from tests.encoders.closeness import closeness

pytestmark = pytest.mark.slow

HISTORIES = cyclic_histories(num_users=12, num_events=24, num_items=50)
HEAD_WIDTH = 32


def model_of(merge: MergeKind = "decayed") -> SliceModel:
    """Two layers of two heads, 64 wide, over slices of eight events."""
    return made_up_model(seed=4, slice_events=8, merge=merge).model


def batch_of(model: SliceModel) -> TrainBatch:
    return calibration_batch(HISTORIES, model.dims, num_events=120)


def weights_of(model: SliceModel) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in model.state_dict().items()}


@torch.no_grad()
def users_of(model: SliceModel, batch: TrainBatch) -> Tensor:
    return batch_outputs(model, batch)[0]


def one_slice(*rows: int) -> list[list[tuple[int, int]]]:
    """A user of one slice, an event a minute."""
    return [[(row, place * MINUTE_MS) for place, row in enumerate(rows)]]


def silence_head(model: SliceModel, layer: int, head: int) -> None:
    """Let nobody hear what a head says."""
    weight = model.state_dict()[f"blocks.{layer}.attention_out.weight"]
    weight[:, head * HEAD_WIDTH : (head + 1) * HEAD_WIDTH] = 0


def silence_layer(model: SliceModel, layer: int) -> None:
    """Let a layer add nothing to what it gets."""
    for name in ("attention_out", "feed_out"):
        for part in ("weight", "bias"):
            model.state_dict()[f"blocks.{layer}.{name}.{part}"].zero_()


@pytest.mark.parametrize("merge", get_args(MergeKind))
def test_with_nothing_to_remove_the_bytes_are_the_same(merge: MergeKind) -> None:
    model = model_of(merge)
    same = pruned(model, batch_of(model), num_heads=2, num_layers=2)
    assert same is not model
    assert same.dims == model.dims
    assert weights_of(same) == weights_of(model)


@pytest.mark.parametrize("merge", ["decayed", "tokens"])
@pytest.mark.parametrize("silent", [(0, 0), (0, 1), (1, 0)])
def test_heads_that_nobody_hears_go_and_change_nothing(merge: MergeKind, silent: tuple[int, int]) -> None:
    model = model_of(merge)
    for layer, head in enumerate(silent):
        silence_head(model, layer, head)
    batch = batch_of(model)
    smaller = pruned(model, batch, num_heads=1, num_layers=2)
    assert (users_of(smaller, batch) - users_of(model, batch)).abs().max() < 1e-5
    for layer, head in enumerate(silent):
        heard = slice((1 - head) * HEAD_WIDTH, (2 - head) * HEAD_WIDTH)
        name = f"blocks.{layer}.attention_out.weight"
        assert torch.equal(smaller.state_dict()[name], model.state_dict()[name][:, heard])


@pytest.mark.parametrize("silent", [0, 1])
def test_a_layer_that_adds_nothing_goes_and_changes_nothing(silent: int) -> None:
    model = model_of()
    silence_layer(model, silent)
    batch = batch_of(model)
    smaller = pruned(model, batch, num_heads=2, num_layers=1)
    assert torch.equal(users_of(smaller, batch), users_of(model, batch))
    left = model.state_dict()[f"blocks.{1 - silent}.feed_in.weight"]
    assert torch.equal(smaller.state_dict()["blocks.0.feed_in.weight"], left)


def test_scores_are_the_slope_of_the_loss() -> None:
    """With one slice a head's score is how steeply the loss rises with its share, here by differences."""
    model = model_of()
    batch = calibration_batch(histories_of([one_slice(3, 9, 4, 7, 12)]), model.dims)

    @torch.no_grad()
    def loss_with(layer: int, head: int, share: float) -> float:
        changed = model_of()
        columns = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
        changed.state_dict()[f"blocks.{layer}.attention_out.weight"][:, columns] *= share
        users_ND, targets_NT, _ = batch_outputs(changed, batch)
        return full_softmax_loss(users_ND, changed.item_table(), targets_NT).item()

    scores_KA = head_scores(model, batch)
    for layer in range(2):
        for head in range(2):
            slope = (loss_with(layer, head, 1.01) - loss_with(layer, head, 0.99)) / 0.02
            assert scores_KA[layer, head].item() == pytest.approx(abs(slope), rel=0.02, abs=2e-4)
    assert not model.blocks[0].get_parameter("feed_in.weight").grad


def test_slopes_of_different_slices_do_not_cancel() -> None:
    model = model_of()
    users = [one_slice(3, 9, 4), one_slice(8, 2, 11), one_slice(20, 5, 6), one_slice(30, 31, 32)]
    together = head_scores(model, calibration_batch(histories_of(users), model.dims))
    alone = [head_scores(model, calibration_batch(histories_of([user]), model.dims)) for user in users]
    # The loss is a mean over all targets, of which each slice has a quarter.
    assert torch.allclose(together, torch.stack(alone).mean(0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("merge", ["decayed", "gate", "tokens"])
def test_a_pruned_model_is_saved_loaded_and_served_as_any_other(merge: MergeKind, tmp_path: Path) -> None:
    trained = made_up_model(seed=4, slice_events=8, merge=merge)
    smaller = pruned(trained.model, batch_of(trained.model), num_heads=1, num_layers=1)
    release = save_model(replace(trained, model=smaller), tmp_path)
    loaded = load_model(tmp_path)
    assert (loaded.spec.dims.num_layers, loaded.spec.dims.num_heads, loaded.spec.dims.head_dim) == (1, 1, HEAD_WIDTH)
    assert weights_of(loaded.model) == weights_of(smaller)
    assert release != save_model(trained, tmp_path / "whole")
    batch = random_batch(20, seed=6, slice_events=8)
    found = closeness(SliceEncoderRuntime.load(tmp_path, "cpu"), ReferenceEncoder(loaded), batch)
    assert found.largest < 1e-4, found


def test_what_goes_is_really_gone() -> None:
    model = model_of()
    smaller = pruned(model, batch_of(model), num_heads=1, num_layers=2)
    # Per layer a head has 3·32 rows of queries, keys and values, 2·32 of the context's, with their biases; 32
    # columns of the output; and a bias for each of 16 distances.
    gone = 2 * ((3 + 2) * HEAD_WIDTH * (64 + 1) + 64 * HEAD_WIDTH + 16)
    assert num_bytes(model) - num_bytes(smaller) == 4 * gone


def test_what_was_pruned_can_be_pruned_again() -> None:
    model = model_of()
    batch = batch_of(model)
    at_once = pruned(model, batch, num_heads=1, num_layers=1)
    in_steps = pruned(pruned(model, batch, num_heads=2, num_layers=1), batch, num_heads=1, num_layers=1)
    assert weights_of(at_once) == weights_of(in_steps)
    again = pruned(at_once, batch, num_heads=1, num_layers=1)
    assert (again.dims, weights_of(again)) == (at_once.dims, weights_of(at_once))


def test_the_model_itself_is_left_alone() -> None:
    model = model_of()
    before = weights_of(model)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pruned(model, batch_of(model), num_heads=1, num_layers=1)
    assert torch.equal(torch.rand(3), expected)
    assert weights_of(model) == before
    assert all(weight.grad is None for weight in model.parameters())


def test_one_epoch_more_makes_up_for_what_was_taken() -> None:
    histories = cyclic_histories(num_users=60, num_events=24, num_items=50)
    vocabulary = cyclic_vocabulary(50)
    trained = made_up_model(seed=4, slice_events=8)
    # The made-up model has two types of events where the vocabulary has one.
    smaller = pruned(trained.model, batch_of(trained.model), num_heads=1, num_layers=1)
    vocabulary = replace(vocabulary, type_names=trained.vocabulary.type_names)
    before = weights_of(smaller)
    config = TrainConfig(slice_events=8, batch_events=256, seed=1)
    tuned, again = (finetuned(smaller, histories, vocabulary, config, 20 * MINUTE_MS, clock=lambda: 0.0) for _ in "ab")
    batch = batch_of(smaller)

    def loss_of(model: SliceModel) -> float:
        users_ND, targets_NT, _ = batch_outputs(model, batch)
        return full_softmax_loss(users_ND, model.item_table(), targets_NT).item()

    assert loss_of(tuned) < loss_of(smaller) - 0.1
    assert tuned.dims == smaller.dims
    assert weights_of(tuned) == weights_of(again) != before == weights_of(smaller)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_heads": 0, "num_layers": 1}, "num_heads is 0, expected 1 to 2"),
        ({"num_heads": 3, "num_layers": 1}, "num_heads is 3, expected 1 to 2"),
        ({"num_heads": 1, "num_layers": 0}, "num_layers is 0, expected 1 to 2"),
        ({"num_heads": 1, "num_layers": 3}, "num_layers is 3, expected 1 to 2"),
    ],
)
def test_more_than_there_is_cannot_be_kept(sizes: dict[str, int], message: str) -> None:
    model = model_of()
    with pytest.raises(ValueError, match=message):
        pruned(model, batch_of(model), **sizes)


def test_nothing_to_judge_by_is_refused() -> None:
    model = model_of()
    batch = batch_of(model)
    nothing = replace(batch, target_rows_SL=torch.zeros_like(batch.target_rows_SL))
    with pytest.raises(ValueError, match="the calibration batch has no targets"):
        pruned(model, nothing, num_heads=1, num_layers=2)
    with pytest.raises(ValueError, match="2 events without a target, expected a user with a second item"):
        calibration_batch(histories_of([[[(3, 0)]], [[(4, 0)]]]), model.dims)


def _prune(model: SliceModel) -> Any:
    return pruned(model, batch_of(model), num_heads=1, num_layers=1)


def _tune(model: SliceModel) -> Any:
    return finetuned(model, HISTORIES, cyclic_vocabulary(50), TrainConfig(), 20 * MINUTE_MS)


@pytest.mark.parametrize("kind", get_args(CompressionKind))
@pytest.mark.parametrize("change", [_prune, _tune])
def test_compressed_models_are_refused(kind: CompressionKind, change: Callable[[SliceModel], Any]) -> None:
    with pytest.raises(ValueError, match="expected float32; take the model it was made of"):
        change(compressed(model_of(), kind))


def test_the_vocabulary_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the vocabulary has \(42, 3\) item and type rows, the model \(52, 4\)"):
        finetuned(model_of(), HISTORIES, cyclic_vocabulary(40), TrainConfig(), 20 * MINUTE_MS)
