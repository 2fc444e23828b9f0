"""The merged memory: incremental, direct and trained forms are one formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.memory import DecayedMemory, direct_means
from encoders.transformer import decayed_means

HALF_LIVES_MS = np.array([1_000.0, 3.6e6, 3e12])

Slices = list[tuple[float, int]]
slices_of_a_user: st.SearchStrategy[Slices] = st.lists(
    st.tuples(st.floats(0.01, 100.0), st.integers(0, 10**9)), min_size=1, max_size=30
)


def arrays_of(slices: Slices, dim: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    codes = np.random.default_rng(len(slices)).standard_normal((len(slices), dim)).astype(np.float32)
    weights = np.array([weight for weight, _ in slices], dtype=np.float32)
    return codes, weights, np.cumsum([gap_ms for _, gap_ms in slices], dtype=np.int64) + 1_700_000_000_000


@settings(deadline=None)
@given(slices_of_a_user)
def test_incremental_equals_the_direct_sum(slices: Slices) -> None:
    codes, weights, ends_ms = arrays_of(slices)
    memory = DecayedMemory.empty(3, 5)
    for code, weight, end_ms in zip(codes, weights.tolist(), ends_ms.tolist(), strict=True):
        memory = memory.merged(code, weight, end_ms, HALF_LIVES_MS)
    direct = direct_means(codes, weights, ends_ms, HALF_LIVES_MS)
    difference = float(np.abs(memory.means() - direct).max())
    assert difference < 1e-5, f"largest difference {difference:.2e}"


@settings(deadline=None)
@given(slices_of_a_user)
def test_training_uses_the_same_formula(slices: Slices) -> None:
    codes, weights, ends_ms = arrays_of(slices)
    trained = decayed_means(
        torch.from_numpy(codes)[None],
        torch.from_numpy(weights).log()[None],
        torch.from_numpy(ends_ms)[None],
        torch.tensor(HALF_LIVES_MS, dtype=torch.float32),
    )[0].numpy()
    assert not trained[0].any()
    for rank in range(1, len(slices)):
        direct = direct_means(codes[:rank], weights[:rank], ends_ms[:rank], HALF_LIVES_MS)
        difference = float(np.abs(trained[rank] - direct).max())
        assert difference < 1e-4, f"slice {rank}: largest difference {difference:.2e}"


def test_by_hand() -> None:
    half_life_ms = np.array([1000.0])
    memory = DecayedMemory.empty(1, 1).merged(np.array([4.0], dtype=np.float32), 1.0, 0, half_life_ms)
    assert memory.means().tolist() == [[4.0]]
    memory = memory.merged(np.array([1.0], dtype=np.float32), 1.0, 1000, half_life_ms)
    assert memory.means().tolist() == [[2.0]]  # (4/2 + 1) / (1/2 + 1)


def test_long_silence_forgets_but_never_divides_by_zero() -> None:
    code = np.ones(5, dtype=np.float32)
    memory = DecayedMemory.empty(3, 5).merged(code, 1.0, 0, HALF_LIVES_MS)
    memory = memory.merged(-code, 1.0, 10**12, HALF_LIVES_MS)
    assert memory.means()[:2].tolist() == [[-1.0] * 5] * 2
    assert np.isfinite(memory.means()).all() and not memory.is_empty


def test_an_empty_memory_is_zero() -> None:
    memory = DecayedMemory.empty(3, 5)
    assert memory.is_empty and not memory.means().any()


def test_refuses_disorder() -> None:
    code = np.ones(5, dtype=np.float32)
    memory = DecayedMemory.empty(3, 5).merged(code, 1.0, 5_000, HALF_LIVES_MS)
    with pytest.raises(ValueError, match="before the newest merged one at 5000 ms"):
        memory.merged(code, 1.0, 4_999, HALF_LIVES_MS)
    with pytest.raises(ValueError, match="weight is 0"):
        memory.merged(code, 0.0, 6_000, HALF_LIVES_MS)
    with pytest.raises(ValueError, match="no slices"):
        direct_means(np.zeros((0, 5), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), HALF_LIVES_MS)
