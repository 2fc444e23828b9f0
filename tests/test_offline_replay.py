"""Replaying without a broker: neither chunks nor partitions change slices and vectors, and so neither do they lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stream_app.errors import UsageError
from stream_app.offline_replay import OfflineReplay, replay_offline
from stream_app.recording import RecordedList, RecordedSlice, Recorder, Recording
from stream_app.recording_check import compare
from stream_app.replay.readers import Row, open_log
from tests.replay_cases import (
    MINUTE_MS,
    START_MS,
    cut_rows,
    demo_settings,
    known_items,
    logs,
    replayed,
    rows_of,
    sample_lines,
)

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


def slices_of(recording: Recording) -> list[bytes]:
    return [
        line
        for line, record in zip(recording.lines, recording.records(), strict=True)
        if isinstance(record, RecordedSlice)
    ]


def vectors_of(replay: OfflineReplay) -> dict[str, np.ndarray]:
    return {user: np.frombuffer(profile.user_vector, dtype="<f4") for user, profile in replay.profiles.items()}


@settings(max_examples=60, deadline=None)
@given(logs(is_ordered=True), PARTITIONS, CUTS)
def test_a_log_in_order_gives_the_same_bytes_however_it_is_cut(rows: list[Row], partitions: int, cuts: set[int]) -> None:
    whole, one = replayed(demo_settings(1), [rows])
    cut, other = replayed(demo_settings(partitions), cut_rows(rows, cuts))
    assert cut.lines == whole.lines
    first, second = vectors_of(one), vectors_of(other)
    assert first.keys() == second.keys()
    assert all(first[user].tobytes() == second[user].tobytes() for user in first)


@settings(max_examples=60, deadline=None)
@given(logs(is_ordered=False), PARTITIONS, CUTS)
def test_a_log_out_of_order_gives_the_same_slices_and_all_but_the_same_vectors(
    rows: list[Row], partitions: int, cuts: set[int]
) -> None:
    whole, one = replayed(demo_settings(1), [rows])
    cut, other = replayed(demo_settings(partitions), cut_rows(rows, cuts))
    assert slices_of(cut) == slices_of(whole)
    first, second = vectors_of(one), vectors_of(other)
    assert first.keys() == second.keys()
    for user, vector_D in first.items():
        scale = float(np.abs(vector_D).max())
        np.testing.assert_allclose(second[user], vector_D, rtol=0, atol=VECTOR_TOLERANCE * scale)
    compared = compare(whole, cut, score_tolerance=SCORE_TOLERANCE)
    assert compared.first is None, compared.first.text()
