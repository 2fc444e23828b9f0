"""The drift meter: nothing drifts whatever is repaired, and what the stream forgets shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.contract import (
    BoolArray,
    Float32Array,
    Int64Array,
    MergeKind,
    MergeSpec,
    SliceBatch,
    SliceCodes,
    SliceEncoder,
)
from stream_app import drift_meter
from stream_app.drift_meter import EVERY_S, EVERY_SLICES, MAX_SLICES, MAX_USERS, NUM_CHECKS, DriftMeter
from stream_app.records import DriftRecord, SliceEvent, SliceRecord, SliceVectorRecord
from stream_app.slice_encoding import encode_slices
from stream_app.stages import merging
from stream_app.stages.encoding import newest_revisions
from stream_app.stages.merging import UserMemory
from tests.replay_cases import demo_encoder, known_items
from tests.stages.cases import Entry, Worker, event, logs

DIM = 6
WEIGHTS = {"buy": 3.0}
HALF_LIVES_MS = np.array([20.0, 500.0])
TOLERANCE = 1e-4
"""Of one minus the cosine: sums are kept in float32 and repaired by subtraction."""

NUM_ROWS: dict[MergeKind, int] = {"none": 0, "decayed": 2, "gate": 1, "concat": 3, "tokens": 2}


class ToyEncoder:
    """A small encoder in which every event, its gap and what was before it show, for any kind of merge."""

    release = "toy-1"
    dim = DIM
    slice_events = 3
    context_events = 2

    def __init__(self, kind: MergeKind) -> None:
        decays = kind in ("decayed", "tokens")
        self.half_lives_ms = HALF_LIVES_MS if decays else np.zeros(0)
        self.merge = MergeSpec(kind, NUM_ROWS[kind], tuple(self.half_lives_ms))
        self._table = np.random.default_rng(5).standard_normal((400, DIM)).astype(np.float32)

    def rows_of(self, item_ids: Sequence[str]) -> Int64Array:
        return np.array([2 + sum(item_id.encode()) % 97 for item_id in item_ids], dtype=np.int64)

    def type_rows_of(self, names: Sequence[str]) -> Int64Array:
        return np.array([100 + len(name) for name in names], dtype=np.int64)

    def encode(self, batch: SliceBatch) -> SliceCodes:
        codes = []
        for place, length in enumerate(batch.lengths_S):
            own = self._table[batch.item_rows_SL[place, :length]] + self._table[batch.type_rows_SL[place, :length]]
            gaps = self._table[200 + batch.gaps_ms_SL[place, :length] % 100]
            before = self._table[batch.context_item_rows_SC[place]].sum(axis=0)
            codes.append(np.tanh((own * gaps).sum(axis=0) + 0.1 * before))
        codes_SD = np.array(codes, dtype=np.float32).reshape(-1, DIM)
        return SliceCodes(codes_SD, -codes_SD[:, ::-1].copy())

    def recalled(self, batch: SliceBatch, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        return self.encode(batch).locals_SD + np.float32(2) * np.mean(merged_SRD, axis=1, dtype=np.float32)

    def carried(self, carried_D: Float32Array, code_D: Float32Array, weight: float, age_ms: int) -> Float32Array:
        share = np.float32(0.5 if age_ms < 20 else 0.9)
        return np.tanh(carried_D + share * (np.float32(weight) * code_D - carried_D)).astype(np.float32)

    def user_vectors(self, locals_SD: Float32Array, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        return locals_SD + np.float32(2) * np.sum(merged_SRD, axis=1, dtype=np.float32)

    def item_vectors(self) -> tuple[list[str], Float32Array]:
        return [f"i{number}" for number in range(200)], self._table[:200]


class AtOnce(Executor):
    """An executor that is done when it is asked."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except RuntimeError as error:
            future.set_exception(error)
        return future


class Later(Executor):
    """An executor that never comes to its work."""

    def __init__(self) -> None:
        self.num_asked = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.num_asked += 1
        return Future()


class Role:
    """What the encode role does with its runs, with a meter beside it; `clock_s` is for the test to set."""

    def __init__(self, encoder: SliceEncoder, executor: Executor | None = None, users_share: float = 1.0) -> None:
        self.encoder = encoder
        self.clock_s = 0.0
        self.memories: dict[str, UserMemory] = {}
        self.vectors: list[SliceVectorRecord] = []
        self.meter = DriftMeter(
            encoder,
            executor or AtOnce(),
            WEIGHTS,
            users_share=users_share,
            instance="here",
            clock_s=lambda: self.clock_s,
        )

    def run(self, records: Sequence[SliceRecord], partition: int = 0) -> DriftRecord | None:
        """Merge the newest revisions of a run, and let the meter see it."""
        kept = newest_revisions(records)
        self.vectors = encode_slices(self.encoder, kept, self.memories, WEIGHTS)
        return self.meter.take(partition, kept, self.vectors)

    def check_all(self, records: Sequence[SliceRecord]) -> DriftRecord:
        """Check the user of each record now: repeats are no news, but somebody is due after `EVERY_S`."""
        figures = None
        for record in [*records, *records[-1:]]:
            self.clock_s += EVERY_S
            figures = self.run([record]) or figures
        assert figures is not None
        return figures


def slice_of(user_id: str, seq: int, revision: int = 1, **changes: Any) -> SliceRecord:
    """A slice of two events, which differ from slice to slice and from revision to revision."""
    events = [SliceEvent(f"{seq}.{revision}.{place}", "click", 100 * seq + place, 7) for place in range(2)]
    made = SliceRecord(
        user_id=user_id,
        seq=seq,
        revision=revision,
        closed=False,
        fresh=True,
        events=events,
        partition=0,
        offset=100 * seq + revision,
    )
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize("kind", NUM_ROWS)
@given(log=logs(max_size=60), cuts=st.sets(st.integers(1, 59), max_size=12), more=st.sets(st.integers(1, 99)))
def test_nothing_drifts_whatever_is_repaired_and_however_runs_are_cut(
    kind: MergeKind, log: list[Entry], cuts: set[int], more: set[int]
) -> None:
    slices = Worker().run_all([*log, event("a", "p", 5000), event("b", "q", 5001)], cuts).slices
    role = Role(ToyEncoder(kind))
    bounds = [0, *sorted(cut for cut in more if cut < len(slices)), len(slices)]
    for start, end in pairwise(bounds):
        role.run(slices[start:end])
    figures = role.check_all(list({record.user_id: record for record in slices}.values()))
    assert (figures.users, figures.users_left_out) == (2, 0)
    assert 1 - figures.min_cosine < TOLERANCE


def test_the_demo_model_does_not_drift_either() -> None:
    items = known_items()
    log = [event("a", items[n % 6], ts) for n, ts in enumerate([0, 5, 30, 60, 62, 95, 130, 128, 160, 162, 159, 200])]
    worker = Worker().run_all(log, range(1, len(log)))
    assert worker.status().dropped == {}  # so the three late ones are repairs
    role = Role(demo_encoder())
    for record in worker.slices:
        role.run([record])
    figures = role.check_all(worker.slices[-1:])
    assert figures.slices == len({record.seq for record in worker.slices}) >= 5
    assert 1 - figures.min_cosine < TOLERANCE
    assert figures.mean_overlap_10 == 1.0


def test_a_slice_that_the_stream_forgot_shows() -> None:
    role = Role(ToyEncoder("decayed"))
    for seq in range(3):
        role.run([slice_of("a", seq)])
    memory = role.memories["a"]
    forgotten = merging.DecayedSums(HALF_LIVES_MS, DIM).taken_out(memory.state, memory.recent[-1])
    role.memories["a"] = msgspec.structs.replace(memory, state=forgotten)
    role.run([slice_of("a", 2, revision=2)])
    figures = role.check_all([slice_of("a", 2, revision=2)])
    assert figures.slices == 3
    assert 1 - figures.min_cosine > 10 * TOLERANCE
    assert figures.mean_overlap_10 < 1.0


def test_a_repair_that_the_stream_passed_over_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    role = Role(ToyEncoder("decayed"))
    for seq in range(3):
        role.run([slice_of("a", seq)])
    with monkeypatch.context() as patched:
        patched.setattr(merging, "_repair", lambda *_: False)
        role.run([slice_of("a", 1, revision=2)])
    assert 1 - role.check_all([slice_of("a", 2)]).min_cosine > 10 * TOLERANCE


def test_a_user_is_checked_after_so_many_fresh_revisions_and_the_figures_come_with_the_next_run() -> None:
    role = Role(ToyEncoder("decayed"))
    runs = [[slice_of("a", seq, fresh=seq != 3)] for seq in range(EVERY_SLICES + 2)]
    figures = [role.run(run) for run in runs]
    assert figures[:-1] == [None] * (EVERY_SLICES + 1)
    assert figures[-1] is not None
    assert (figures[-1].checks, figures[-1].users, figures[-1].slices) == (1, 1, EVERY_SLICES + 1)
    assert (figures[-1].release, figures[-1].instance) == ("toy-1", "here")
    assert role.run([slice_of("a", EVERY_SLICES + 2)]) is None


def test_somebody_is_checked_once_a_minute() -> None:
    role = Role(ToyEncoder("decayed"))
    assert role.run([slice_of("a", 0), slice_of("b", 0)]) is None
    assert role.run([slice_of("b", 1)]) is None
    role.clock_s = EVERY_S
    assert role.run([slice_of("b", 2)]) is None
    figures = role.run([slice_of("b", 3)])
    assert figures is not None and (figures.checks, figures.slices) == (1, 3)


def test_one_check_at_a_time_and_none_for_those_who_are_not_sampled() -> None:
    executor = Later()
    role = Role(ToyEncoder("decayed"), executor)
    for seq in range(3 * EVERY_SLICES):
        role.run([slice_of("a", seq)])
    assert executor.num_asked == 1

    executor = Later()
    role = Role(ToyEncoder("decayed"), executor, users_share=0.0)
    for seq in range(3 * EVERY_SLICES):
        role.run([slice_of("a", seq)])
    assert executor.num_asked == 0


def test_the_figures_are_over_the_newest_checks() -> None:
    role = Role(ToyEncoder("none"))
    role.run([slice_of(user, 0) for user in "ab"])
    figures = role.check_all([slice_of("a", 0)] + [slice_of("b", 0)] * NUM_CHECKS)
    assert (figures.checks, figures.users) == (NUM_CHECKS, 1)


def test_who_was_not_seen_from_the_first_slice_on_is_left_out() -> None:
    encoder = ToyEncoder("decayed")
    before = Role(encoder)
    before.run([slice_of("a", 0), slice_of("b", 0)])
    role = Role(encoder)
    role.memories = before.memories
    # The second slice of "a", a repair of the first behind it, the same slice of "b" as before; "c" is new.
    role.run([slice_of("a", 1)])
    role.run([slice_of("a", 0, revision=2), slice_of("b", 0), slice_of("c", 0)])
    figures = role.check_all([slice_of("a", 1), slice_of("b", 0), slice_of("c", 0)])
    assert (figures.users, figures.users_left_out, figures.slices) == (1, 2, 1)
    # What "b" does next holds all of the first slice.
    role.run([slice_of("b", 0, revision=2)])
    figures = role.check_all([slice_of("b", 0, revision=2)])
    assert (figures.users, figures.users_left_out) == (2, 1)


def test_a_first_run_that_was_repaired_already_is_whole() -> None:
    # By its newest event the first slice stands behind the second.
    role = Role(ToyEncoder("decayed"))
    role.run([slice_of("a", 1), slice_of("a", 0, revision=2, offset=150)])
    figures = role.check_all([slice_of("a", 1)])
    assert (figures.slices, figures.users_left_out) == (2, 0)
    assert figures.min_cosine == pytest.approx(1.0, abs=1e-6)


def test_a_partition_that_comes_back_starts_anew() -> None:
    role = Role(ToyEncoder("decayed"))
    role.run([slice_of("a", 0)], partition=0)
    role.run([slice_of("b", 0)], partition=1)
    role.meter.forget(0)
    figures = role.check_all([slice_of("a", 0), slice_of("b", 0)])
    assert (figures.users, figures.users_left_out) == (1, 1)


def test_users_and_slices_are_bounded() -> None:
    histories = drift_meter.SampledHistories(1.0)
    role = Role(ToyEncoder("none"), users_share=0.0)

    def take(record: SliceRecord) -> None:
        role.run([record])
        histories.take(0, record.user_id, [record], role.vectors)

    for number in range(MAX_USERS + 3):
        take(slice_of(f"u{number}", 0))
    take(slice_of("u3", 1))
    take(slice_of("new", 0))
    assert (histories.num_users, histories.num_left_out) == (MAX_USERS, 4)
    assert [user in histories for user in ("u2", "u3", "u4", "new")] == [False, True, False, True]

    for seq in range(1, MAX_SLICES):
        take(slice_of("new", seq))
    assert len(histories.history_of("new").slices) == MAX_SLICES
    take(slice_of("new", MAX_SLICES))
    assert "new" not in histories
    assert histories.next_due() is None or histories.next_due() in histories

    for number in range(2 * MAX_USERS):
        take(slice_of(f"old{number}", 5))
    assert histories.num_left_out == MAX_USERS


def test_a_check_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    role = Role(ToyEncoder("decayed"))
    role.run([slice_of("a", 0)])
    role.clock_s = EVERY_S

    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(drift_meter, "compare", fail)
        assert role.run([slice_of("a", 1)]) is None
    assert role.run([slice_of("a", 2)]) is None
    assert "out of memory" in caplog.text
    assert role.check_all([slice_of("a", 2)]).checks == 1


def test_the_log_gets_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    role = Role(ToyEncoder("none"))
    role.run([slice_of("a", 0)])
    with caplog.at_level("INFO", "sliceflow.drift"):
        role.check_all([slice_of("a", 0)] * 3)
        assert len(caplog.records) == 3
        role.run([slice_of("a", 0)])
    assert len(caplog.records) == 3
    assert "drift over 1 checks of 1 users: cosine 1.0" in caplog.text
