"""The contract of merges, on every one: what training learns with is what the stream keeps, slice by slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.checkpoint import load_model, save_model
from encoders.contract import MergeKind
from encoders.forward import batch_outputs
from encoders.merges import Gate, decayed_means
from encoders.reference import ReferenceEncoder
from encoders.runtime import SliceEncoderRuntime
from encoders.sampling import BatchSampler, SliceReader
from stream_app.records import SliceEvent, SliceRecord, SliceVectorRecord, unpack_vector
from stream_app.slice_encoding import encode_slices, merge_of
from stream_app.stages.encoding import KEEP_REPAIRABLE
from stream_app.stages.merging import UserMemory
from tests.encoders.cases import histories_of, made_up_model, random_batch
from tests.examples import examples

KINDS: tuple[MergeKind, ...] = get_args(MergeKind)
TOLERANCE = 2e-5
WEIGHTS = {"click": 0.5}
SLICE_EVENTS = 4
NUM_SLICES = 12

Slice = list[tuple[int, int]]
"""Events as item number and time in milliseconds."""


@dataclass(frozen=True)
class Encoders:
    """One made-up model, on the fast path and on the slow one."""

    fast: SliceEncoderRuntime
    slow: ReferenceEncoder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved made-up model for each merge; read only."""
    folder = tmp_path_factory.mktemp("merges")
    for kind in KINDS:
        save_model(made_up_model(seed=5, slice_events=SLICE_EVENTS, merge=kind), folder / kind)
    return folder


@cache
def encoders_in(folder: Path) -> Encoders:
    """The model of a folder."""
    return Encoders(SliceEncoderRuntime.load(folder, "cpu"), ReferenceEncoder(load_model(folder)))


def some_slices(num_slices: int, seed: int) -> list[Slice]:
    """A user's slices, of all lengths; within a slice minutes pass, between slices up to weeks."""
    generator = np.random.default_rng(seed)
    slices: list[Slice] = []
    ts_ms = 1_700_000_000_000
    for _ in range(num_slices):
        ts_ms += int(10 ** generator.uniform(4, 9))
        times = [ts_ms := ts_ms + int(generator.integers(1, 300_000)) for _ in range(generator.integers(1, 5))]
        slices.append([(int(generator.integers(50)), time) for time in times])
    return slices


def records_of(slices: Sequence[Slice], user_id: str = "a", *, revision: int = 1) -> list[SliceRecord]:
    """The slices as the sequence role publishes them."""
    flat = [(place, item, ts) for place, one in enumerate(slices) for item, ts in one]
    gaps_ms = [-1, *(later[2] - sooner[2] for sooner, later in pairwise(flat))]
    events = [SliceEvent(f"item-{item}", "click", ts, gap) for (_, item, ts), gap in zip(flat, gaps_ms, strict=True)]
    records = []
    for seq in range(len(slices)):
        own = [event for event, (place, _, _) in zip(events, flat, strict=True) if place == seq]
        before = [event for event, (place, _, _) in zip(events, flat, strict=True) if place < seq][-SLICE_EVENTS:]
        records.append(
            SliceRecord(
                user_id=user_id,
                seq=seq,
                revision=revision,
                closed=True,
                fresh=True,
                events=own,
                before=before,
                partition=0,
                offset=seq,
            )
        )
    return records


def vectors_of(made: Sequence[SliceVectorRecord]) -> npt.NDArray[np.float32]:
    """The user vectors, (S, D)."""
    return np.stack([unpack_vector(vector.user_vector) for vector in made])


def one_by_one(encoder: SliceEncoderRuntime, records: Sequence[SliceRecord]) -> npt.NDArray[np.float32]:
    """User vectors after each slice, each encoded alone, with the memory stored in between."""
    stored = msgspec.msgpack.encode(UserMemory())
    made: list[SliceVectorRecord] = []
    for record in records:
        memories = {record.user_id: msgspec.msgpack.decode(stored, type=UserMemory)}
        made += encode_slices(encoder, [record], memories, WEIGHTS)
        stored = msgspec.msgpack.encode(memories[record.user_id])
    return vectors_of(made)


@pytest.mark.parametrize("kind", KINDS)
def test_training_equals_serving(folders: Path, kind: MergeKind) -> None:
    encoder = encoders_in(folders / kind).fast
    users = [some_slices(num_slices, seed=num_slices) for num_slices in (NUM_SLICES, 1, 5)]
    histories = histories_of([[[(item + 2, ts) for item, ts in one] for one in user] for user in users], weight=0.5)
    model = load_model(folders / kind).model
    reader = SliceReader(histories, model.dims.gap_edges_ms, SLICE_EVENTS, SLICE_EVENTS)
    targets_E = np.zeros(histories.num_events, dtype=np.int64)
    targets_E[histories.slice_starts_S1[1:] - 1] = np.arange(2, histories.num_slices + 2)
    sampler = BatchSampler(reader, targets_E, max_slices=100, batch_events=10_000)
    (batch,) = sampler.epoch(np.random.default_rng(0), 0.0)
    with torch.inference_mode():
        users_ND, targets_NT, _ = batch_outputs(model, batch)
    trained_SD = users_ND[torch.argsort(targets_NT[:, 0])].numpy()
    served_SD = np.concatenate([one_by_one(encoder, records_of(user)) for user in users])
    difference = float(np.abs(trained_SD - served_SD).max())
    assert difference < TOLERANCE, f"{kind}: largest difference {difference:.2e}"


@pytest.mark.parametrize("kind", KINDS)
def test_serving_equals_the_oracle(folders: Path, kind: MergeKind) -> None:
    encoders = encoders_in(folders / kind)
    records = records_of(some_slices(6, seed=1))
    fast, slow = (vectors_of(encode_slices(one, records, {}, WEIGHTS)) for one in (encoders.fast, encoders.slow))
    difference = float(np.abs(fast - slow).max())
    assert difference < 1e-4, f"{kind}: largest difference {difference:.2e}"


@pytest.mark.parametrize("kind", KINDS)
def test_one_batch_gives_the_bytes_of_many(folders: Path, kind: MergeKind) -> None:
    encoder = encoders_in(folders / kind).fast
    users = [records_of(some_slices(NUM_SLICES, seed), f"user {seed}") for seed in range(7)]
    together = [record for slices in zip(*users, strict=True) for record in slices]
    whole = encode_slices(encoder, together, {}, WEIGHTS)
    for user in users:
        own = [vector for vector in whole if vector.user_id == user[0].user_id]
        assert vectors_of(own).tobytes() == one_by_one(encoder, user).tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_past_counts_where_there_is_a_memory(folders: Path, kind: MergeKind) -> None:
    encoder = encoders_in(folders / kind).fast
    slices = some_slices(NUM_SLICES, seed=3)
    changed = [[((item + 7) % 50, ts) for item, ts in one] for one in slices[:-9]] + slices[-9:]
    # The four slices before the newest, which "concat" keeps, look back at three events: these are not changed.
    records = [replace_before(one, 3) for one in (records_of(slices), records_of(changed))]
    first, second = (encode_slices(encoder, one, {}, WEIGHTS)[-1].user_vector for one in records)
    assert (first != second) == (kind not in ("none", "concat"))


def replace_before(records: Sequence[SliceRecord], num_events: int) -> list[SliceRecord]:
    """The same with fewer events before each slice."""
    return [msgspec.structs.replace(record, before=record.before[-num_events:]) for record in records]


@pytest.mark.parametrize("kind", KINDS)
@examples(12)
@given(num_slices=st.integers(2, 9), seed=st.integers(0, 99), late=st.data())
def test_a_repair_equals_never_having_been_wrong(
    folders: Path, kind: MergeKind, num_slices: int, seed: int, late: st.DataObject
) -> None:
    encoder = encoders_in(folders / kind).fast
    right = some_slices(num_slices, seed)
    place = late.draw(st.integers(max(0, num_slices - 1 - KEEP_REPAIRABLE), num_slices - 1))
    wrong = [*right[:place], [(41, right[place][0][1])], *right[place + 1 :]]
    memories: dict[str, UserMemory] = {}
    encode_slices(encoder, records_of(wrong), memories, WEIGHTS)
    repairs = records_of(right, revision=2)[place:]
    # The repaired slice comes last, after those that only look back at it: it is the one with the late event.
    repaired = encode_slices(encoder, [*repairs[1:], repairs[0]], memories, WEIGHTS)[-1]
    straight: dict[str, UserMemory] = {}
    expected = encode_slices(encoder, records_of(right), straight, WEIGHTS)[-1]
    difference = float(np.abs(vectors_of([repaired]) - vectors_of([expected])).max())
    assert difference < 1e-3, f"largest difference {difference:.2e}"
    merge = merge_of(encoder)
    assert memories["a"].local == straight["a"].local
    np.testing.assert_allclose(merge.read(memories["a"].state), merge.read(straight["a"].state), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_reloading_and_storing_change_no_byte(folders: Path, kind: MergeKind) -> None:
    encoder = encoders_in(folders / kind).fast
    again = SliceEncoderRuntime.load(folders / kind, "cpu")
    records = records_of(some_slices(NUM_SLICES, seed=8))
    assert one_by_one(again, records).tobytes() == one_by_one(encoder, records).tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_memories_stay_of_one_size(folders: Path, kind: MergeKind) -> None:
    encoder = encoders_in(folders / kind).fast
    records = records_of(some_slices(40, seed=9))
    sizes = []
    memories: dict[str, UserMemory] = {}
    for record in records:
        encode_slices(encoder, [record], memories, WEIGHTS)
        sizes.append(len(msgspec.msgpack.encode(memories["a"])))
    assert max(sizes[20:]) - min(sizes[20:]) <= 2  # of the numbers in it


def test_only_the_merges_that_have_it_answer(folders: Path) -> None:
    encoder = encoders_in(folders / "decayed").fast
    zeros_D = np.zeros(encoder.dim, dtype=np.float32)
    with pytest.raises(ValueError, match="the merge is 'decayed': it carries no vector"):
        encoder.carried(zeros_D, zeros_D, 1.0, 0)
    batch = random_batch(2, seed=0, slice_events=SLICE_EVENTS)
    merged_SRD, has_merged_S = np.zeros((2, 4, encoder.dim), dtype=np.float32), np.ones(2, dtype=np.bool_)
    with pytest.raises(ValueError, match="the merge is 'decayed': its memory does not enter the encoder"):
        encoder.recalled(batch, merged_SRD, has_merged_S)
    with pytest.raises(ValueError, match="expected"):
        encoders_in(folders / "tokens").fast.recalled(batch, merged_SRD[:, :2], has_merged_S)


def test_a_memory_that_is_absent_is_not_read(folders: Path) -> None:
    encoder = encoders_in(folders / "tokens").fast
    batch = random_batch(5, seed=0, slice_events=SLICE_EVENTS)
    garbage, zeros = np.full((5, 4, encoder.dim), np.nan, np.float32), np.zeros((5, 4, encoder.dim), np.float32)
    absent = np.zeros(5, dtype=np.bool_)
    without = encoder.recalled(batch, garbage, absent)
    assert without.tobytes() == encoder.recalled(batch, zeros, absent).tobytes()
    assert without.tobytes() == encoder.encode(batch).locals_SD.tobytes()
    assert np.abs(encoder.recalled(batch, zeros + 1, ~absent) - without).max() > 1e-2


def test_every_merge_has_gradients() -> None:
    for kind in KINDS:
        model = made_up_model(seed=2, slice_events=SLICE_EVENTS, merge=kind).model.train()
        histories = histories_of([[[(item + 2, ts) for item, ts in one] for one in some_slices(6, seed=4)]])
        reader = SliceReader(histories, model.dims.gap_edges_ms, SLICE_EVENTS, SLICE_EVENTS)
        targets_E = np.full(histories.num_events, 3)
        (batch,) = BatchSampler(reader, targets_E, max_slices=9, batch_events=999).epoch(np.random.default_rng(0), 0.0)
        users_ND, _, _ = batch_outputs(model, batch)
        users_ND[:, 0].sum().backward()
        weights = dict(model.merge.named_parameters())
        still = [name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()]
        assert not still, f"{kind}: no gradient for {still}"


Codes = list[tuple[float, int]]
codes_of_a_user: st.SearchStrategy[Codes] = st.lists(
    st.tuples(st.floats(0.01, 100.0), st.integers(0, 10**9)), min_size=1, max_size=30
)


@settings(deadline=None)
@given(codes_of_a_user)
def test_decayed_means_equal_the_direct_sum(slices: Codes) -> None:
    half_lives_ms = np.array([1_000.0, 3.6e6, 3e12])
    codes_KD = np.random.default_rng(len(slices)).standard_normal((len(slices), 5)).astype(np.float32)
    weights_K = np.array([weight for weight, _ in slices], dtype=np.float32)
    ends_ms_K = np.cumsum([gap_ms for _, gap_ms in slices], dtype=np.int64) + 1_700_000_000_000
    means_KHD = decayed_means(
        torch.from_numpy(codes_KD)[None],
        torch.from_numpy(weights_K).log()[None],
        torch.from_numpy(ends_ms_K)[None],
        torch.tensor(half_lives_ms, dtype=torch.float32),
    )[0].numpy()
    assert not means_KHD[0].any()
    for rank in range(1, len(slices)):
        ages = (ends_ms_K[rank - 1] - ends_ms_K[:rank]).astype(np.float64)
        shares = weights_K[:rank, None] * np.exp2(-ages[:, None] / half_lives_ms)
        direct = (shares.T @ codes_KD[:rank].astype(np.float64)) / shares.sum(axis=0)[:, None]
        difference = float(np.abs(means_KHD[rank] - direct).max())
        assert difference < 1e-4, f"slice {rank}: largest difference {difference:.2e}"


def test_the_gate_by_hand() -> None:
    gate = Gate(1)
    with torch.no_grad():
        for weight in gate.parameters():
            weight.zero_()
        # Half open, and what comes in is tanh of the code plus the silence.
        gate.of_code.weight[2] = torch.tensor([1.0, 1.0, 0.0])
    codes, weights, ends_ms = torch.tensor([[[2.0], [3.0], [9.0]]]), torch.zeros(1, 3), torch.tensor([[5, 105, 200]])
    before = gate(codes, weights, ends_ms)[0, :, 0, 0].tolist()
    first = 0.5 * math.tanh(2.0)
    assert before == pytest.approx([0.0, first, 0.5 * first + 0.5 * math.tanh(3.0 + 0.05 * math.log(101))])
