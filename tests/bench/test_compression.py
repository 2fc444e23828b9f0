"""The figures of the measurement are ratios to the whole model, times in the same round."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.sampling import SliceReader
from encoders.vocabulary import default_gap_edges_ms
from tests.bench.compression import Measured, Round, gains_of, result_of, slice_batch
from tests.encoders.cases import MINUTE_MS, histories_of
from tests.encoders.closeness import Closeness


def made_up(ndcg10: float, num_bytes: int, batch_s: list[float]) -> Measured:
    rounds = [Round(seconds, seconds / 100) for seconds in batch_s]
    return Measured(np.array([0.0, 2 * ndcg10]), 0.01, Closeness(0.0, 1.0), rounds, num_bytes, 10, True)


def test_figures_are_in_relation_to_the_whole_model() -> None:
    measured = {
        "whole": made_up(0.2, 1000, [0.512, 0.256, 1.024]),
        "1 of 2 heads, tuned": made_up(0.19, 600, [0.256, 0.128, 1.024]),
    }
    result = result_of(measured, {"data": "made"})
    assert result.figures["slices_per_cpu_s"].value == pytest.approx(1000.0)
    assert result.figures["single_slice_cpu_ms"].value == pytest.approx(5.12)
    speed = result.figures["1_of_2_heads_tuned: speed"]
    # Twice as fast in two rounds, as fast in one, however slow the rounds themselves were.
    assert (speed.value, speed.spread) == (2.0, (1.0, 2.0))
    assert result.figures["1_of_2_heads_tuned: ndcg10"].value == pytest.approx(0.95)
    assert result.plain({})["targets"]["ndcg10"]["value"] == 0.2
    assert result.details["variants"]["1 of 2 heads, tuned"]["bytes"] == 600
    assert measured["whole"].row("whole")[:2] == ["whole", "0.2000"]


def test_gains_are_those_of_ndcg() -> None:
    assert gains_of(np.array([1, 3, 10, 11])).tolist() == pytest.approx([1.0, 0.5, 0.289065, 0.0], abs=1e-6)


def test_slices_of_a_log_become_what_the_encoder_takes() -> None:
    histories = histories_of([[[(5, 0)]], [[(3, 0), (4, MINUTE_MS)], [(6, 3 * MINUTE_MS)]]])
    reader = SliceReader(histories, default_gap_edges_ms(), slice_events=4, context_events=2)
    batch = slice_batch(reader, np.array([2, 1]), 4)
    assert batch.item_rows_SL.tolist() == [[6, 0, 0, 0], [3, 4, 0, 0]]
    assert batch.lengths_S.tolist() == [1, 2]
    assert batch.gaps_ms_SL[:, :2].tolist()[1] == [-1, MINUTE_MS]
    assert batch.gaps_ms_SL[0, 0] == 2 * MINUTE_MS
    assert batch.context_item_rows_SC.tolist() == [[3, 4], [0, 0]]
    assert batch.context_gaps_ms_SC[0].tolist() == [-1, MINUTE_MS]
