"""The blockwise softmax against autograd's own, and the sampled one against the full."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from encoders.loss import (
    LOGIT_ROWS,
    calibrated_bce_loss,
    full_softmax_loss,
    proposal_shares,
    sampled_softmax_loss,
)
from encoders.vocabulary import FIRST_NAME_ROW

NUM_ROWS = 40


def inputs(num_targets: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    users_ND = torch.randn(num_targets, 8, generator=generator, requires_grad=True)
    table_VD = torch.randn(NUM_ROWS, 8, generator=generator, requires_grad=True)
    return users_ND, table_VD, torch.randint(2, NUM_ROWS, (num_targets,), generator=generator)


@pytest.mark.parametrize("num_targets", [1, 7, LOGIT_ROWS, 2 * LOGIT_ROWS + 3])
def test_full_softmax_equals_autograd(num_targets: int) -> None:
    users_ND, table_VD, targets_N = inputs(num_targets)
    loss = full_softmax_loss(users_ND, table_VD, targets_N[:, None])
    found = torch.autograd.grad(3 * loss, (users_ND, table_VD))
    oracle = F.cross_entropy(users_ND @ table_VD[2:].T, targets_N - 2)
    wanted = torch.autograd.grad(3 * oracle, (users_ND, table_VD))
    assert loss.item() == pytest.approx(oracle.item(), rel=1e-5)
    for left, right in zip(found, wanted, strict=True):
        difference = (left - right).abs().max().item()
        assert difference < 1e-5, f"largest difference {difference:.2e}"


def test_padding_and_unknown_take_no_part() -> None:
    users_ND, table_VD, targets_N = inputs(9)
    (gradient,) = torch.autograd.grad(full_softmax_loss(users_ND, table_VD, targets_N[:, None]), table_VD)
    assert not gradient[:2].any() and gradient[2:].any(dim=1).all()


def test_large_logits_do_not_overflow() -> None:
    users_ND, table_VD, targets_N = inputs(5)
    assert torch.isfinite(full_softmax_loss(users_ND * 1e4, table_VD, targets_N[:, None]))


def test_sampled_loss_tends_to_the_full_one() -> None:
    users_ND, table_VD, targets_N = inputs(30)
    shares_V = proposal_shares(torch.bincount(targets_N, minlength=NUM_ROWS).double())
    generator = torch.Generator().manual_seed(1)
    negatives_M = torch.multinomial(shares_V, 200_000, replacement=True, generator=generator)
    sampled = sampled_softmax_loss(users_ND, table_VD, targets_N[:, None], negatives_M, shares_V.log().float())
    full = full_softmax_loss(users_ND, table_VD, targets_N[:, None])
    assert sampled.item() == pytest.approx(full.item(), abs=0.02)


def test_a_target_is_not_its_own_negative() -> None:
    users_ND, table_VD, _ = inputs(1)
    targets_N = torch.tensor([5])
    log_shares_V = torch.zeros(NUM_ROWS)
    with_own = sampled_softmax_loss(users_ND, table_VD, targets_N[:, None], torch.tensor([5, 5, 9]), log_shares_V)
    lone = torch.stack([users_ND[0] @ table_VD[5], users_ND[0] @ table_VD[9] - torch.log(torch.tensor(3.0))])
    assert with_own.item() == pytest.approx((lone.logsumexp(0) - lone[0]).item(), rel=1e-5)


def test_proposal_shares_by_hand() -> None:
    shares_V = proposal_shares(torch.tensor([7.0, 7.0, 16.0, 0.0], dtype=torch.float64))
    assert shares_V.tolist() == [0.0, 0.0, 0.75, 0.25]


SEVERAL_NT = torch.tensor([[5, 0, 9], [7, 8, 2], [3, 3, 0], [39, 0, 0]])


def test_several_targets_of_a_place_count_as_one_between_them() -> None:
    users_ND, table_VD, _ = inputs(4)
    loss = full_softmax_loss(users_ND, table_VD, SEVERAL_NT)
    found = torch.autograd.grad(loss, (users_ND, table_VD))
    by_place = []
    for user_D, targets in zip(users_ND, SEVERAL_NT.tolist(), strict=True):
        log_shares = torch.log_softmax(table_VD[2:] @ user_D, 0)
        by_place.append(torch.stack([-log_shares[row - 2] for row in targets if row]).mean())
    oracle = torch.stack(by_place).mean()
    wanted = torch.autograd.grad(oracle, (users_ND, table_VD))
    assert loss.item() == pytest.approx(oracle.item(), rel=1e-5)
    for left, right in zip(found, wanted, strict=True):
        assert (left - right).abs().max().item() < 1e-5


def test_sampled_loss_of_several_targets_equals_one_by_one() -> None:
    users_ND, table_VD, _ = inputs(4)
    negatives_M = torch.tensor([9, 11, 11, 30, 5])
    log_shares_V = torch.linspace(-9, -1, NUM_ROWS)
    by_place = []
    for place, targets in enumerate(SEVERAL_NT.tolist()):
        losses = []
        for row in (row for row in targets if row):
            others = [other for other in negatives_M.tolist() if other != row]
            logits = [table_VD[other] @ users_ND[place] - log_shares_V[other] - math.log(5) for other in others]
            own = table_VD[row] @ users_ND[place]
            losses.append(torch.stack([own, *logits]).logsumexp(0) - own)
        by_place.append(torch.stack(losses).mean())
    loss = sampled_softmax_loss(users_ND, table_VD, SEVERAL_NT, negatives_M, log_shares_V)
    assert loss.item() == pytest.approx(torch.stack(by_place).mean().item(), rel=1e-5)


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_calibrated_loss_equals_the_formula(calibration: float) -> None:
    users_ND, table_VD, _ = inputs(4)
    negatives_M = torch.tensor([9, 11, 30, 5])
    share = 4 / 37  # of the 38 named items less the target
    power = share * (calibration * (1 - 1 / share) + 1 / share)
    by_place = []
    for place, targets in enumerate(SEVERAL_NT.tolist()):
        losses = []
        for row in (row for row in targets if row):
            others = [other for other in negatives_M.tolist() if other != row]
            total = power * torch.log(torch.sigmoid(table_VD[row] @ users_ND[place]))
            for other in others:
                total = total + torch.log(1 - torch.sigmoid(table_VD[other] @ users_ND[place]))
            losses.append(-total / (len(others) + 1))
        by_place.append(torch.stack(losses).mean())
    loss = calibrated_bce_loss(users_ND, table_VD, SEVERAL_NT, negatives_M, calibration)
    assert loss.item() == pytest.approx(torch.stack(by_place).mean().item(), rel=1e-4)


def test_calibration_by_hand() -> None:
    # Half of the others are drawn: t = 0 leaves the target's share of the loss at 1, t = 1 makes it 1/2.
    users_ND, table_VD = torch.zeros(1, 2), torch.ones(7, 2)
    negatives_M, targets_NT = torch.tensor([3, 4]), torch.tensor([[2]])
    found = [calibrated_bce_loss(users_ND, table_VD, targets_NT, negatives_M, t).item() for t in (0.0, 1.0)]
    assert found == pytest.approx([math.log(2) * 3 / 3, math.log(2) * 2.5 / 3])


def test_what_a_user_has_seen_does_not_compete() -> None:
    """Against a softmax over what is left; 600 places, so that they come in two blocks."""
    generator = torch.Generator().manual_seed(4)
    users_ND = torch.randn(600, 8, generator=generator, requires_grad=True)
    table_VD = torch.randn(30, 8, generator=generator, requires_grad=True)
    targets_N = torch.randint(FIRST_NAME_ROW, 30, (600,), generator=generator)
    is_seen_NV = torch.rand(600, 30, generator=generator) < 0.3
    is_seen_NV[:, :FIRST_NAME_ROW] = False
    is_seen_NV[torch.arange(600), targets_N] = False
    loss = full_softmax_loss(users_ND, table_VD, targets_N[:, None], torch.nonzero(is_seen_NV))
    is_out_NV = is_seen_NV.clone()
    is_out_NV[:, :FIRST_NAME_ROW] = True
    expected = F.cross_entropy((users_ND @ table_VD.T).masked_fill(is_out_NV, -torch.inf), targets_N)
    assert torch.allclose(loss, expected)
    inputs = (users_ND, table_VD)
    for found, wanted in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)
