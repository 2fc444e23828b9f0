"""Arithmetic in bfloat16: weights stay float32, and what is learned is about the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from encoders.loss import LOGIT_ROWS, full_softmax_loss
from encoders.train import train_model
from encoders.trained import TrainedModel
from encoders.training_config import Objective, TrainConfig
from tests.encoders.cases import MINUTE_MS, cyclic_histories, cyclic_vocabulary

pytestmark = pytest.mark.slow

CONFIG = TrainConfig(slice_events=8, max_epochs=2, patience_epochs=0, batch_events=256)


def train(config: TrainConfig) -> TrainedModel:
    histories = cyclic_histories(num_users=60, num_events=24)
    return train_model(histories, cyclic_vocabulary(), config, 20 * MINUTE_MS, lambda _: None, clock=lambda: 0.0)


def weights_of(trained: TrainedModel) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in trained.model.state_dict().items()}


def test_bf16_trains_float32_weights_close_to_those_of_fp32() -> None:
    half, full = (train(replace(CONFIG, precision=precision)) for precision in ("bf16", "fp32"))
    assert {weight.dtype for weight in half.model.state_dict().values()} == {torch.float32}
    assert weights_of(half) != weights_of(full)
    assert weights_of(half) == weights_of(train(replace(CONFIG, precision="bf16")))
    losses = [trained.curve[-1].prediction_loss for trained in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_bf16_with_sampled_negatives() -> None:
    config = replace(CONFIG, objective=Objective(full_softmax_items=10, num_negatives=40))
    losses = [train(replace(config, precision=name)).curve[-1].prediction_loss for name in ("bf16", "fp32")]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


@pytest.mark.parametrize("num_targets", [1, LOGIT_ROWS + 3])
def test_the_blockwise_softmax_under_autocast(num_targets: int) -> None:
    """Users that a bfloat16 layer made, against autograd's own softmax over the same users outside of autocast."""
    generator = torch.Generator().manual_seed(2)
    inputs_ND = torch.randn(num_targets, 8, generator=generator)
    weight_DD = torch.randn(8, 8, generator=generator, requires_grad=True)
    table_VD = torch.randn(40, 8, generator=generator, requires_grad=True)
    targets_N = torch.randint(2, 40, (num_targets,), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        users_ND = inputs_ND @ weight_DD
        assert users_ND.dtype == torch.bfloat16
        loss = full_softmax_loss(users_ND, table_VD, targets_N[:, None])
    found = torch.autograd.grad(loss, (weight_DD, table_VD), retain_graph=True)
    oracle = F.cross_entropy(users_ND.float() @ table_VD[2:].T, targets_N - 2)
    wanted = torch.autograd.grad(oracle, (weight_DD, table_VD))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(oracle.item(), rel=0.02)
    for left, right in zip(found, wanted, strict=True):
        assert left.dtype == torch.float32
        difference = (left - right).abs().max().item()
        assert difference < 0.02 * right.abs().max().item(), f"largest difference {difference:.2e}"
