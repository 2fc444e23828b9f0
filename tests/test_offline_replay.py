"""Replaying without a broker: neither chunks nor partitions change slices, vectors or lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.errors import ModelError, UsageError
from stream_app.offline_replay import OfflineOutcome, OfflineReplay, replay_offline
from stream_app.recording import RecordedList, RecordedSlice, Recorder, Recording
from stream_app.recording_check import compare
from stream_app.replay.readers import Row, open_log
from tests.examples import examples
from tests.replay_cases import (
    MINUTE_MS,
    START_MS,
    cut_rows,
    demo_settings,
    first_line,
    logs,
    replayed,
    row_of,
    sample_rows,
)

pytestmark = pytest.mark.slow

CUTS = st.sets(st.integers(1, 30), max_size=12)
PARTITIONS = st.integers(2, 7)

VECTOR_TOLERANCE = 1e-5
"""Largest difference of a user vector's entries, relative to its largest one, where a merged slice was repaired.

A repair takes the old code out of float32 sums and puts the new one in: two more roundings of 2^-24 (6e-8) for each
sum. The logs here repair at most 24 times, which makes 24 * 2 * 6e-8 = 3e-6 in the merged vectors, and the last layers
of the encoder may stretch that; nothing else differs between batches.
"""

SCORE_TOLERANCE = 1e-4
"""What that may do to a score: a score holds an inner product of about 10 at most."""


LONG_EPOCHS = {"epoch_s": 600.0, "allowed_lateness_s": 0.0}
"""Epochs in which much happens, and no patience: who else is in a partition would show, if it could."""

WATERMARK_ROWS: list[Row] = [
    row_of("a", "1", START_MS + 3000),
    row_of("b", "1", START_MS + 31 * MINUTE_MS),
    row_of("a", "2", START_MS + 30 * MINUTE_MS),
]
"""The last one is late and still in time for its slice, unless b's event has closed it: b is in the same partition, or
is not."""


def slices_of(recording: Recording) -> list[bytes]:
    return [
        line
        for line, record in zip(recording.lines, recording.records(), strict=True)
        if isinstance(record, RecordedSlice)
    ]


def vectors_of(replay: OfflineReplay) -> dict[str, npt.NDArray[np.float32]]:
    return {user: np.frombuffer(profile.user_vector, dtype="<f4") for user, profile in replay.profiles.items()}


@examples(40)
@given(logs(is_ordered=True), PARTITIONS, CUTS)
def test_a_log_in_order_gives_the_same_bytes_however_cut(rows: list[Row], partitions: int, cuts: set[int]) -> None:
    whole, one = replayed(demo_settings(1), [rows])
    cut, other = replayed(demo_settings(partitions), cut_rows(rows, cuts))
    assert cut.lines == whole.lines
    first, second = vectors_of(one), vectors_of(other)
    assert first.keys() == second.keys()
    assert all(first[user].tobytes() == second[user].tobytes() for user in first)


@examples(40)
@given(logs(is_ordered=False), PARTITIONS, CUTS)
@example(WATERMARK_ROWS, 3, set())
@example(WATERMARK_ROWS, 4, set())
def test_a_log_out_of_order_gives_the_same_slices_and_all_but_the_same_vectors(
    rows: list[Row], partitions: int, cuts: set[int]
) -> None:
    whole, one = replayed(demo_settings(1, **LONG_EPOCHS), [rows])
    cut, other = replayed(demo_settings(partitions, **LONG_EPOCHS), cut_rows(rows, cuts))
    assert slices_of(cut) == slices_of(whole)
    first, second = vectors_of(one), vectors_of(other)
    assert first.keys() == second.keys()
    for user, vector_D in first.items():
        scale = float(np.abs(vector_D).max())
        np.testing.assert_allclose(second[user], vector_D, rtol=0, atol=VECTOR_TOLERANCE * scale)
    compared = compare(whole, cut, score_tolerance=SCORE_TOLERANCE)
    assert compared.first is None, compared.first.text()


@examples(30)
@given(logs(is_ordered=True), CUTS)
def test_every_list_uses_the_last_epoch_before_its_event(rows: list[Row], cuts: set[int]) -> None:
    recording, _ = replayed(demo_settings(), cut_rows(rows, cuts))
    last_ts = {row["user_id"]: row["ts"] for row in rows if isinstance(row, dict) and row["type"] != "gaze"}
    lists = [record for record in recording.records() if isinstance(record, RecordedList)]
    assert {made.user_id: made.event_ts for made in lists} == last_ts
    epoch_ms = demo_settings().epoch_ms
    assert all(made.epoch == made.event_ts // epoch_ms - 1 for made in lists)


@pytest.mark.slow
def test_the_sample_gives_the_same_bytes_in_chunks_of_any_size() -> None:
    rows: list[Row] = list(sample_rows(600))
    whole, _ = replayed(demo_settings(), [rows])
    for size in (1, 37, 256):
        cut, _ = replayed(demo_settings(), cut_rows(rows, range(0, len(rows), size)))
        assert cut.lines == whole.lines, size


def test_the_end_of_the_log_is_the_end_of_its_last_epoch() -> None:
    closed = []
    for epoch_s in (10.0, 7200.0):
        recording, _ = replayed(demo_settings(epoch_s=epoch_s), [[row_of("a", "1", START_MS)]])
        closed += [record.closed for record in recording.records() if isinstance(record, RecordedSlice)]
    assert closed == [False, True]


# ---------------------------------------------------------------- whole logs


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """A hundred events, with a repeat, an unknown type, a line that is none, and a far too late one."""
    rows = sample_rows(100)
    bad = [rows[-1], {**rows[-1], "type": "gaze"}, {**rows[-1], "item_id": "late", "ts": START_MS - 10**10}]
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n".join([*map(orjson.dumps, [*rows, *bad]), b"{"]))
    return path


def replay_file(path: Path, **options: Any) -> tuple[OfflineOutcome, list[bytes]]:
    recorder = Recorder()
    outcome = replay_offline(open_log(path), demo_settings(), recorder=recorder, **options)
    return outcome, list(recorder.recording(first_line(outcome, demo_settings())).lines)


def test_everything_is_accounted_for_and_the_second_time_is_the_same(log_file: Path) -> None:
    told: list[int] = []
    outcome, lines = replay_file(log_file, send_unknown_types=True, on_taken=told.append)
    assert outcome.totals.balances(104)
    assert (outcome.totals.applied, dict(outcome.totals.dropped)) == (100, {"duplicate": 1, "late_too_old": 1})
    assert outcome.dead_letters == {"not_json": 1, "unknown_type": 1}
    assert outcome.sent.num_events == told[-1] == 104
    assert outcome.num_lists == len({row["user_id"] for row in sample_rows(100)})
    assert replay_file(log_file, send_unknown_types=True) == (outcome, lines)


def test_unknown_types_are_refused_or_mapped(log_file: Path) -> None:
    with pytest.raises(UsageError, match="gaze"):
        replay_file(log_file)
    outcome, _ = replay_file(log_file, type_map={"gaze": "click"})
    assert outcome.dead_letters == {"not_json": 1}
    assert replay_file(log_file, limit=0)[0].sent.num_events == 0


def test_what_is_sold_out_is_not_listed(log_file: Path, tmp_path: Path) -> None:
    def listed(lines: Sequence[bytes]) -> set[str]:
        records = Recording(lines).records()
        return {item.item_id for made in records if isinstance(made, RecordedList) for item in made.items}

    _, before = replay_file(log_file, send_unknown_types=True)
    gone = sorted(listed(before))[:5]
    catalogue = tmp_path / "items.ndjson"
    rows = [{"item_id": item, "available": False} for item in gone] + [{"item_id": "new"}]
    catalogue.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    _, after = replay_file(log_file, send_unknown_types=True, items=catalogue)
    assert listed(after) and not listed(after) & set(gone)


def test_without_a_model_nothing_is_replayed(log_file: Path) -> None:
    with pytest.raises(ModelError, match="model"):
        replay_offline(open_log(log_file), demo_settings(model=""), send_unknown_types=True)
