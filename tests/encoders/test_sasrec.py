"""The full-history baseline: what it reads, what it learns, and when it stops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoders.contract import Int64Array, TooLittleDataError
from encoders.sasrec import NextItem, Sasrec, SasrecConfig, ranks_after, train_sasrec, windows_of
from encoders.trained import TrainProgress
from encoders.vocabulary import FIRST_NAME_ROW

NUM_ITEMS = 12
NUM_ROWS = NUM_ITEMS + FIRST_NAME_ROW
SMALL = SasrecConfig(dim=16, num_layers=1, num_heads=1, window=6, batch_events=256, dropout=0.0, learning_rate=1e-2)


def circles(num_users: int, length: int) -> list[Int64Array]:
    """Users who go round the items from different places: an item tells the next one."""
    return [(np.arange(length) + user) % NUM_ITEMS + FIRST_NAME_ROW for user in range(num_users)]


def silent(progress: TrainProgress) -> None:
    """Nobody is told."""


def ticking(step_s: float) -> Iterator[float]:
    """A clock that moves on by a step whenever it is read."""
    return (number * step_s for number in count())


@pytest.mark.slow
def test_it_learns_what_follows() -> None:
    model = train_sasrec(circles(24, 9), NUM_ROWS, replace(SMALL, max_epochs=60), silent)
    asked = [NextItem(items[:4], int(items[4])) for items in circles(NUM_ITEMS, 5)]
    assert np.mean(ranks_after(model, asked) == 1) >= 0.9


@given(st.integers(0, 40), st.integers(1, 9))
def test_windows_predict_every_item_but_the_first_exactly_once(length: int, window: int) -> None:
    items = np.arange(length)
    pieces = windows_of(items, window)
    predicted = [item for piece in pieces for item in piece[1:].tolist()]
    assert predicted == items[1:].tolist()
    assert all(2 <= len(piece) <= window + 1 for piece in pieces)
    assert all(len(piece) == window + 1 for piece in pieces[1:])


def test_scores_do_not_depend_on_what_else_is_asked() -> None:
    torch.manual_seed(0)
    model = Sasrec(NUM_ROWS, SMALL)
    histories = [np.array(rows, dtype=np.int64) for rows in ([3], [4, 5, 6], [2, 3, 4, 5, 6, 7, 8, 9, 10])]
    together = model.scores(histories)
    alone = np.concatenate([model.scores([one]) for one in histories])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together.shape == (3, NUM_ITEMS)


def test_only_the_newest_items_are_read_and_their_order_matters() -> None:
    torch.manual_seed(0)
    model = Sasrec(NUM_ROWS, SMALL)
    newest = np.array([5, 6, 7, 8, 9, 10], dtype=np.int64)
    older = np.concatenate([np.array([3, 4], dtype=np.int64), newest])
    np.testing.assert_array_equal(model.scores([older]), model.scores([newest]))
    assert np.abs(model.scores([newest[::-1].copy()]) - model.scores([newest])).max() > 1e-3


def test_a_state_does_not_see_what_comes_after_it() -> None:
    torch.manual_seed(0)
    model = Sasrec(NUM_ROWS, SMALL).eval()
    first = torch.tensor([[3, 4, 5, 6]])
    other = torch.tensor([[3, 4, 9, 10]])
    lengths = torch.tensor([4])
    with torch.inference_mode():
        torch.testing.assert_close(model(first, lengths)[:, :2], model(other, lengths)[:, :2])


def test_the_same_seed_gives_the_same_weights() -> None:
    def trained(seed: int) -> torch.Tensor:
        config = replace(SMALL, max_epochs=2, dropout=0.3, seed=seed)
        return train_sasrec(circles(8, 7), NUM_ROWS, config, silent).items.weight.detach()

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_the_generator_outside_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_sasrec(circles(4, 5), NUM_ROWS, replace(SMALL, max_epochs=1), silent)
    assert torch.equal(torch.rand(3), expected)


def test_the_time_budget_ends_the_training() -> None:
    clock = ticking(1.0)
    told: list[TrainProgress] = []
    config = replace(SMALL, max_epochs=10_000, time_budget_s=30.0)
    train_sasrec(circles(8, 7), NUM_ROWS, config, told.append, clock=lambda: next(clock))
    assert 1 <= len(told) < 30
    assert told[-1].share == 1.0
    assert [one.epoch for one in told] == list(range(1, len(told) + 1))


def test_without_a_better_validation_it_stops_and_keeps_the_best() -> None:
    # What comes next in validation is never what comes next in training: it only gets worse.
    wrong = [NextItem(items[:3], int(items[7])) for items in circles(NUM_ITEMS, 8)]
    told: list[TrainProgress] = []
    config = replace(SMALL, max_epochs=200, patience_epochs=2)
    model = train_sasrec(circles(24, 9), NUM_ROWS, config, told.append, validation=wrong)
    judged = [one.validation_ndcg10 or 0.0 for one in told]
    best = max(range(len(judged)), key=judged.__getitem__)
    assert len(told) == best + 3 < 200
    gains = np.where((ranks := ranks_after(model, wrong)) <= 10, 1 / np.log2(ranks + 1.0), 0.0)
    assert gains.mean() == pytest.approx(judged[best])


def test_ranks_leave_out_the_history() -> None:
    torch.manual_seed(0)
    model = Sasrec(NUM_ROWS, SMALL)
    history = np.arange(2, 2 + NUM_ITEMS - 1, dtype=np.int64)
    assert ranks_after(model, [NextItem(history, NUM_ROWS - 1)]).tolist() == [1]


def test_one_item_is_nothing_to_learn_from() -> None:
    with pytest.raises(TooLittleDataError, match="two items"):
        train_sasrec([np.array([2])], NUM_ROWS, SMALL, silent)
