"""The merged memory: what training computes and what the stream keeps incrementally are one formula."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.transformer import decayed_means
from stream_app.stages.merging import MergedSlice, UserMemory, merged_vectors, take_slice

DIM = 5
HALF_LIVES_MS = np.array([1_000.0, 3.6e6, 3e12])

Slices = list[tuple[float, int]]
slices_of_a_user: st.SearchStrategy[Slices] = st.lists(
    st.tuples(st.floats(0.01, 100.0), st.integers(0, 10**9)), min_size=1, max_size=30
)


def trained_means(slices: Slices, half_lives_ms: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """(K, H, D): before each slice, the memory as the training computes it."""
    codes, weights, ends_ms = arrays_of(slices)
    means: npt.NDArray[np.float32] = decayed_means(
        torch.from_numpy(codes)[None],
        torch.from_numpy(weights).log()[None],
        torch.from_numpy(ends_ms)[None],
        torch.tensor(half_lives_ms, dtype=torch.float32),
    )[0].numpy()
    return means


def arrays_of(
    slices: Slices,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Made-up codes (K, D), weights (K,) and end times (K,) of slices given as weight and gap."""
    codes = np.random.default_rng(len(slices)).standard_normal((len(slices), DIM)).astype(np.float32)
    weights = np.array([weight for weight, _ in slices], dtype=np.float32)
    return codes, weights, np.cumsum([gap_ms for _, gap_ms in slices], dtype=np.int64) + 1_700_000_000_000


@settings(deadline=None)
@given(slices_of_a_user)
def test_the_stream_keeps_what_training_learned_with(slices: Slices) -> None:
    codes, weights, ends_ms = arrays_of(slices)
    trained = trained_means(slices, HALF_LIVES_MS)
    memory = UserMemory()
    for seq, (code, weight, end_ms) in enumerate(zip(codes, weights, ends_ms, strict=True)):
        part = MergedSlice(seq, 1, int(end_ms), float(weight), code.tobytes())
        assert take_slice(memory, part, code, HALF_LIVES_MS, keep=4)
        kept = merged_vectors(memory, len(HALF_LIVES_MS), DIM)
        difference = float(np.abs(kept - trained[seq]).max())
        assert difference < 1e-4, f"slice {seq}: largest difference {difference:.2e}"


@settings(deadline=None)
@given(slices_of_a_user)
def test_training_equals_the_direct_sum(slices: Slices) -> None:
    codes, weights, ends_ms = arrays_of(slices)
    trained = trained_means(slices, HALF_LIVES_MS)
    assert not trained[0].any()
    for rank in range(1, len(slices)):
        ages = (ends_ms[rank - 1] - ends_ms[:rank]).astype(np.float64)
        shares = weights[:rank, None] * np.exp2(-ages[:, None] / HALF_LIVES_MS)
        direct = (shares.T @ codes[:rank].astype(np.float64)) / shares.sum(axis=0)[:, None]
        difference = float(np.abs(trained[rank] - direct).max())
        assert difference < 1e-4, f"slice {rank}: largest difference {difference:.2e}"


def test_by_hand() -> None:
    memory = UserMemory()
    half_life_ms = np.array([1000.0])
    for seq, (value, end_ms) in enumerate([(4.0, 0), (1.0, 1000), (9.0, 1000)]):
        code = np.array([value], dtype=np.float32)
        take_slice(memory, MergedSlice(seq, 1, end_ms, 1.0, code.tobytes()), code, half_life_ms, keep=4)
    # The newest slice is not merged yet: (4/2 + 1) / (1/2 + 1).
    assert merged_vectors(memory, 1, 1) == pytest.approx(np.array([[2.0]]))
