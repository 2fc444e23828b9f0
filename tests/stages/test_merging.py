"""Merging: every way of it against its definition, whatever was repaired and in whatever order slices ended."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.stages.merging import (
    Array,
    CarriedVector,
    DecayedSums,
    LastCodes,
    Merge,
    MergedSlice,
    NoMemory,
    UserMemory,
    take_slice,
)

HALF_LIVES_MS = np.array([50.0, 400.0, 10_000.0])
DIM = 3
KEEP = 4
TOLERANCE = 2e-4
"""Sums are kept in float32 and repaired by subtraction."""


def carry(carried_D: Array, code_D: Array, weight: float, age_ms: int) -> Array:
    """A carried vector in which the order of slices, their weights and the time between them all show."""
    share = np.float32(0.5 if age_ms < 20 else 0.9)
    return np.tanh(carried_D + share * (np.float32(weight) * code_D - carried_D)).astype(np.float32)


DECAYED = DecayedSums(HALF_LIVES_MS, DIM)
MERGES: dict[str, Merge] = {
    "decayed": DECAYED,
    "gate": CarriedVector(DIM, carry),
    "concat": LastCodes(3, DIM),
    "concat of more than are kept": LastCodes(7, DIM),
    "none": NoMemory(DIM),
}
EVERY_MERGE = pytest.mark.parametrize("merge", MERGES.values(), ids=MERGES)


@dataclass(frozen=True)
class Revised:
    """One revision of a slice, as arrived."""

    seq: int
    revision: int
    end_ts: int
    weight: float
    seed: int

    def part(self) -> MergedSlice:
        """As the memory takes it."""
        return MergedSlice(self.seq, self.revision, self.end_ts, self.weight, self.code_D().tobytes())

    def code_D(self) -> npt.NDArray[np.float32]:
        """The code of this revision, shape (D,)."""
        return np.random.default_rng(self.seed).standard_normal(DIM).astype("<f4")

    def local_D(self) -> npt.NDArray[np.float32]:
        """The transformer's state of this revision, shape (D,)."""
        return -self.code_D()


def taken(revisions: list[Revised], memory: UserMemory | None = None, merge: Merge = DECAYED) -> UserMemory:
    """The memory after these revisions."""
    memory = memory or UserMemory()
    for revised in revisions:
        take_slice(memory, revised.part(), revised.local_D(), merge, keep=KEEP, inputs=b"%d" % revised.seed)
    return memory


def merged(memory: UserMemory) -> npt.NDArray[np.float32]:
    """The decayed means (H, D)."""
    return DECAYED.read(memory.state)


def by_formula(slices: list[Revised]) -> npt.NDArray[np.float64]:
    """Oracle: the decayed means of these slices, each half-life and dimension by itself."""
    now = max((part.end_ts for part in slices), default=0)
    means = np.zeros((len(HALF_LIVES_MS), DIM))
    for h, half_life_ms in enumerate(HALF_LIVES_MS):
        weights = [part.weight * 0.5 ** ((now - part.end_ts) / half_life_ms) for part in slices]
        for d in range(DIM):
            total = sum(w * float(part.code_D()[d]) for w, part in zip(weights, slices, strict=True))
            means[h, d] = total / sum(weights) if slices else 0.0
    return means


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Revised], list[Revised]]:
    """Revisions as they arrive, and what remains: the newest revision of each slice."""
    arrived: list[Revised] = []
    known: list[Revised] = []
    for _ in range(draw(st.integers(0, 14))):
        repairs = draw(st.booleans())
        if known and repairs:
            place = draw(st.integers(max(0, len(known) - 1 - KEEP), len(known) - 1))
            old = known[place]
            end_ts = old.end_ts + draw(st.integers(0, 30))
            revised = Revised(old.seq, old.revision + 1, end_ts, draw(st.floats(0.5, 5)), len(arrived))
            known[place] = revised
        else:
            revised = Revised(len(known), 1, draw(st.integers(0, 300)), draw(st.floats(0.5, 5)), len(arrived))
            known.append(revised)
        arrived.append(revised)
    return arrived, known


@given(arrivals())
def test_sums_equal_the_formula(case: tuple[list[Revised], list[Revised]]) -> None:
    arrived, known = case
    memory = taken(arrived)
    np.testing.assert_allclose(merged(memory), by_formula(known[:-1]), atol=TOLERANCE)
    assert memory.num_merged == max(0, len(known) - 1)
    if known:
        assert memory.newest == known[-1].part()
        assert memory.local == known[-1].local_D().tobytes()


@EVERY_MERGE
@given(case=arrivals())
def test_a_repair_equals_having_had_the_new_revision_from_the_start(
    merge: Merge, case: tuple[list[Revised], list[Revised]]
) -> None:
    arrived, known = case
    repaired, straight = taken(arrived, merge=merge), taken(known, merge=merge)
    if isinstance(merge, DecayedSums):
        np.testing.assert_allclose(merged(repaired), merged(straight), atol=TOLERANCE)
    else:
        assert (repaired.state, repaired.base) == (straight.state, straight.base)
    assert repaired.recent == straight.recent
    assert repaired.newest == straight.newest
    assert repaired.num_merged == straight.num_merged


@EVERY_MERGE
@given(case=arrivals())
def test_repeats_change_nothing(merge: Merge, case: tuple[list[Revised], list[Revised]]) -> None:
    arrived, known = case
    memory = taken(arrived, merge=merge)
    before = msgspec.msgpack.encode(memory)
    for revised in arrived:
        assert not take_slice(memory, revised.part(), revised.local_D(), merge, keep=KEEP)
    assert msgspec.msgpack.encode(memory) == before
    assert len(memory.recent) == min(KEEP, max(0, len(known) - 1))


@EVERY_MERGE
@given(case=arrivals())
def test_a_memory_is_not_changed_by_keeping_it(merge: Merge, case: tuple[list[Revised], list[Revised]]) -> None:
    arrived, _ = case
    memory = UserMemory()
    for revised in arrived:
        stored = msgspec.msgpack.encode(memory)
        taken([revised], memory, merge)
        assert taken([revised], msgspec.msgpack.decode(stored, type=UserMemory), merge) == memory


@EVERY_MERGE
def test_memories_stay_of_one_size(merge: Merge) -> None:
    parts = [Revised(seq, 1, 30 * seq, 1.0, seq) for seq in range(90)]
    memory = taken(parts[:30], merge=merge)
    sizes = [len(memory.state), len(memory.base), len(memory.recent)]
    memory = taken(parts[30:], memory, merge)
    assert [len(memory.state), len(memory.base), len(memory.recent)] == sizes
    assert merge.read(memory.state).shape == merge.read(b"").shape
    assert not merge.read(b"").any()


def test_the_newest_codes_by_hand() -> None:
    parts = [Revised(seq, 1, seq, 1.0, seq) for seq in range(5)]
    read = [MERGES["concat"].read(taken(parts[:num], merge=MERGES["concat"]).state).tolist() for num in (0, 3, 5)]
    codes = [part.code_D().tolist() for part in parts]
    assert read == [[[0.0] * DIM] * 3, [codes[1], codes[0], [0.0] * DIM], [codes[3], codes[2], codes[1]]]


def test_a_carried_vector_sees_code_weight_and_time_in_order() -> None:
    parts = [Revised(0, 1, 10, 2.0, 0), Revised(1, 1, 15, 1.0, 1), Revised(2, 1, 95, 3.0, 2), Revised(3, 1, 96, 1.0, 3)]
    memory = taken(parts, merge=MERGES["gate"])
    carried_D = np.zeros(DIM, dtype=np.float32)
    for part, age_ms in zip(parts, [0, 5, 80], strict=False):
        carried_D = carry(carried_D, part.code_D(), part.weight, age_ms)
    assert MERGES["gate"].read(memory.state).tolist() == [carried_D.tolist()]


def test_the_newest_revision_brings_the_inputs_to_encode_it_again() -> None:
    memory = taken([Revised(0, 1, 0, 1.0, 5), Revised(1, 1, 9, 1.0, 6)])
    assert memory.inputs == b"6"
    assert taken([Revised(0, 2, 0, 1.0, 7)], memory).inputs == b"6"
    assert taken([Revised(1, 2, 9, 1.0, 8)], memory).inputs == b"8"


@EVERY_MERGE
@given(order=st.permutations(range(KEEP + 1)))
def test_slices_first_heard_of_after_newer_ones_are_merged_all_the_same(merge: Merge, order: list[int]) -> None:
    parts = [Revised(seq, 1, 40 * seq, 1.0 + seq, seq) for seq in range(KEEP + 1)]
    memory = taken([parts[seq] for seq in order], merge=merge)
    straight = merge.read(taken(parts, merge=merge).state)
    np.testing.assert_allclose(merge.read(memory.state), straight, atol=TOLERANCE)
    assert [part.seq for part in memory.recent] == list(range(KEEP))
    assert memory.num_merged == KEEP


def test_a_slice_that_may_be_in_the_sums_already_is_not_merged_again() -> None:
    parts = [Revised(seq, 1, seq, 1.0, seq) for seq in range(KEEP + 3)]
    memory = taken(parts)
    before = msgspec.msgpack.encode(memory)
    old = Revised(0, 2, 0, 9.0, 99)
    assert not take_slice(memory, old.part(), old.local_D(), DECAYED, keep=KEEP)
    assert msgspec.msgpack.encode(memory) == before


@pytest.mark.parametrize("num_slices", [0, 1])
def test_nothing_merged_is_zeros(num_slices: int) -> None:
    memory = taken([Revised(0, 1, 5, 1.0, 1)][:num_slices])
    assert merged(memory).tolist() == [[0.0] * DIM] * len(HALF_LIVES_MS)


def test_by_hand() -> None:
    # One half-life apart: weights 2 * 1/2 and 3, codes 1 and 5.
    memory = UserMemory()
    for seq, (end_ts, weight, code) in enumerate([(0, 2.0, 1.0), (50, 3.0, 5.0), (60, 1.0, 7.0)]):
        part = MergedSlice(seq, 1, end_ts, weight, np.array([code], dtype="<f4").tobytes())
        take_slice(memory, part, np.array([code], dtype="<f4"), DecayedSums(np.array([50.0]), 1), keep=KEEP)
    assert DecayedSums(np.array([50.0]), 1).read(memory.state)[0, 0] == pytest.approx((1 * 1 + 3 * 5) / (1 + 3))


def test_ages_far_beyond_a_half_life_stay_finite() -> None:
    memory = taken([Revised(0, 1, 0, 1.0, 0), Revised(1, 1, 10**13, 1.0, 1), Revised(2, 1, 0, 1.0, 2)])
    memory = taken([Revised(3, 1, 2 * 10**13, 1.0, 3)], memory)
    assert np.isfinite(merged(memory)).all()
