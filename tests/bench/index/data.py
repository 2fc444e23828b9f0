"""Vectors to search: those of the example's trained item tower, grown to any size, and random ones beside.

**Grown.** Each new item lies between a trained item and one of that item's nearest neighbours (at a uniform place on
the line), plus noise as large as `NOISE_SHARE` of the line's length in every direction that the tower uses: noise is
drawn with the covariance of all trained items. So density, lengths and intrinsic dimension are the tower's, and no two
items are equal. The queries are the user vectors that the same model gives the example's users in a replay.

Shapes: N items, D dimensions, Q queries, T trained items.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from encoders.runtime import SliceEncoderRuntime
from index.contract import Float32Array, Int64Array
from stream_app.event_log import read_events
from stream_app.offline_roles import OfflineRoles
from stream_app.records import unpack_vector
from stream_app.settings import load_settings
from tests.bench.common import EXAMPLE

NUM_NEIGHBOURS: Final = 10
NOISE_SHARE: Final = 0.5
ROWS_AT_ONCE: Final = 100_000
EVENTS_AT_ONCE: Final = 2048
"""Events encoded in one batch."""

Spread = Literal["tower", "random"]


@dataclass(frozen=True)
class TrainedVectors:
    """What the example's model gives: items' vectors (T, D), and user vectors (Q, D), one after each event."""

    items_TD: Float32Array
    users_QD: Float32Array


def trained_vectors(folder: Path = EXAMPLE) -> TrainedVectors:
    """Replay the example in memory; takes half a minute."""
    settings = load_settings(folder / "sliceflow.toml")
    encoder = SliceEncoderRuntime.load(folder / "model", "cpu")
    roles = OfflineRoles(settings, encoder, 1)
    events = read_events(folder / "events.ndjson.gz", settings).events
    users = []
    for start in range(0, len(events), EVENTS_AT_ONCE):
        cut = [
            roles.cut(0, [(start + place, event, ())]) for place, event in enumerate(events[start:][:EVENTS_AT_ONCE])
        ]
        made = roles.encode([record for effects in cut for record in effects.slices if not record.closed])
        users += [unpack_vector(record.user_vector) for record in made]
    return TrainedVectors(encoder.item_vectors()[1], np.stack(users))


def grown(items_TD: Float32Array, num_items: int, generator: np.random.Generator) -> Float32Array:
    """(N, D) float32: as many items as asked for in the manner of the trained ones, without those themselves."""
    neighbours_TK = _neighbours(items_TD)
    factor_DD = np.linalg.cholesky(np.cov(items_TD, rowvar=False) + 1e-9 * np.eye(items_TD.shape[1]))
    spread = float(np.sqrt(np.trace(factor_DD @ factor_DD.T)))
    made = np.empty((num_items, items_TD.shape[1]), dtype=np.float32)
    for start in range(0, num_items, ROWS_AT_ONCE):
        rows = min(ROWS_AT_ONCE, num_items - start)
        bases = generator.integers(len(items_TD), size=rows)
        others = neighbours_TK[bases, generator.integers(NUM_NEIGHBOURS, size=rows)]
        lines_ND = items_TD[others] - items_TD[bases]
        noise_ND = generator.standard_normal(lines_ND.shape) @ factor_DD.T / spread
        noise_ND *= NOISE_SHARE * np.linalg.norm(lines_ND, axis=1, keepdims=True)
        made[start : start + rows] = items_TD[bases] + generator.random((rows, 1)) * lines_ND + noise_ND
    return made


def widened(trained: TrainedVectors) -> TrainedVectors:
    """Twice the dimensions: beside each item its nearest neighbour, and each query twice; as hard a search as it
    was."""
    nearest_T = _neighbours(trained.items_TD)[:, 0]
    items = np.concatenate([trained.items_TD, trained.items_TD[nearest_T]], axis=1)
    return TrainedVectors(items, np.concatenate([trained.users_QD, trained.users_QD], axis=1))


def random_vectors(num: int, dim: int, generator: np.random.Generator) -> Float32Array:
    """(num, D) float32, normal in each dimension: nothing lies near anything, the hardest case for a search by
    parts."""
    return generator.standard_normal((num, dim), dtype=np.float32)


def _neighbours(items_TD: Float32Array) -> Int64Array:
    """(T, NUM_NEIGHBOURS) rows of each item's nearest by distance, itself left out."""
    squares_T = (items_TD**2).sum(axis=1)
    distances_TT = squares_T[:, None] - 2 * items_TD @ items_TD.T + squares_T
    np.fill_diagonal(distances_TT, np.inf)
    return np.argpartition(distances_TT, NUM_NEIGHBOURS, axis=1)[:, :NUM_NEIGHBOURS]
