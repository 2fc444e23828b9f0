"""Training batches: runs of consecutive slices of whole users, shuffled by seed, padded into tensors.

Shapes: S slices of a batch, L events, U runs ("users" of a batch), K slices of the longest run, E events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.contract import Int64Array
from encoders.histories import TrainingHistories
from encoders.vocabulary import UNKNOWN_ROW, gap_buckets


@dataclass(frozen=True)
class PaddedSlices:
    """Slices as tensors, padded on the right.

    Args:
        item_rows_SL: int64.
        type_rows_SL: int64.
        gap_rows_SL: int64 gap buckets.
        lengths_S: int64.
    """

    item_rows_SL: Tensor
    type_rows_SL: Tensor
    gap_rows_SL: Tensor
    lengths_S: Tensor


@dataclass(frozen=True)
class TrainBatch:
    """One step's slices and targets, and where each slice stands in its run.

    Args:
        slices: the padded slices, run after run.
        target_rows_SL: int64 item to predict at each place, 0 for none.
        runs_S: int64 run of each slice, 0 to U - 1.
        ranks_S: int64 place of each slice in its run, 0 to K - 1.
        log_weights_UK: float32 logarithm of the slice weights, 0 in padded places.
        ends_ms_UK: int64 slice ends in milliseconds, 0 in padded places.
    """

    slices: PaddedSlices
    target_rows_SL: Tensor
    runs_S: Tensor
    ranks_S: Tensor
    log_weights_UK: Tensor
    ends_ms_UK: Tensor


class SliceReader:
    """Reads slices of histories into padded arrays; keeps references, copies nothing."""

    def __init__(self, histories: TrainingHistories, gap_edges_ms: Sequence[int], slice_events: int) -> None:
        self.histories = histories
        self.gap_rows_E = gap_buckets(histories.gaps_ms_E, gap_edges_ms)
        self.lengths_S = histories.slice_lengths()
        self.ends_ms_S = histories.slice_ends_ms()
        longest = int(self.lengths_S.max(initial=0))
        if longest > slice_events:
            raise ValueError(
                f"a slice has {longest} events, the model takes {slice_events}; "
                f"cut slices at slice_events or train with a larger one"
            )

    def places(self, slices: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Events of slices as (S, L) positions in E, and the (S,) lengths; padded places repeat the last."""
        lengths_S = self.lengths_S[slices]
        steps_L = np.arange(int(lengths_S.max(initial=1)))
        starts_S1 = self.histories.slice_starts_S1[slices][:, None]
        return starts_S1 + np.minimum(steps_L, lengths_S[:, None] - 1), lengths_S

    def padded(self, slices: Int64Array) -> PaddedSlices:
        """The slices as tensors, L being the longest length among them."""
        places_SL, lengths_S = self.places(slices)
        real_SL = np.arange(places_SL.shape[1]) < lengths_S[:, None]
        return PaddedSlices(
            torch.from_numpy(self.histories.item_rows_E[places_SL] * real_SL),
            torch.from_numpy(self.histories.type_rows_E[places_SL] * real_SL),
            torch.from_numpy(self.gap_rows_E[places_SL] * real_SL),
            torch.from_numpy(lengths_S),
        )


def runs_of_slices(histories: TrainingHistories, max_slices: int) -> Int64Array:
    """(R, 2) int64 first and last-but-one slice of runs of at most `max_slices`, no run crossing a user.

    Long users are cut from the end, so that their newest run is a full one.
    """
    runs: list[tuple[int, int]] = []
    for first, end in zip(histories.user_starts_U1[:-1].tolist(), histories.user_starts_U1[1:].tolist(), strict=True):
        ends = list(range(end, first, -max_slices))
        runs.extend((max(first, stop - max_slices), stop) for stop in reversed(ends))
    return np.array(runs, dtype=np.int64).reshape(-1, 2)


class BatchSampler:
    """Cuts histories into batches of whole runs, in an order decided by seed and epoch alone.

    Args:
        reader: of the training histories.
        target_rows_E: int64, see `histories.next_targets`.
        max_slices: longest run; a longer user is trained in several, each starting without a memory.
        batch_events: events after which a batch is full; one run may exceed it.
    """

    def __init__(self, reader: SliceReader, target_rows_E: Int64Array, *, max_slices: int, batch_events: int) -> None:
        self.reader = reader
        self.target_rows_E = target_rows_E
        starts_S1 = reader.histories.slice_starts_S1
        runs_R2 = runs_of_slices(reader.histories, max_slices)
        has_target_E1 = np.concatenate([[0], np.cumsum(target_rows_E > 0)])
        first_R, end_R = starts_S1[runs_R2[:, 0]], starts_S1[runs_R2[:, 1]]
        kept_R = has_target_E1[end_R] > has_target_E1[first_R]
        self.runs_R2 = runs_R2[kept_R]
        self.num_events_R = (end_R - first_R)[kept_R]
        self.batch_events = batch_events

    def num_batches(self) -> int:
        """About how many batches an epoch has: exact but for how runs happen to fill them."""
        return max(1, -(-int(self.num_events_R.sum()) // self.batch_events))

    def epoch(self, generator: np.random.Generator, unknown_share: float) -> Iterator[TrainBatch]:
        """The batches of one epoch.

        Args:
            generator: decides order and replaced inputs.
            unknown_share: share of input items replaced by the unknown row, which trains that row.
        """
        order_R = generator.permutation(len(self.runs_R2))
        fill_R = (np.cumsum(self.num_events_R[order_R]) - 1) // self.batch_events
        borders = np.flatnonzero(np.diff(fill_R)) + 1
        for runs_R in np.split(order_R, borders):
            yield self._batch(self.runs_R2[runs_R], generator, unknown_share)

    def _batch(self, runs_U2: Int64Array, generator: np.random.Generator, unknown_share: float) -> TrainBatch:
        num_slices_U = runs_U2[:, 1] - runs_U2[:, 0]
        runs_S = np.repeat(np.arange(len(runs_U2)), num_slices_U)
        ranks_S = np.arange(len(runs_S)) - np.repeat(np.cumsum(num_slices_U) - num_slices_U, num_slices_U)
        slices_S = runs_U2[runs_S, 0] + ranks_S
        slices = self.reader.padded(slices_S)
        replaced_SL = generator.random(tuple(slices.item_rows_SL.shape)) < unknown_share
        replaced = torch.from_numpy(replaced_SL) & (slices.item_rows_SL > 0)
        slices.item_rows_SL[replaced] = UNKNOWN_ROW
        places_SL, lengths_S = self.reader.places(slices_S)
        real_SL = np.arange(places_SL.shape[1]) < lengths_S[:, None]
        log_weights_UK = np.zeros((len(runs_U2), int(num_slices_U.max())), dtype=np.float32)
        ends_ms_UK = np.zeros(log_weights_UK.shape, dtype=np.int64)
        log_weights_UK[runs_S, ranks_S] = np.log(self.reader.histories.slice_weights_S[slices_S])
        ends_ms_UK[runs_S, ranks_S] = self.reader.ends_ms_S[slices_S]
        return TrainBatch(
            slices,
            torch.from_numpy(self.target_rows_E[places_SL] * real_SL),
            torch.from_numpy(runs_S),
            torch.from_numpy(ranks_S),
            torch.from_numpy(log_weights_UK),
            torch.from_numpy(ends_ms_UK),
        )
