"""Made-up models, batches and histories that the encoder tests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from encoders.contract import MergeKind, SliceBatch
from encoders.histories import TrainingHistories
from encoders.spec import ModelDims
from encoders.trained import TrainedModel, TrainProgress
from encoders.training_config import TrainConfig
from encoders.transformer import SliceModel
from encoders.vocabulary import Vocabulary

HALF_LIVES_MS = (60_000.0, 3_600_000.0, 86_400_000.0, 3e12)
MINUTE_MS = 60_000


def made_up_model(
    seed: int,
    *,
    num_items: int = 50,
    slice_events: int = 16,
    context_events: int = 16,
    merge: MergeKind = "decayed",
    backbone: Mapping[str, Any] | None = None,
) -> TrainedModel:
    """An untrained model with weights large enough that all of its parts show in the output.

    `backbone` is a whole configuration, as `SequenceBackbone.config` gives it.
    """
    vocabulary = Vocabulary(tuple(f"item-{n}" for n in range(num_items)), ("click", "purchase"))
    dims = ModelDims(
        vocabulary.num_item_rows,
        vocabulary.num_type_rows,
        slice_events=slice_events,
        context_events=min(context_events, slice_events),
        merge=merge,
        backbone=backbone,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SliceModel(dims, HALF_LIVES_MS).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name != "merge.log_half_lives_ms":
                    weight.add_(torch.randn_like(weight) * 0.1)
    curve = (TrainProgress(1, 1, 2.0, 0.5, 0.25, 1.0),)
    config = TrainConfig(slice_events=slice_events, seed=seed)
    return TrainedModel(model, vocabulary, config, 1_000, 300, 10, curve, 1)


def random_batch(
    num_slices: int, seed: int, *, num_items: int = 50, slice_events: int = 16, context_events: int = 16
) -> SliceBatch:
    """Slices and contexts of every length, with unknown items and types, first events and gaps up to a year."""
    generator = np.random.default_rng(seed)
    own, before = (num_slices, slice_events), (num_slices, min(context_events, slice_events))
    gaps_ms, gaps_before_ms = ((10 ** generator.uniform(0, 10.5, shape)).astype(np.int64) for shape in (own, before))
    num_absent = generator.integers(0, before[1] + 1, num_slices)
    is_real = np.arange(before[1]) >= num_absent[:, None]
    gaps_ms[num_absent == before[1], 0] = -1
    return SliceBatch(
        generator.integers(1, num_items + 2, own),
        generator.integers(1, 4, own),
        gaps_ms,
        generator.integers(1, slice_events + 1, num_slices),
        generator.integers(1, num_items + 2, before) * is_real,
        generator.integers(1, 4, before),
        gaps_before_ms,
    )


def rows_of_batch(batch: SliceBatch, rows: Sequence[int]) -> SliceBatch:
    """The same slices in another order, or some of them."""
    chosen = np.array(rows, dtype=np.int64)
    return SliceBatch(**{name: array[chosen] for name, array in vars(batch).items()})


def histories_of(users: Sequence[Sequence[Sequence[tuple[int, int]]]], *, weight: float = 1.0) -> TrainingHistories:
    """Histories written out as users of slices of (item row, time in ms); every event has type row 2."""
    slices = [events for user in users for events in user]
    events = [event for one in slices for event in one]
    gaps_ms: list[int] = []
    for user in users:
        times = [ts_ms for one in user for _, ts_ms in one]
        gaps_ms += [-1, *np.diff(times).tolist()]
    return TrainingHistories(
        np.array([row for row, _ in events], dtype=np.int64),
        np.full(len(events), 2, dtype=np.int64),
        np.array([ts_ms for _, ts_ms in events], dtype=np.int64),
        np.array(gaps_ms, dtype=np.int64),
        np.cumsum([0, *(len(one) for one in slices)], dtype=np.int64),
        np.cumsum([0, *(len(user) for user in users)], dtype=np.int64),
        np.full(len(events), weight, dtype=np.float32),
    )


def cyclic_histories(
    num_users: int, num_events: int, *, num_items: int = 60, slice_events: int = 8, seed: int = 0
) -> TrainingHistories:
    """Users who walk round the items in one fixed order, from a random start, an event a minute.

    The next item is a function of the last, and all items are equally popular: whoever ranks by
    popularity is lost, whoever learns the order is right. No user comes round to the start again.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(num_items)
    users = []
    for _ in range(num_users):
        first = int(generator.integers(num_items))
        rows = [int(order[(first + step) % num_items]) + 2 for step in range(num_events)]
        timed = [(row, step * MINUTE_MS) for step, row in enumerate(rows)]
        users.append([timed[start : start + slice_events] for start in range(0, num_events, slice_events)])
    return histories_of(users)


def cyclic_vocabulary(num_items: int = 60) -> Vocabulary:
    """The vocabulary of `cyclic_histories`."""
    return Vocabulary(tuple(f"item-{n}" for n in range(num_items)), ("click",))
