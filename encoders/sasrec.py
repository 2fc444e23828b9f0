"""A full-history SASRec: the baseline that a sliced model has to stand beside.

A causal transformer re-reads a user's newest items for every prediction; nothing is carried over. It sees items and
their order only.

Source: SASRec (arXiv 1808.09781), with cross-entropy over all items as in arXiv 2309.07602 in place of one sampled
negative, and layer norm before each sublayer (arXiv 2002.04745).

Shapes: B windows of a batch, L places, D dimensions, N targets, V rows of the item table, I named items, H histories.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.contract import Float32Array, Int64Array, TooLittleDataError
from encoders.loss import full_softmax_loss
from encoders.trained import TrainProgress
from encoders.transformer import EMBEDDING_STD
from encoders.validation import ndcg_at_10
from encoders.vocabulary import FIRST_NAME_ROW, PAD_ROW

HISTORIES_AT_A_TIME = 256
"""Histories ranked at a time: 20,000 items make 20 MB of scores."""


@dataclass(frozen=True)
class SasrecConfig:
    """How it is built and trained.

    Args:
        dim: D.
        num_layers: transformer blocks.
        num_heads: attention heads of each block.
        window: newest items that are read; a longer history is cut into several windows to train on.
        dropout: share of values dropped while training.
        learning_rate: Adam's, after warm-up.
        batch_events: places of a batch, padding included.
        max_epochs: passes over the data at most.
        patience_epochs: stop after so many epochs without a better validation, and keep the best weights; 0 trains
            to the end and keeps the last.
        time_budget_s: seconds of the injected clock in which training ends; None: no limit.
        seed: of weights, order and dropout. Same seed, same weights, on one thread.
    """

    dim: int = 64
    num_layers: int = 2
    num_heads: int = 2
    window: int = 50
    dropout: float = 0.2
    learning_rate: float = 1e-3
    batch_events: int = 4096
    max_epochs: int = 100
    patience_epochs: int = 5
    time_budget_s: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class NextItem:
    """Something to validate on: the items before (rows, oldest first, at least one), and the one that came next."""

    items: Int64Array
    next_item: int


class Sasrec(nn.Module):
    """The network.

    Args:
        num_item_rows: V.
        config: its shape.
    """

    def __init__(self, num_item_rows: int, config: SasrecConfig) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(num_item_rows, config.dim)
        self.positions = nn.Embedding(config.window, config.dim)
        block = nn.TransformerEncoderLayer(
            config.dim,
            config.num_heads,
            dim_feedforward=4 * config.dim,
            dropout=config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            block, config.num_layers, norm=nn.LayerNorm(config.dim), enable_nested_tensor=False
        )
        for weight in (self.items.weight, self.positions.weight):
            nn.init.normal_(weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.items.weight[PAD_ROW].zero_()

    def forward(self, item_rows_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """(B, L, D) states after each item; places at or after a window's length hold nothing of use.

        Args:
            item_rows_BL: int64, windows padded on the right.
            lengths_B: int64, items of each window.
        """
        num_places = item_rows_BL.shape[1]
        # Positions count from the end, so that the newest item always has the same one.
        positions_BL = torch.arange(num_places) + (self.config.window - lengths_B)[:, None]
        tokens_BLD = self.items(item_rows_BL) * self.config.dim**0.5
        tokens_BLD = tokens_BLD + self.positions(positions_BL.clamp_max(self.config.window - 1))
        states_BLD = F.dropout(tokens_BLD, self.config.dropout, self.training)
        mask_LL = nn.Transformer.generate_square_subsequent_mask(num_places)
        result: Tensor = self.blocks(states_BLD, mask=mask_LL, is_causal=True)
        return result

    @torch.inference_mode()
    def scores(self, histories: Sequence[Int64Array]) -> Float32Array:
        """(H, I) scores of all named items, in the order of their rows, after each history (rows, oldest first)."""
        self.eval()
        windows = [items[-self.config.window :] for items in histories]
        item_rows_BL, lengths_B = _padded(windows)
        states_BLD = self(item_rows_BL, lengths_B)
        users_BD = states_BLD[torch.arange(len(windows)), lengths_B - 1]
        scores: Float32Array = (users_BD @ self.items.weight[FIRST_NAME_ROW:].T).numpy()
        return scores


def train_sasrec(
    sequences: Sequence[Int64Array],
    num_item_rows: int,
    config: SasrecConfig,
    on_progress: Callable[[TrainProgress], None],
    *,
    validation: Sequence[NextItem] = (),
    clock: Callable[[], float] = time.process_time,
) -> Sasrec:
    """Train on every next item of every sequence.

    Args:
        sequences: int64 item rows of each user, oldest first, all before the split.
        num_item_rows: V.
        config: network and training.
        on_progress: called after each epoch.
        validation: next items, after those of `sequences`, that decide when to stop.
        clock: seconds; processor time by default.

    Returns:
        The network, in evaluation mode.

    Raises:
        TooLittleDataError: where no sequence has two items.
    """
    windows = [window for items in sequences for window in windows_of(items, config.window)]
    if not windows:
        raise TooLittleDataError("no user has two items before the split; bring more events")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        run = _Run(Sasrec(num_item_rows, config), windows, clock)
        _train(run, validation, on_progress)
    return run.model.eval()


def windows_of(items: Int64Array, window: int) -> list[Int64Array]:
    """Pieces of a history in which each item but the first is predicted from those before it, newest piece full.

    Each holds one item more than is read, and begins with the last of the piece before.

    >>> [piece.tolist() for piece in windows_of(np.arange(6), 2)]
    [[0, 1], [1, 2, 3], [3, 4, 5]]
    """
    ends = range(len(items), 1, -window)
    return [items[max(0, end - window - 1) : end] for end in reversed(ends)]


class _Run:
    """The parts of one training."""

    def __init__(self, model: Sasrec, windows: list[Int64Array], clock: Callable[[], float]) -> None:
        self.model = model
        self.config = model.config
        self.optimizer = torch.optim.Adam(model.parameters(), lr=self.config.learning_rate, betas=(0.9, 0.98))
        self._batches = _batches(windows, self.config.batch_events)
        self._clock = clock
        self._started_s = clock()
        self._num_steps = 0

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started_s

    def share(self) -> float:
        """How much of the training is over, by steps or by time, whichever is further."""
        by_steps = self._num_steps / (self.config.max_epochs * len(self._batches))
        budget_s = self.config.time_budget_s
        return min(1.0, max(by_steps, self.elapsed_s() / budget_s if budget_s else 0.0))

    def epoch(self, number: int) -> tuple[float, float]:
        """Train once over the data or until the time is up; mean loss, and events a second."""
        self.model.train()
        started_s, num_events = self.elapsed_s(), 0
        losses: list[float] = []
        for place in np.random.default_rng([self.config.seed, number]).permutation(len(self._batches)).tolist():
            share = self.share()
            if share >= 1.0 and losses:
                break
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * _rate(share, self._num_steps)
            losses.append(self._step(self._batches[place]))
            num_events += sum(len(window) - 1 for window in self._batches[place])
        return float(np.mean(losses)), num_events / max(self.elapsed_s() - started_s, 1e-9)

    def _step(self, windows: list[Int64Array]) -> float:
        item_rows_BL, lengths_B = _padded([window[:-1] for window in windows])
        targets_BL, _ = _padded([window[1:] for window in windows])
        states_BLD = self.model(item_rows_BL, lengths_B)
        real_BL = targets_BL != PAD_ROW
        loss = full_softmax_loss(states_BLD[real_BL], self.model.items.weight, targets_BL[real_BL][:, None])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self._num_steps += 1
        return loss.item()


def _rate(share: float, num_steps: int) -> float:
    """Share of the learning rate: up over 50 steps, then half a cosine down to 1%."""
    return min(1.0, (num_steps + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _train(run: _Run, validation: Sequence[NextItem], on_progress: Callable[[TrainProgress], None]) -> None:
    """Train until epochs, patience or time are used up; the chosen weights are in the model."""
    best: tuple[float, int, dict[str, Tensor]] | None = None
    patience = run.config.patience_epochs
    for number in range(1, run.config.max_epochs + 1):
        loss, events_per_s = run.epoch(number)
        ndcg = _validated(run.model, validation) if validation else None
        progress = TrainProgress(
            epoch=number,
            share=run.share(),
            prediction_loss=loss,
            reconstruction_loss=0.0,
            validation_ndcg10=ndcg,
            elapsed_s=run.elapsed_s(),
            events_per_s=events_per_s,
        )
        on_progress(progress)
        if ndcg is not None and patience and (best is None or ndcg > best[0]):
            best = ndcg, number, {name: value.clone() for name, value in run.model.state_dict().items()}
        if progress.share >= 1.0 or (best is not None and number - best[1] >= patience):
            break
    if best is not None:
        run.model.load_state_dict(best[2])


def _validated(model: Sasrec, validation: Sequence[NextItem]) -> float:
    """NDCG@10 over all items that are not in the history."""
    ranks = [
        ranks_after(model, validation[start : start + HISTORIES_AT_A_TIME])
        for start in range(0, len(validation), HISTORIES_AT_A_TIME)
    ]
    return ndcg_at_10(np.concatenate(ranks))


def ranks_after(model: Sasrec, asked: Sequence[NextItem]) -> Int64Array:
    """Rank of each next item among the items that its history does not hold, from 1; ties count against it."""
    scores_HI = model.scores([one.items for one in asked])
    for row, one in enumerate(asked):
        scores_HI[row, one.items[one.items >= FIRST_NAME_ROW] - FIRST_NAME_ROW] = -np.inf
    columns_H = np.array([one.next_item for one in asked], dtype=np.int64) - FIRST_NAME_ROW
    own_H1 = scores_HI[np.arange(len(asked)), columns_H][:, None]
    return np.asarray((scores_HI >= own_H1).sum(axis=1), dtype=np.int64)


def _batches(windows: list[Int64Array], batch_events: int) -> list[list[Int64Array]]:
    """Windows of about one length together, so that little is padding."""
    batches: list[list[Int64Array]] = [[]]
    for window in sorted(windows, key=len):
        if batches[-1] and (len(batches[-1]) + 1) * (len(window) - 1) > batch_events:
            batches.append([])
        batches[-1].append(window)
    return batches


def _padded(windows: Sequence[Int64Array]) -> tuple[Tensor, Tensor]:
    """Windows (each at least one item) padded on the right, and their lengths."""
    lengths_B = np.array([len(window) for window in windows], dtype=np.int64)
    rows_BL = np.full((len(windows), int(lengths_B.max())), PAD_ROW, dtype=np.int64)
    rows_BL[np.arange(rows_BL.shape[1]) < lengths_B[:, None]] = np.concatenate(windows)
    return torch.from_numpy(rows_BL), torch.from_numpy(lengths_B)
