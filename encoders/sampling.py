"""Training batches: runs of consecutive slices of whole users, shuffled by seed, padded into tensors.

Shapes: S slices of a batch, L events, C events before a slice, U runs ("users" of a
batch), K slices of the longest run, E events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from encoders.contract import BoolArray, Int64Array
from encoders.histories import TrainingHistories
from encoders.padded import PaddedSlices
from encoders.vocabulary import FIRST_NAME_ROW, UNKNOWN_ROW, gap_buckets

MAX_SEEN = 512
"""Newest events whose items are known as seen at a place: with 50 places a user they are 25,000 pairs."""


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
        seen_X2: int64 pairs of a place with a target (counted over the batch, slice after slice) and the row of an item
            that its user had touched by then, places rising; of each user the newest `MAX_SEEN` events.
    """

    slices: PaddedSlices
    target_rows_SL: Tensor
    runs_S: Tensor
    ranks_S: Tensor
    log_weights_UK: Tensor
    ends_ms_UK: Tensor
    seen_X2: Tensor

    @property
    def num_events(self) -> int:
        """Events of all slices."""
        return int(self.slices.lengths_S.sum())

    def to(self, device: torch.device) -> TrainBatch:
        """The same batch on a device; itself if it is there already."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "slices"}
        moved = {name: value.to(device) for name, value in values.items()}
        return TrainBatch(slices=self.slices.to(device), **moved)


class SliceReader:
    """Reads slices of histories into padded arrays; keeps references, copies nothing.

    Args:
        histories: the events.
        gap_edges_ms: see `ModelDims`.
        slice_events: L at most.
        context_events: C.

    Raises:
        ValueError: if a slice is longer.
    """

    def __init__(
        self, histories: TrainingHistories, gap_edges_ms: Sequence[int], slice_events: int, context_events: int = 0
    ) -> None:
        self.histories = histories
        self.context_events = context_events
        self.first_events_S = histories.slice_starts_S1[histories.user_starts_U1[histories.users_of_slices()]]
        self.gap_rows_E = gap_buckets(histories.gaps_ms_E, gap_edges_ms)
        self.lengths_S = histories.slice_lengths()
        self.ends_ms_S = histories.slice_ends_ms()
        self.weights_S = histories.slice_weights()
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
            *(torch.from_numpy(rows_SC) for rows_SC in self._context(slices)),
        )

    def _context(self, slices: Int64Array) -> list[Int64Array]:
        """(S, C) items, types and gaps of the events before slices, of the same user; 0 where there are none."""
        starts_S1 = self.histories.slice_starts_S1[slices][:, None]
        places_SC = starts_S1 + np.arange(-self.context_events, 0)
        real_SC = places_SC >= self.first_events_S[slices][:, None]
        places_SC = np.maximum(places_SC, 0)
        tables = (self.histories.item_rows_E, self.histories.type_rows_E, self.gap_rows_E)
        return [rows_E[places_SC] * real_SC for rows_E in tables]


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

    def num_batches(self, num_ranks: int = 1) -> int:
        """How many batches each process has in an epoch at most: longer runs make them fewer."""
        return max(1, -(-int(self.num_events_R.sum()) // (self.batch_events * num_ranks)))

    def epoch(
        self, generator: np.random.Generator, unknown_share: float, *, rank: int = 0, num_ranks: int = 1
    ) -> Iterator[TrainBatch]:
        """The batches of one epoch, or of several processes' one: every `num_ranks`-th, from `rank` on.

        Every process gets the same number of batches, as they step together; the last ones may get some of the
        epoch's first batches again.

        Args:
            generator: decides order and replaced inputs; in the same state in every process.
            unknown_share: share of input items replaced by the unknown row, which trains that row.
            rank: number of this process, from 0.
            num_ranks: processes that train together.
        """
        order_R = generator.permutation(len(self.runs_R2))
        fill_R = (np.cumsum(self.num_events_R[order_R]) - 1) // self.batch_events
        borders = np.flatnonzero(np.diff(fill_R)) + 1
        groups = np.split(order_R, borders)
        for number in range(rank, -(-len(groups) // num_ranks) * num_ranks, num_ranks):
            yield self._batch(self.runs_R2[groups[number % len(groups)]], generator, unknown_share)

    def _batch(self, runs_U2: Int64Array, generator: np.random.Generator, unknown_share: float) -> TrainBatch:
        num_slices_U = runs_U2[:, 1] - runs_U2[:, 0]
        runs_S = np.repeat(np.arange(len(runs_U2)), num_slices_U)
        ranks_S = np.arange(len(runs_S)) - np.repeat(np.cumsum(num_slices_U) - num_slices_U, num_slices_U)
        slices_S = runs_U2[runs_S, 0] + ranks_S
        slices = self.reader.padded(slices_S)
        for rows in (slices.item_rows_SL, slices.context_item_rows_SC):
            is_drawn = torch.from_numpy(generator.random(tuple(rows.shape)) < unknown_share)
            rows[is_drawn & (rows > 0)] = UNKNOWN_ROW
        places_SL, lengths_S = self.reader.places(slices_S)
        real_SL = np.arange(places_SL.shape[1]) < lengths_S[:, None]
        log_weights_UK = np.zeros((len(runs_U2), int(num_slices_U.max())), dtype=np.float32)
        ends_ms_UK = np.zeros(log_weights_UK.shape, dtype=np.int64)
        log_weights_UK[runs_S, ranks_S] = np.log(self.reader.weights_S[slices_S])
        ends_ms_UK[runs_S, ranks_S] = self.reader.ends_ms_S[slices_S]
        return TrainBatch(
            slices,
            torch.from_numpy(self.target_rows_E[places_SL] * real_SL),
            torch.from_numpy(runs_S),
            torch.from_numpy(ranks_S),
            torch.from_numpy(log_weights_UK),
            torch.from_numpy(ends_ms_UK),
            torch.from_numpy(self._seen(slices_S, places_SL, real_SL)),
        )

    def _seen(self, slices_S: Int64Array, places_SL: Int64Array, real_SL: BoolArray) -> Int64Array:
        """(X, 2) places with a target, and rows of the items that their users had touched."""
        has_target_SL = (self.target_rows_E[places_SL] > 0) & real_SL
        events_N = places_SL[has_target_SL]
        first_N = np.repeat(self.reader.first_events_S[slices_S], has_target_SL.sum(axis=1))
        lengths_N = np.minimum(events_N - first_N + 1, MAX_SEEN)
        ends_N = np.cumsum(lengths_N)
        places_X = np.repeat(np.arange(len(events_N)), lengths_N)
        events_X = np.arange(ends_N[-1]) + np.repeat(events_N + 1 - ends_N, lengths_N)
        rows_X = self.reader.histories.item_rows_E[events_X]
        is_named_X = rows_X >= FIRST_NAME_ROW
        return np.stack([places_X[is_named_X], rows_X[is_named_X]], axis=1)
