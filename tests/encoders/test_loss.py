"""The blockwise softmax against autograd's own, and the sampled one against the full."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from encoders.loss import LOGIT_ROWS, full_softmax_loss, proposal_shares, sampled_softmax_loss

NUM_ROWS = 40


def inputs(num_targets: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    users_ND = torch.randn(num_targets, 8, generator=generator, requires_grad=True)
    table_VD = torch.randn(NUM_ROWS, 8, generator=generator, requires_grad=True)
    return users_ND, table_VD, torch.randint(2, NUM_ROWS, (num_targets,), generator=generator)


@pytest.mark.parametrize("num_targets", [1, 7, LOGIT_ROWS, 2 * LOGIT_ROWS + 3])
def test_full_softmax_equals_autograd(num_targets: int) -> None:
    users_ND, table_VD, targets_N = inputs(num_targets)
    loss = full_softmax_loss(users_ND, table_VD, targets_N)
    found = torch.autograd.grad(3 * loss, (users_ND, table_VD))
    oracle = F.cross_entropy(users_ND @ table_VD[2:].T, targets_N - 2)
    wanted = torch.autograd.grad(3 * oracle, (users_ND, table_VD))
    assert loss.item() == pytest.approx(oracle.item(), rel=1e-5)
    for left, right in zip(found, wanted, strict=True):
        difference = (left - right).abs().max().item()
        assert difference < 1e-5, f"largest difference {difference:.2e}"


def test_padding_and_unknown_take_no_part() -> None:
    users_ND, table_VD, targets_N = inputs(9)
    (gradient,) = torch.autograd.grad(full_softmax_loss(users_ND, table_VD, targets_N), table_VD)
    assert not gradient[:2].any() and gradient[2:].any(dim=1).all()


def test_large_logits_do_not_overflow() -> None:
    users_ND, table_VD, targets_N = inputs(5)
    assert torch.isfinite(full_softmax_loss(users_ND * 1e4, table_VD, targets_N))


def test_sampled_loss_tends_to_the_full_one() -> None:
    users_ND, table_VD, targets_N = inputs(30)
    shares_V = proposal_shares(torch.bincount(targets_N, minlength=NUM_ROWS).double())
    generator = torch.Generator().manual_seed(1)
    negatives_M = torch.multinomial(shares_V, 200_000, replacement=True, generator=generator)
    sampled = sampled_softmax_loss(users_ND, table_VD, targets_N, negatives_M, shares_V.log().float())
    full = full_softmax_loss(users_ND, table_VD, targets_N)
    assert sampled.item() == pytest.approx(full.item(), abs=0.02)


def test_a_target_is_not_its_own_negative() -> None:
    users_ND, table_VD, _ = inputs(1)
    targets_N = torch.tensor([5])
    log_shares_V = torch.zeros(NUM_ROWS)
    with_own = sampled_softmax_loss(users_ND, table_VD, targets_N, torch.tensor([5, 5, 9]), log_shares_V)
    lone = torch.stack([users_ND[0] @ table_VD[5], users_ND[0] @ table_VD[9] - torch.log(torch.tensor(3.0))])
    assert with_own.item() == pytest.approx((lone.logsumexp(0) - lone[0]).item(), rel=1e-5)


def test_proposal_shares_by_hand() -> None:
    shares_V = proposal_shares(torch.tensor([7.0, 7.0, 16.0, 0.0], dtype=torch.float64))
    assert shares_V.tolist() == [0.0, 0.0, 0.75, 0.25]
